"""RRDBNet and Compact on the CPU through oneDNN's fused convolutions, in strips that stay in cache.

Why it is faster than running the module: a convolution and its LeakyReLU are one pass, weights are
laid out for the processor once, and a dense block is computed strip by strip, so that its growing
stack of features (192 channels) never leaves the cache. A strip needs 5 more rows on each side, and
every convolution of the block computes only the rows that the next one reads, so strips cost some
percent where tiles of that size would cost a multiple, and the result is that of the whole image.

The residual trunk, the first and the last convolution stay in fp32 whatever the working format:
bf16 has 8 significant bits, which is not enough for an image of 256 levels.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realesr_cli.nets.compact import Compact
from realesr_cli.nets.rrdbnet import (
    RESIDUAL_SCALE,
    SLOPE,
    DenseBlock,
    RRDBNet,
    unshuffle_any_size,
)

N = TypeVar("N", bound=nn.Module)

STRIP_BYTES = 6 * 1024 * 1024
"""Features of one strip: what the caches of a few cores keep. Measured flat from 4 to 12 MiB."""

GROUP = 8
"""Layers of a Compact network that are computed together on one strip."""

TAIL_SIDE = 192
"""Side of the pieces of the layers after the blocks, in output pixels."""

TAIL_RADIUS = 2
"""Input pixels to each side that those layers see, rounded up."""

DENSE_RADIUS = 5
"""Rows on each side that one row of a dense block's output depends on."""

_ONE = [1, 1]
_SIDES = [0, 1]
_CHANNELS_LAST = torch.channels_last


@functools.cache
def fused_available() -> bool:
    """Whether oneDNN's fused convolution can be called here and computes what torch does."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 8, 6, 7, generator=generator).contiguous(memory_format=_CHANNELS_LAST)
    conv = nn.Conv2d(8, 8, 3, 1, 1)
    with torch.inference_mode():
        try:
            y = FusedConv.pack(conv, torch.float32)(x, SLOPE)
        except (AttributeError, RuntimeError, TypeError):
            # These are operators that torch's own compiler uses; they may move in a new release.
            return False
        return torch.allclose(y, F.leaky_relu(conv(x), SLOPE), atol=1e-5)


@dataclass(frozen=True)
class FusedConv:
    """One 3x3 convolution with its weights laid out for the processor."""

    weight: Tensor
    bias: Tensor

    @staticmethod
    def pack(conv: nn.Conv2d, dtype: torch.dtype, gain: float = 1.0) -> FusedConv:
        """The convolution times `gain`, in the working format."""
        assert conv.bias is not None
        weight = (conv.weight.detach().float() * gain).to(dtype)
        packed = _mkldnn()._reorder_convolution_weight(weight, _ONE, _ONE, _ONE, 1, None)
        return FusedConv(packed, (conv.bias.detach().float() * gain).to(dtype))

    def __call__(self, x: Tensor, slope: float | None = None, padding: list[int] = _ONE) -> Tensor:
        """(1, C, h, w) channels-last in the working format, LeakyReLU of `slope` applied if given.

        `padding` [0, 1] leaves out the first and last row instead of assuming zeros around them.
        """
        attribute, scalars = ("none", []) if slope is None else ("leaky_relu", [slope])
        result: Tensor = _mkldnn()._convolution_pointwise(
            x, self.weight, self.bias, padding, _ONE, _ONE, 1, attribute, scalars, ""
        )
        return result


def _mkldnn() -> Any:
    return torch.ops.mkldnn


def strip_rows(width: int, bytes_per_pixel: int) -> int:
    """Rows of a strip that fills the cache budget; at least 8, as each strip needs 10 extra."""
    return max(8, STRIP_BYTES // (width * bytes_per_pixel))


class FusedRRDBNet:
    """An RRDBNet as a Forward: (B, 3, h, w) to (B, 3, h * scale, w * scale) float32."""

    def __init__(self, net: RRDBNet, dtype: torch.dtype) -> None:
        self.architecture = net.architecture
        self._dtype = dtype
        self._first = net.conv_first
        self._blocks = [
            [_pack_dense(rdb, dtype) for rdb in block.children() if isinstance(rdb, DenseBlock)]
            for block in net.body
        ]
        self._body = FusedConv.pack(net.conv_body, dtype)
        self._ups = [FusedConv.pack(net.get_submodule(n), dtype) for n in net.up_names]  # type: ignore[arg-type]
        self._hr = FusedConv.pack(net.conv_hr, dtype)
        self._last = net.conv_last

    def __call__(self, x: Tensor) -> Tensor:
        """Each image of the batch by itself: one fills the processor."""
        with torch.inference_mode():
            return torch.cat([self._one(image) for image in x.float().split(1)])

    def _one(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        a = self.architecture
        x = unshuffle_any_size(x, a.unshuffle).contiguous(memory_format=_CHANNELS_LAST)
        first = F.conv2d(x, self._first.weight, self._first.bias, padding=1)
        trunk = first.clone(memory_format=torch.preserve_format)
        features = _cast(trunk, self._dtype)
        stack = (a.features + 4 * a.growth) * features.element_size()
        rows = strip_rows(trunk.shape[3], stack)
        # Written anew by every block; allocating them anew costs as much as a convolution, since
        # the system hands out zeroed pages.
        inner, spare = torch.empty_like(trunk), torch.empty_like(features)
        for block in self._blocks:
            inner.copy_(trunk)
            for dense in block:
                _dense_block(features, spare, inner, dense, rows)
                features, spare = spare, features
            trunk.add_(inner, alpha=RESIDUAL_SCALE)
            features.copy_(trunk)
        del trunk, inner, spare
        first += self._body(features)
        result = self._tail(_cast(first, self._dtype))
        return result[..., : height * a.scale, : width * a.scale]

    def _tail(self, features: Tensor) -> Tensor:
        """Everything after the blocks, in square pieces with TAIL_RADIUS more on each side."""
        height, width = features.shape[2:]
        factor = 2 ** len(self._ups)
        side = max(8, TAIL_SIDE // factor)
        result = torch.empty(1, 3, height * factor, width * factor)
        widest = self.architecture.features * ((side + 2 * TAIL_RADIUS) * factor) ** 2
        exact = torch.empty(widest)
        for top in range(0, height, side):
            for left in range(0, width, side):
                piece, above = _around(features, 2, (top, top + side))
                piece, before = _around(piece, 3, (left, left + side))
                for up in self._ups:
                    piece = up(F.interpolate(piece, scale_factor=2, mode="nearest"), SLOPE)
                piece = _widened(self._hr(piece, SLOPE), exact)
                piece = F.conv2d(piece, self._last.weight, self._last.bias, padding=1)
                piece = piece[:, :, above * factor :, before * factor :]
                target = result[:, :, top * factor :, left * factor :]
                target = target[:, :, : side * factor, : side * factor]
                target.copy_(piece[:, :, : target.shape[2], : target.shape[3]])
        return result


def _widened(x: Tensor, buffer: Tensor) -> Tensor:
    """`x` in fp32 in the memory of `buffer`, channels-last.

    A new tensor of this size for every piece costs 30 times as much as the conversion itself.
    """
    batch, channels, height, width = x.shape
    view = buffer[: x.numel()].view(batch, height, width, channels).permute(0, 3, 1, 2)
    return view.copy_(x)


def _around(x: Tensor, dim: int, part: tuple[int, int]) -> tuple[Tensor, int]:
    """A part of an axis with TAIL_RADIUS more on each side, and how much of that lies before."""
    low = max(0, part[0] - TAIL_RADIUS)
    high = min(x.shape[dim], part[1] + TAIL_RADIUS)
    return x.narrow(dim, low, high - low), part[0] - low


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy in the working format that never shares memory with the fp32 trunk."""
    return x.to(dtype, copy=True, memory_format=torch.preserve_format)


def _pack_dense(rdb: DenseBlock, dtype: torch.dtype) -> list[FusedConv]:
    """The five convolutions; the residual factor goes into the last one's weights."""
    convs = [FusedConv.pack(c, dtype) for c in (rdb.conv1, rdb.conv2, rdb.conv3, rdb.conv4)]
    return [*convs, FusedConv.pack(rdb.conv5, dtype, RESIDUAL_SCALE)]


def _dense_block(
    x: Tensor, result: Tensor, trunk: Tensor, convs: list[FusedConv], rows: int
) -> None:
    """One dense block: adds its residual to `trunk`, and writes the sum to `result`, cast.

    `x` is `trunk` in the working format. `result` is another tensor, since the next strip still
    reads rows of `x` above its own.
    """
    height = x.shape[2]
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        have = max(0, top - DENSE_RADIUS)
        stack = x[:, :, have : min(height, bottom + DENSE_RADIUS)]
        for i, conv in enumerate(convs):
            # Of this convolution's output, the rows that the rest of the block still needs.
            reach = DENSE_RADIUS - 1 - i
            low, high = max(0, top - reach), min(height, bottom + reach)
            y = _rows(conv, stack, (low - have, high - have), SLOPE if reach else None)
            if reach:
                stack = torch.cat((stack[:, :, low - have : high - have], y), 1)
                have = low
        strip = trunk[:, :, top:bottom]
        strip += y
        result[:, :, top:bottom] = strip


def _rows(conv: FusedConv, x: Tensor, wanted: tuple[int, int], slope: float | None) -> Tensor:
    """Rows [wanted) of the convolution of x, which holds one more row unless the image ends."""
    above = 1 - wanted[0]
    below = 1 - (x.shape[2] - wanted[1])
    if above == below:
        return conv(x, slope, [above, 1])
    return conv(F.pad(x, (0, 0, above, below)), slope, _SIDES)


Layer = tuple[FusedConv, float | None, Tensor | None]
"""A convolution, the slope fused into it, and PReLU's slopes per channel applied after it."""


class FusedCompact:
    """A Compact network as a Forward: (B, 3, h, w) to (B, 3, h * scale, w * scale) float32."""

    def __init__(self, net: Compact, dtype: torch.dtype) -> None:
        self._scale = net.scale
        self._dtype = dtype
        layers = list(net.body)
        self._first, self._first_activation = layers[0], layers[1]
        self._hidden: list[Layer] = [
            (FusedConv.pack(conv, dtype), *_activation(act, dtype))  # type: ignore[arg-type]
            for conv, act in zip(layers[2:-1:2], layers[3:-1:2], strict=True)
        ]
        self._last = FusedConv.pack(layers[-1], dtype)  # type: ignore[arg-type]

    def __call__(self, x: Tensor) -> Tensor:
        """Each image of the batch by itself: one fills the processor."""
        with torch.inference_mode():
            return torch.cat([self._one(image) for image in x.float().split(1)])

    def _one(self, x: Tensor) -> Tensor:
        y = x.contiguous(memory_format=_CHANNELS_LAST)
        y = _cast(self._first_activation(self._first(y)), self._dtype)
        rows = strip_rows(y.shape[3], y.shape[1] * y.element_size())
        spare = torch.empty_like(y)
        for begin in range(0, len(self._hidden), GROUP):
            _in_strips(y, spare, self._hidden[begin : begin + GROUP], max(rows, 4 * GROUP))
            y, spare = spare, y
        base = F.interpolate(x, scale_factor=self._scale, mode="nearest")
        residual = self._last(y).float().contiguous()
        return base.add_(F.pixel_shuffle(residual, self._scale))


def _in_strips(x: Tensor, result: Tensor, layers: list[Layer], rows: int) -> None:
    """Several layers strip by strip, from `x` to `result`; each computes what the next reads."""
    height = x.shape[2]
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        have = max(0, top - len(layers))
        y = x[:, :, have : min(height, bottom + len(layers))]
        for i, (conv, slope, prelu) in enumerate(layers):
            reach = len(layers) - 1 - i
            low, high = max(0, top - reach), min(height, bottom + reach)
            y, have = _rows(conv, y, (low - have, high - have), slope), low
            if prelu is not None:
                y = F.prelu(y, prelu)
        result[:, :, top:bottom] = y


def _activation(layer: nn.Module, dtype: torch.dtype) -> tuple[float | None, Tensor | None]:
    """Slope to fuse into the convolution, or PReLU's slopes per channel to apply after it."""
    if isinstance(layer, nn.PReLU):
        return None, layer.weight.detach().to(dtype)
    return (0.0 if isinstance(layer, nn.ReLU) else float(layer.negative_slope)), None  # type: ignore[arg-type]


def fuse(net: nn.Module, dtype: torch.dtype) -> FusedRRDBNet | FusedCompact | None:
    """The network as a fused Forward in fp32 or bf16, or None for one that has no such form.

    The weights are those of now: what happens to `net` later, or where it lives, has no effect.
    """
    if isinstance(net, RRDBNet) and not net.architecture.plus:
        return FusedRRDBNet(_frozen(net), dtype)
    if isinstance(net, Compact):
        return FusedCompact(_frozen(net), dtype)
    return None


def _frozen(net: N) -> N:
    return copy.deepcopy(net).to("cpu", torch.float32).eval().requires_grad_(False)
