"""A network as an ONNX graph: for `realesr export`, and for the backends that read ONNX.

The module is traced with `torch.fx`, and every operation of the trace is written as ONNX operators
by the table below: a network made of these operations needs nothing else to be exported.

`torch.onnx.export(dynamo=True)` is not used. With torch 2.13 it takes 22 s for RealESRGAN_x4plus
(this takes 1 s), writes paths of this machine into the file, needs two more packages, offers opsets
below 18 by conversion only, and its graph of a network with pixel-unshuffle refuses images of a
side below the factor.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn import functional as F

from realesr_cli.errors import ExportError
from realesr_cli.nets.architecture import Generator
from realesr_cli.nets.rrdbnet import crop_to_scale, unshuffle_any_size

INPUT, OUTPUT = "input", "output"
"""Names of the graph's one input and one output."""

Array = NDArray[Any]


def onnx_model(net: Generator, *, opset: int, half: bool = False) -> Any:
    """Return the network as an `onnx.ModelProto`; `onnx` must be installed.

    `input` (batch, channels, height, width) float32 in [0, 1], any sizes, becomes `output` (batch,
    channels, height * scale, width * scale) float32, not clamped. With `half` weights and
    arithmetic are in float16. Raises ExportError for an operation that has no form here.
    """
    from onnx import TensorProto, helper

    a = net.architecture
    g = _Graph(net, half=half)
    image = g.node("Cast", [INPUT], {"to": TensorProto.FLOAT16}) if half else INPUT
    last = g.write(image)
    if half:
        last = g.node("Cast", [last], {"to": TensorProto.FLOAT})
    g.nodes[-1].output[0] = OUTPUT
    sides = {INPUT: ("height", "width"), OUTPUT: (f"{a.scale}*height", f"{a.scale}*width")}
    channels = {INPUT: a.in_channels, OUTPUT: a.out_channels}
    ends = {
        name: helper.make_tensor_value_info(
            name, TensorProto.FLOAT, ["batch", channels[name], *sides[name]]
        )
        for name in (INPUT, OUTPUT)
    }
    graph = helper.make_graph(
        g.nodes, a.kind, [ends[INPUT]], [ends[OUTPUT]], list(g.constants.values())
    )
    operators = [helper.make_opsetid("", opset)]
    # The oldest version of the file format that has these operators is read by most programs.
    version = helper.find_min_ir_version_for(operators)
    return helper.make_model(graph, opset_imports=operators, ir_version=version)


class _Graph:
    """An ONNX graph being written: nodes and constants; values are referred to by name.

    Constants have the names of the state dict.
    """

    def __init__(self, net: Generator, *, half: bool) -> None:
        self.net = net
        self.type = np.float16 if half else np.float32
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def write(self, image: str) -> str:
        """Write the network; returns the name of its output."""
        # Traced as one operation each: their Python code depends on sizes.
        tracer = fx.Tracer(autowrap_functions=(unshuffle_any_size, crop_to_scale))
        values: dict[fx.Node, str] = {}
        for node in tracer.trace(self.net).nodes:
            args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
            if node.op == "placeholder":
                values[node] = image
            elif node.op == "output":
                return str(args[0])
            else:
                # Without what was left at its default, which torch adds.
                given = {k: v for k, v in kwargs.items() if v is not None and v is not False}
                values[node] = self._write_operation(node, args, given)
        raise AssertionError("a trace ends with its output")

    def _write_operation(self, node: fx.Node, args: Any, kwargs: dict[str, Any]) -> str:
        target: Any = node.target
        try:
            if node.op == "call_module":
                return self._write_module(target, args[0])
            return _FUNCTIONS[target](self, *args, **kwargs)
        except (KeyError, TypeError) as error:
            name = getattr(target, "__name__", target)
            network = self.net.architecture.describe()
            raise ExportError(f"{network}: its operation {name} has no ONNX form here") from error

    def _write_module(self, name: str, x: str) -> str:
        module = self.net.get_submodule(name)
        if isinstance(module, nn.Conv2d):
            return self._convolve(x, name, module)
        if isinstance(module, nn.PReLU):
            slopes = _to_array(module.weight).astype(self.type)[:, None, None]
            return self.node("PRelu", [x, self.constant(f"{name}.weight", slopes)])
        if isinstance(module, nn.LeakyReLU):
            return self.leaky_relu(x, module.negative_slope)
        if isinstance(module, nn.ReLU):
            return self.relu(x)
        raise TypeError(type(module).__name__)

    def _convolve(self, x: str, name: str, conv: nn.Conv2d) -> str:
        inputs = [x]
        for key in ("weight", "bias"):
            tensor = getattr(conv, key)
            if tensor is not None:
                value = _to_array(tensor).astype(self.type)
                inputs.append(self.constant(f"{name}.{key}", value))
        assert not isinstance(conv.padding, str)
        attributes = {
            "kernel_shape": list(conv.kernel_size),
            "pads": list(conv.padding) * 2,
            "strides": list(conv.stride),
        }
        return self.node("Conv", inputs, attributes)

    def node(
        self, op: str, inputs: Sequence[str], attributes: Mapping[str, Any] | None = None
    ) -> str:
        """Add one operator; returns the name of its output."""
        from onnx import helper

        name = f"{op.lower()}_{len(self.nodes)}"
        node = helper.make_node(op, list(inputs), [name], name=name, **(attributes or {}))
        self.nodes.append(node)
        return name

    def constant(self, name: str, value: Array) -> str:
        """Add a constant of that name; one name, one value."""
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def integers(self, *values: int) -> str:
        """Add a one-dimensional constant of integers."""
        text = "_".join(map(str, values))
        return self.constant(f"integers_{text}", np.array(values, np.int64))

    def integer(self, value: int) -> str:
        """Add a constant integer without dimensions."""
        return self.constant(f"integer_{value}", np.array(value, np.int64))

    def relu(self, x: str) -> str:
        """ReLU."""
        return self.node("Relu", [x])

    def leaky_relu(self, x: str, negative_slope: float = 0.01) -> str:
        """LeakyReLU."""
        return self.node("LeakyRelu", [x], {"alpha": negative_slope})

    def add(self, x: str, y: str, *, alpha: float = 1.0) -> str:
        """x + alpha y."""
        if alpha != 1.0:
            scalar = self.constant(f"factor_{alpha:g}", np.array(alpha, self.type))
            y = self.node("Mul", [y, scalar])
        return self.node("Add", [x, y])

    def cat(self, values: Sequence[str], dim: int = 0) -> str:
        """Concatenation."""
        return self.node("Concat", values, {"axis": dim})

    def interpolate(self, x: str, *, scale_factor: int, mode: str = "nearest") -> str:
        """Height and width times a factor, `nearest` or `bilinear`."""
        if scale_factor == 1:
            return x
        factors = np.array([1, 1, scale_factor, scale_factor], np.float32)
        scales = self.constant(f"times_{scale_factor}", factors)
        return self.node("Resize", [x, "", scales], _RESIZE_MODES[mode])

    def pixel_shuffle(self, x: str, factor: int) -> str:
        """Channel c f^2 + i f + j goes to row i, column j of its cell."""
        if factor == 1:
            return x
        return self.node("DepthToSpace", [x], {"blocksize": factor, "mode": "CRD"})

    def unshuffle(self, x: str, factor: int) -> str:
        """Pixel-unshuffle of any size, as `rrdbnet.unshuffle_any_size` does it, of the input."""
        if factor == 1:
            return x
        for axis in (3, 2):
            x = self._extend(x, axis, factor)
        # One channel at a time: ONNX puts the cell's place before the channel, torch behind it. To
        # reorder the channels of one SpaceToDepth with a Gather would be shorter, but a Gather
        # before a convolution is computed wrongly by OpenVINO 2026.4.1.
        channels = [
            self.node("Gather", [x, self.integers(channel)], {"axis": 1})
            for channel in range(self.net.architecture.in_channels)
        ]
        cells = [self.node("SpaceToDepth", [one], {"blocksize": factor}) for one in channels]
        return self.cat(cells, 1)

    def _extend(self, x: str, axis: int, factor: int) -> str:
        """Bring one axis to a multiple of the factor by mirroring, or repeating where short."""
        one = self.integer(1)
        size = self.node("Gather", [self.node("Shape", [x]), self.integer(axis)], {"axis": 0})
        missing = self.node("Mod", [self.node("Neg", [size]), self.integer(factor)])
        places = self.node("Range", [self.integer(0), self.node("Add", [size, missing]), one])
        last = self.node("Sub", [size, one])
        mirrored = self.node("Sub", [self.node("Add", [last, last]), places])
        wide = self.node("Greater", [size, missing])
        beyond = self.node("Where", [wide, mirrored, last])
        inside = self.node("Less", [places, size])
        chosen = self.node("Where", [inside, places, beyond])
        return self.node("Gather", [x, chosen], {"axis": axis})

    def crop(self, y: str, x: str, scale: int) -> str:
        """The upper left part of y that is `scale` times as large as x."""
        if self.net.architecture.multiple == 1:
            return y
        sizes = self.node("Slice", [self.node("Shape", [x]), self.integers(2), self.integers(4)])
        ends = self.node("Mul", [sizes, self.integers(scale, scale)])
        return self.node("Slice", [y, self.integers(0, 0), ends, self.integers(2, 3)])


def _to_array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().float().numpy()
    return array


_RESIZE_MODES = {
    "nearest": {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    },
    "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
}

_FUNCTIONS: Mapping[object, Callable[..., str]] = {
    F.relu: _Graph.relu,
    F.leaky_relu: _Graph.leaky_relu,
    F.interpolate: _Graph.interpolate,
    F.pixel_shuffle: _Graph.pixel_shuffle,
    torch.add: _Graph.add,
    operator.add: _Graph.add,
    torch.cat: _Graph.cat,
    unshuffle_any_size: _Graph.unshuffle,
    crop_to_scale: _Graph.crop,
}
