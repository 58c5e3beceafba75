"""The networks as ONNX graphs of any batch, height and width, written operator by operator.

torch's own exporters are not used: they fix what the tracing image did (the rows that a network
with pixel-unshuffle adds to odd sizes), want a compiler's worth of imports, and put paths of this
machine into the file. What is written here is compared with the network by whoever exports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from realesr_cli.errors import ExportError
from realesr_cli.nets import compact, rrdbnet, srresnet
from realesr_cli.nets.architecture import Architecture
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture
from realesr_cli.nets.srresnet import SRResNetArchitecture

INPUT, OUTPUT = "input", "output"
"""Names of the graph's one input and one output."""

Array = NDArray[Any]


class Graph:
    """An ONNX graph being written: nodes and constants; values are called by name.

    Constants bear the names of the state dict. With `half` the arithmetic is in float16 while
    input and output stay float32.
    """

    def __init__(self, state: Mapping[str, Tensor], *, half: bool) -> None:
        self.state = state
        self.type = np.float16 if half else np.float32
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

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
        """A constant of that name; one name, one value."""
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def integers(self, *values: int) -> str:
        """A one-dimensional constant of integers."""
        text = "_".join(map(str, values))
        return self.constant(f"integers_{text}", np.array(values, np.int64))

    def integer(self, value: int) -> str:
        """A constant integer without dimensions."""
        return self.constant(f"integer_{value}", np.array(value, np.int64))

    def weight(self, name: str) -> str:
        """A tensor of the state dict."""
        return self.constant(name, self.state[name].numpy().astype(self.type))

    def conv(self, x: str, name: str) -> str:
        """The convolution of that name: stride 1, zeros around, size kept."""
        side = self.state[f"{name}.weight"].shape[-1]
        inputs = [x, self.weight(f"{name}.weight")]
        if f"{name}.bias" in self.state:
            inputs.append(self.weight(f"{name}.bias"))
        return self.node("Conv", inputs, {"kernel_shape": [side] * 2, "pads": [side // 2] * 4})

    def leaky(self, x: str, slope: float) -> str:
        """LeakyReLU."""
        return self.node("LeakyRelu", [x], {"alpha": slope})

    def add(self, x: str, y: str, factor: float = 1.0) -> str:
        """x + factor y."""
        if factor != 1.0:
            scalar = self.constant(f"factor_{factor:g}", np.array(factor, self.type))
            y = self.node("Mul", [y, scalar])
        return self.node("Add", [x, y])

    def concatenate(self, *values: str) -> str:
        """The channels of all."""
        return self.node("Concat", values, {"axis": 1}) if len(values) > 1 else values[0]

    def enlarge(self, x: str, factor: int, mode: str = "nearest") -> str:
        """Height and width times a factor, `nearest` or `linear`."""
        scales = self.constant(f"times_{factor}", np.array([1, 1, factor, factor], np.float32))
        how = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
        if mode == "nearest":
            how |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", [x, "", scales], how)

    def shuffle(self, x: str, factor: int) -> str:
        """Pixel-shuffle: channel c f^2 + i f + j goes to row i, column j of its cell."""
        if factor == 1:
            return x
        return self.node("DepthToSpace", [x], {"blocksize": factor, "mode": "CRD"})

    def length(self, x: str, axis: int) -> str:
        """The size of one axis, without dimensions."""
        return self.node("Gather", [self.node("Shape", [x]), self.integer(axis)], {"axis": 0})

    def unshuffle(self, x: str, factor: int) -> str:
        """Pixel-unshuffle of any size, as `rrdbnet.unshuffle_any_size` does it."""
        for axis in (3, 2):
            x = self._extended(x, axis, factor)
        x = self.node("SpaceToDepth", [x], {"blocksize": factor})
        # ONNX puts the cell's place before the channel, torch behind it.
        order = np.arange(3 * factor**2).reshape(factor**2, 3).T.ravel()
        return self.node("Gather", [x, self.constant("channels", order)], {"axis": 1})

    def _extended(self, x: str, axis: int, factor: int) -> str:
        """One axis brought to a multiple of the factor by mirroring, or repeating where short."""
        one = self.integer(1)
        size = self.length(x, axis)
        missing = self.node("Mod", [self.node("Neg", [size]), self.integer(factor)])
        places = self.node("Range", [self.integer(0), self.node("Add", [size, missing]), one])
        last = self.node("Sub", [size, one])
        mirrored = self.node("Sub", [self.node("Add", [last, last]), places])
        wide = self.node("Greater", [size, missing])
        beyond = self.node("Where", [wide, mirrored, last])
        inside = self.node("Less", [places, size])
        taken = self.node("Where", [inside, places, beyond])
        return self.node("Gather", [x, taken], {"axis": axis})

    def cropped(self, x: str, like: str, scale: int) -> str:
        """The upper left part of x that is `scale` times as large as `like`."""
        factors = self.integers(scale, scale)
        sizes = self.node("Slice", [self.node("Shape", [like]), self.integers(2), self.integers(4)])
        ends = self.node("Mul", [sizes, factors])
        return self.node("Slice", [x, self.integers(0, 0), ends, self.integers(2, 3)])


def _rrdb(g: Graph, a: RRDBArchitecture, image: str) -> str:
    x = image if a.unshuffle == 1 else g.unshuffle(image, a.unshuffle)
    first = x = g.conv(x, "conv_first")
    for block in range(a.blocks):
        start = x
        for name in ("rdb1", "rdb2", "rdb3"):
            x = _dense_block(g, a, x, f"body.{block}.{name}")
        x = g.add(start, x, rrdbnet.RESIDUAL_SCALE)
    x = g.add(first, g.conv(x, "conv_body"))
    for step, factor in enumerate(a.up_factors, 1):
        x = g.leaky(g.conv(g.enlarge(x, factor), f"conv_up{step}"), rrdbnet.SLOPE)
    x = g.conv(g.leaky(g.conv(x, "conv_hr"), rrdbnet.SLOPE), "conv_last")
    return x if a.unshuffle == 1 else g.cropped(x, image, a.scale)


def _dense_block(g: Graph, a: RRDBArchitecture, x: str, name: str) -> str:
    seen = [x]
    for number in range(1, 5):
        y = g.leaky(g.conv(g.concatenate(*seen), f"{name}.conv{number}"), rrdbnet.SLOPE)
        if a.plus and number == 2:
            y = g.add(y, g.conv(x, f"{name}.conv1x1"))
        if a.plus and number == 4:
            y = g.add(y, seen[2])
        seen.append(y)
    return g.add(x, g.conv(g.concatenate(*seen), f"{name}.conv5"), rrdbnet.RESIDUAL_SCALE)


def _compact(g: Graph, a: CompactArchitecture, image: str) -> str:
    x = image
    for number in range(a.convs + 1):
        x = g.conv(x, f"body.{2 * number}")
        if a.activation == "prelu":
            name = f"body.{2 * number + 1}.weight"
            slopes = g.state[name].numpy().astype(g.type)[:, None, None]
            x = g.node("PRelu", [x, g.constant(name, slopes)])
        else:
            leaky = a.activation == "leakyrelu"
            x = g.leaky(x, compact.LEAKY_SLOPE) if leaky else g.node("Relu", [x])
    x = g.shuffle(g.conv(x, f"body.{2 * a.convs + 2}"), a.scale)
    return g.add(x, g.enlarge(image, a.scale) if a.scale > 1 else image)


def _srresnet(g: Graph, a: SRResNetArchitecture, image: str) -> str:
    x = g.leaky(g.conv(image, "conv_first"), srresnet.SLOPE)
    for block in range(a.blocks):
        inner = g.node("Relu", [g.conv(x, f"body.{block}.conv1")])
        x = g.add(x, g.conv(inner, f"body.{block}.conv2"))
    for name in ("upconv1", "upconv2")[: a.scale // 2]:
        x = g.leaky(g.shuffle(g.conv(x, name), 2), srresnet.SLOPE)
    x = g.conv(g.leaky(g.conv(x, "conv_hr"), srresnet.SLOPE), "conv_last")
    return g.add(x, g.enlarge(image, a.scale, "linear"))


_WRITERS: Mapping[str, Callable[[Graph, Any, str], str]] = {
    RRDBArchitecture.kind: _rrdb,
    CompactArchitecture.kind: _compact,
    SRResNetArchitecture.kind: _srresnet,
}


def onnx_model(
    architecture: Architecture, state: Mapping[str, Tensor], *, opset: int, half: bool = False
) -> Any:
    """The network as an `onnx.ModelProto`; `onnx` must be installed.

    `input` (batch, 3, height, width) float32 RGB in [0, 1], any sizes, becomes `output` (batch,
    3, height * scale, width * scale) float32, not clamped. `state` has canonical names. Raises
    ExportError for a kind of network without a graph here.
    """
    from onnx import TensorProto, helper

    if architecture.kind not in _WRITERS:
        raise ExportError(f"{architecture.describe()}: this kind of network has no ONNX form yet")
    g = Graph(state, half=half)
    image = g.node("Cast", [INPUT], {"to": TensorProto.FLOAT16}) if half else INPUT
    last = _WRITERS[architecture.kind](g, architecture, image)
    if half:
        g.node("Cast", [last], {"to": TensorProto.FLOAT})
    g.nodes[-1].output[0] = OUTPUT
    s = architecture.scale
    shapes = {INPUT: ("height", "width"), OUTPUT: (f"{s}*height", f"{s}*width")}
    ends = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, *sizes])
        for name, sizes in shapes.items()
    }
    graph = helper.make_graph(
        g.nodes, architecture.kind, [ends[INPUT]], [ends[OUTPUT]], list(g.constants.values())
    )
    operators = [helper.make_opsetid("", opset)]
    # The oldest form of file that the operators allow is read by the most programs.
    version = helper.find_min_ir_version_for(operators)
    return helper.make_model(graph, opset_imports=operators, ir_version=version)
