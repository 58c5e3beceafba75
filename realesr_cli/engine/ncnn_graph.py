"""A network as ncnn files: for `realesr export`, and for the backend of that name.

The module is traced with `torch.fx`, and every operation of the trace is written as an ncnn layer
by the table below. The input blob is `data` and the output blob `output`, the names that
realesrgan-ncnn-vulkan extracts and Upscayl looks for first. Formats: the param and model file
structure pages of ncnn's documentation.
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

INPUT, OUTPUT = "data", "output"
"""Names of the blobs that come in and go out."""

_MAGIC = 7767517
_HALF_FLAG = 0x01306B47
_INTERPOLATION = {"nearest": 1, "bilinear": 2}


def ncnn_files(net: Generator, *, half: bool = False) -> tuple[str, bytes]:
    """Return the contents of the .param and the .bin file of a network.

    `data` (channels, height, width) float32 in [0, 1] becomes `output`, not clamped. Sizes are any
    multiples of the pixel-unshuffle factor. With `half` the weights of convolutions are in fp16.
    Raises ExportError for an operation that has no form here.
    """
    graph = _NcnnGraph(net, half=half)
    graph.write()
    lines = graph.layers
    blobs = sum(line[2] for line in lines)
    head = f"{_MAGIC}\n{len(lines)} {blobs}\n"
    return head + "".join(f"{line[0]} {line[1]} {line[3]}\n" for line in lines), graph.weights


class _NcnnGraph:
    """An ncnn graph being written: layers and weights; blobs are referred to by name.

    ncnn wants a blob to have one reader, so one with more is copied by a Split layer.
    """

    def __init__(self, net: Generator, *, half: bool) -> None:
        self.net, self.half = net, half
        self.layers: list[tuple[str, str, int, str]] = []
        """Type, name, number of outputs, and the rest of its line."""
        self.weights = b""
        self._copies: dict[str, list[str]] = {}

    def write(self) -> None:
        """Write all layers."""
        tracer = fx.Tracer(autowrap_functions=(unshuffle_any_size, crop_to_scale))
        nodes = list(tracer.trace(self.net).nodes)
        values: dict[fx.Node, str] = {}
        for node in nodes:
            if node.op == "output":
                break
            if node.op == "placeholder":
                value = self.layer("Input", [], {}, name=INPUT)
            elif self._is_fused(node):
                value = values[node.all_input_nodes[0]]
            else:
                value = self._write_operation(node, values)
            readers = [user for user in node.users if not self._only_passes(user, node)]
            if len(readers) > 1:
                copies = [f"{value}_{i}" for i in range(len(readers))]
                self._add("Split", f"split_{value}", [value], copies, {})
                self._copies[value] = copies
            values[node] = value
        last = self.layers[-1]
        self.layers[-1] = (*last[:3], last[3].replace(f" {value}", f" {OUTPUT}", 1))

    def _only_passes(self, user: fx.Node, node: fx.Node) -> bool:
        """Return whether a user takes only the size of a value: cropping to that of the input."""
        return user.target is crop_to_scale and user.args[0] is not node

    def _is_fused(self, node: fx.Node) -> bool:
        """Return whether this is an activation that its convolution has applied already."""
        return _activation(self.net, node) is not None and self._feeds_alone(node)

    def _feeds_alone(self, node: fx.Node) -> bool:
        source = node.args[0]
        return (
            isinstance(source, fx.Node)
            and len(source.users) == 1
            and source.op == "call_module"
            and isinstance(self.net.get_submodule(str(source.target)), nn.Conv2d)
        )

    def _write_operation(self, node: fx.Node, values: Mapping[fx.Node, str]) -> str:
        def take(value: fx.Node) -> str:
            name = values[value]
            return self._copies[name].pop() if self._copies.get(name) else name

        target: Any = node.target
        try:
            if target is crop_to_scale:
                return take(node.all_input_nodes[0])
            if node.op == "call_module":
                return self._write_module(node, take(node.all_input_nodes[0]))
            args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), take)
            given = {k: v for k, v in kwargs.items() if v is not None and v is not False}
            return _FUNCTIONS[target](self, *args, **given)
        except (KeyError, TypeError) as error:
            name = getattr(target, "__name__", target)
            network = self.net.architecture.describe()
            raise ExportError(f"{network}: its operation {name} has no ncnn form here") from error

    def _write_module(self, node: fx.Node, x: str) -> str:
        module = self.net.get_submodule(str(node.target))
        if isinstance(module, nn.Conv2d):
            user = next(iter(node.users))
            slope = _activation(self.net, user) if len(node.users) == 1 else None
            return self._convolve(x, module, slope)
        if isinstance(module, nn.PReLU):
            self.weights += _to_array(module.weight).tobytes()
            return self.layer("PReLU", [x], {0: module.weight.numel()})
        slope = _activation(self.net, node)
        if slope is None:
            raise TypeError(type(module).__name__)
        return self.relu(x, slope)

    def _convolve(self, x: str, conv: nn.Conv2d, slope: float | None) -> str:
        weight = _to_array(conv.weight)
        flag = _HALF_FLAG if self.half else 0
        data = weight.astype(np.float16 if self.half else np.float32).tobytes()
        self.weights += np.uint32(flag).tobytes() + data + bytes(-len(data) % 4)
        if conv.bias is not None:
            self.weights += _to_array(conv.bias).tobytes()
        assert not isinstance(conv.padding, str)
        parameters: dict[int, Any] = {
            0: conv.out_channels, 1: conv.kernel_size[1], 11: conv.kernel_size[0],
            4: conv.padding[1], 14: conv.padding[0], 5: int(conv.bias is not None),
            6: weight.size,
        }  # fmt: skip
        if slope is not None:
            parameters |= {9: 2, -23310: f"1,{slope:e}"} if slope else {9: 1}
        return self.layer("Convolution", [x], parameters)

    def layer(
        self, kind: str, inputs: Sequence[str], parameters: Mapping[int, Any], *, name: str = ""
    ) -> str:
        """Add one layer with one output; returns the name of the output."""
        name = name or f"{kind.lower()}_{len(self.layers)}"
        self._add(kind, name, inputs, [name], parameters)
        return name

    def _add(
        self, kind: str, name: str, inputs: Sequence[str], outputs: Sequence[str],
        parameters: Mapping[int, Any],
    ) -> None:  # fmt: skip
        settings = [f"{key}={value}" for key, value in parameters.items()]
        words = [str(len(inputs)), str(len(outputs)), *inputs, *outputs, *settings]
        self.layers.append((kind, name, len(outputs), " ".join(words)))

    def relu(self, x: str, negative_slope: float = 0.0) -> str:
        """ReLU or LeakyReLU."""
        return self.layer("ReLU", [x], {0: f"{negative_slope:e}"})

    def add(self, x: str, y: str, *, alpha: float = 1.0) -> str:
        """x + alpha y."""
        if alpha == 1.0:
            return self.layer("BinaryOp", [x, y], {0: 0})
        return self.layer("Eltwise", [x, y], {0: 1, -23301: f"2,1.0,{alpha:e}"})

    def cat(self, values: Sequence[str], dim: int = 0) -> str:
        """Concatenation of channels."""
        if dim != 1:
            raise TypeError(f"dim = {dim}")
        return self.layer("Concat", values, {0: 0})

    def interpolate(self, x: str, *, scale_factor: int, mode: str = "nearest") -> str:
        """Height and width times a factor, `nearest` or `bilinear`."""
        factor = f"{float(scale_factor):e}"
        return self.layer("Interp", [x], {0: _INTERPOLATION[mode], 1: factor, 2: factor})

    def pixel_shuffle(self, x: str, factor: int) -> str:
        """Channel c f^2 + i f + j goes to row i, column j of its cell."""
        return x if factor == 1 else self.layer("PixelShuffle", [x], {0: factor})

    def unshuffle(self, x: str, factor: int) -> str:
        """The inverse of `pixel_shuffle`."""
        return x if factor == 1 else self.layer("Reorg", [x], {0: factor})


def _activation(net: nn.Module, node: fx.Node) -> float | None:
    """Return the negative slope of a ReLU or LeakyReLU, as a module or a function."""
    if node.op == "call_module":
        module = net.get_submodule(str(node.target))
        if isinstance(module, nn.LeakyReLU):
            return module.negative_slope
        return 0.0 if isinstance(module, nn.ReLU) else None
    if node.target is F.leaky_relu:
        slope: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("negative_slope", 0.01)
        return float(slope)
    return 0.0 if node.target is F.relu else None


def _to_array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().float().contiguous().numpy()
    return array


_FUNCTIONS: Mapping[object, Callable[..., str]] = {
    F.relu: _NcnnGraph.relu,
    F.leaky_relu: _NcnnGraph.relu,
    F.interpolate: _NcnnGraph.interpolate,
    F.pixel_shuffle: _NcnnGraph.pixel_shuffle,
    torch.add: _NcnnGraph.add,
    operator.add: _NcnnGraph.add,
    torch.cat: _NcnnGraph.cat,
    unshuffle_any_size: _NcnnGraph.unshuffle,
}
