"""RRDBNet and Compact as fused convolutions on blocks of a tile; see `onednn` for why."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realesr_cli.engine.backends.blocks import Arena, Block, Scratch, cut
from realesr_cli.engine.workers import Stage, Workers
from realesr_cli.nets.compact import Compact
from realesr_cli.nets.rrdbnet import (
    RESIDUAL_SCALE,
    SLOPE,
    DenseBlock,
    RRDBNet,
    unshuffle_any_size,
)

DENSE_SIDE, COMPACT_SIDE = 96, 128
"""Sides of blocks: the features that a few layers pass on stay in a core's cache."""

GROUP = 4
"""Layers of a Compact network computed together on a block: more reread a larger halo."""

TAIL_SIDE = 128
"""Side of the pieces of the layers after the dense blocks, in output pixels."""

TAIL_RADIUS = 2
"""Input pixels that those layers see to each side, rounded up."""

DENSE_RADIUS = 5
"""Pixels to each side that a dense block's output depends on: five 3x3 convolutions."""

_ONE = [1, 1]
_CHANNELS_LAST = torch.channels_last
_OPS: Any = torch.ops.mkldnn


@functools.cache
def can_fuse() -> bool:
    """Return whether oneDNN's fused convolution can be called here and computes what torch does."""
    if not torch.backends.mkldnn.is_available():
        return False
    x = torch.linspace(-1, 1, 336).view(1, 8, 6, 7).contiguous(memory_format=_CHANNELS_LAST)
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
        """Lay out a convolution, multiplied by `gain` in fp32, in `dtype`."""
        assert conv.bias is not None
        weight = (conv.weight.detach().float() * gain).to(dtype)
        packed = _OPS._reorder_convolution_weight(weight, _ONE, _ONE, _ONE, 1, None)
        return FusedConv(packed, (conv.bias.detach().float() * gain).to(dtype))

    def __call__(self, x: Tensor, slope: float | None = None, padding: list[int] = _ONE) -> Tensor:
        """Convolve (1, C, h, w), channels-last, in the packed dtype; then LeakyReLU if `slope`.

        A `padding` of 0 drops the first and last row or column instead of assuming zeros around.
        """
        attribute, scalars = ("none", []) if slope is None else ("leaky_relu", [slope])
        result: Tensor = _OPS._convolution_pointwise(
            x, self.weight, self.bias, padding, _ONE, _ONE, 1, attribute, scalars, ""
        )
        return result


class FusedRRDBNet:
    """An RRDBNet with packed weights; safe to use from several threads."""

    def __init__(self, network: RRDBNet, dtype: torch.dtype, workers: Workers) -> None:
        self.architecture = network.architecture
        self._dtype, self._workers, self._scratch = dtype, workers, Scratch()
        self._first = network.conv_first
        self._dense = [
            self._pack_dense(rdb)
            for block in network.body
            for rdb in block.children()
            if isinstance(rdb, DenseBlock)
        ]
        self._per_block = len(self._dense) // max(1, len(network.body))
        self._body = FusedConv.pack(network.conv_body, dtype)
        ups = (network.get_submodule(name) for name in network.up_names)
        self._ups = [FusedConv.pack(up, dtype) for up in ups]  # type: ignore[arg-type]
        self._hr = FusedConv.pack(network.conv_hr, dtype)
        self._last = network.conv_last

    def _pack_dense(self, rdb: DenseBlock) -> list[FusedConv]:
        """Pack the five convolutions, with the residual factor in the weights of the last one."""
        convs = (rdb.conv1, rdb.conv2, rdb.conv3, rdb.conv4)
        last = FusedConv.pack(rdb.conv5, self._dtype, RESIDUAL_SCALE)
        return [*(FusedConv.pack(conv, self._dtype) for conv in convs), last]

    def compute(self, x: Tensor) -> Tensor:
        """Enlarge (B, in, h, w) to (B, out, h * scale, w * scale), both float32."""
        height, width = x.shape[-2:]
        a = self.architecture
        x = unshuffle_any_size(x, a.unshuffle).contiguous(memory_format=_CHANNELS_LAST)
        batch, _, rows, columns = x.shape
        factor = a.scale * a.unshuffle
        result = self._scratch.take_result(batch, a.out_channels, rows * factor, columns * factor)
        blocks, neighbors = cut(batch, rows, columns, DENSE_SIDE)
        with self._scratch.borrow() as arena:
            maps = _Maps.take(arena, (batch, a.features, rows, columns), self._dtype)
            stages: list[Stage] = [lambda i: self._compute_head(blocks[i], x, maps)]
            for k in range(len(self._dense)):
                stages.append(functools.partial(self._compute_dense, k, blocks, maps))
            stages.append(lambda i: self._compute_tail(blocks[i], maps, result))
            self._workers.run(stages, neighbors)
        return result[..., : height * a.scale, : width * a.scale]

    def _compute_head(self, block: Block, x: Tensor, maps: _Maps) -> None:
        """Compute the first convolution, in fp32."""
        window = block.widen(1, x.shape[2:])
        y = F.conv2d(x[window.index], self._first.weight, self._first.bias, 1, window.padding)
        y = block.crop(y, window)
        for target in (maps.first, maps.trunk, maps.inner, maps.features[0]):
            target[block.index] = y

    def _compute_dense(self, k: int, blocks: list[Block], maps: _Maps, i: int) -> None:
        """Add a dense block's residual to the running sums; of every third one the outer one too.

        The sums are in fp32; convolutions read a copy of them in the working precision, and write
        it to the other of two maps, since neighbors still read this one.
        """
        block, source, target = blocks[i], maps.features[k % 2], maps.features[1 - k % 2]
        window = block.widen(DENSE_RADIUS, source.shape[2:])
        above, before = (1 - padding for padding in window.padding)
        stack = source[window.index]
        for conv in self._dense[k][:-1]:
            y = conv(stack, SLOPE, window.padding)
            height, width = stack.shape[2:]
            inside = stack[:, :, above : height - above, before : width - before]
            stack = torch.cat((inside, y), 1)
        y = block.crop(self._dense[k][-1](stack, None, window.padding), window)
        inner = maps.inner[block.index]
        inner += y.float()  # Faster than adding across types.
        if (k + 1) % self._per_block == 0:
            trunk = maps.trunk[block.index]
            trunk.add_(inner, alpha=RESIDUAL_SCALE)
            inner.copy_(trunk)
        target[block.index] = inner

    def _compute_tail(self, block: Block, maps: _Maps, result: Tensor) -> None:
        """Compute everything after the dense blocks, in pieces, as its maps are 16 times as large.

        Each piece reads TAIL_RADIUS more features to each side and drops what those give.
        """
        a = self.architecture
        factor = a.scale * a.unshuffle
        source = maps.features[len(self._dense) % 2]
        size = source.shape[2], source.shape[3]
        for piece in block.split(max(8, TAIL_SIDE // factor)):
            near = piece.grow(TAIL_RADIUS, size)
            window = near.widen(1, size)
            y = near.crop(self._body(source[window.index], None, window.padding), window)
            y = (maps.first[near.index] + y).to(self._dtype)
            for up, step in zip(self._ups, a.up_factors, strict=True):
                y = up(F.interpolate(y, scale_factor=step, mode="nearest"), SLOPE)
            y = self._hr(y, SLOPE).float()
            y = F.conv2d(y, self._last.weight, self._last.bias, padding=1)
            top, left = (piece.top - near.top) * factor, (piece.left - near.left) * factor
            target = result[piece.scaled(factor)]
            target.copy_(y[:, :, top : top + target.shape[2], left : left + target.shape[3]])


@dataclass(frozen=True)
class _Maps:
    """The feature maps of one pass of an RRDBNet."""

    first: Tensor
    """The first convolution, which the sum of all blocks is added to at the end."""
    trunk: Tensor
    inner: Tensor
    """The running sum inside an RRDB."""
    features: tuple[Tensor, Tensor]

    @staticmethod
    def take(arena: Arena, shape: tuple[int, ...], dtype: torch.dtype) -> _Maps:
        first, trunk, inner = (arena.take(n, shape, torch.float32) for n in ("f", "t", "i"))
        return _Maps(
            first, trunk, inner, (arena.take("0", shape, dtype), arena.take("1", shape, dtype))
        )


# A convolution, the slope fused into it, and PReLU's slopes per channel, applied after it.
FusedLayer = tuple[FusedConv, float | None, Tensor | None]


class FusedCompact:
    """A Compact network with packed weights; safe to use from several threads."""

    def __init__(self, network: Compact, dtype: torch.dtype, workers: Workers) -> None:
        self.architecture = network.architecture
        self._dtype, self._workers, self._scratch = dtype, workers, Scratch()
        layers: list[Any] = list(network.body)
        self._first, self._first_activation = layers[:2]
        hidden: list[FusedLayer] = [
            (FusedConv.pack(conv, dtype), *_read_slopes(act, dtype))
            for conv, act in zip(layers[2:-1:2], layers[3:-1:2], strict=True)
        ]
        self._groups = [hidden[i : i + GROUP] for i in range(0, len(hidden), GROUP)] or [[]]
        self._last = FusedConv.pack(layers[-1], dtype)

    def compute(self, x: Tensor) -> Tensor:
        """Enlarge (B, in, h, w) to (B, out, h * scale, w * scale), both float32."""
        a = self.architecture
        batch, _, height, width = x.shape
        x = x.contiguous(memory_format=_CHANNELS_LAST)
        result = self._scratch.take_result(batch, a.out_channels, height * a.scale, width * a.scale)
        blocks, neighbors = cut(batch, height, width, COMPACT_SIDE)
        with self._scratch.borrow() as arena:
            shape = batch, a.features, height, width
            maps = tuple(arena.take(name, shape, self._dtype) for name in "01")
            stages: list[Stage] = [
                functools.partial(self._compute_group, k, blocks, (x, *maps), result)
                for k in range(len(self._groups))
            ]
            self._workers.run(stages, neighbors)
        return result

    def _compute_group(
        self, k: int, blocks: list[Block], maps: tuple[Tensor, ...], result: Tensor, i: int
    ) -> None:
        """Compute the layers of group k for a block: from the image, from one map to the other."""
        x, block, layers = maps[0], blocks[i], self._groups[k]
        first, last = k == 0, k == len(self._groups) - 1
        window = block.widen(len(layers) + first + last, x.shape[2:])
        if first:
            y = F.conv2d(x[window.index], self._first.weight, self._first.bias, 1, window.padding)
            y = self._first_activation(y).to(self._dtype)
        else:
            y = maps[1 + k % 2][window.index]
        for conv, slope, prelu in layers:
            y = conv(y, slope, window.padding)
            if prelu is not None:
                y = F.prelu(y, prelu)
        if last:
            y = block.crop(self._last(y, None, window.padding), window)
            _add_shuffled(y, x[block.index], result[block.scaled(self.architecture.scale)])
        else:
            maps[2 - k % 2][block.index] = block.crop(y, window)


def _add_shuffled(residual: Tensor, base: Tensor, target: Tensor) -> None:
    """Write pixel_shuffle(residual) plus the base, enlarged, to `target`, a part of the result.

    The base is added before the shuffle, channels-last like both, which is one short pass.
    """
    channels, rows, columns = target.shape[1], base.shape[2], base.shape[3]
    factor = target.shape[2] // rows
    y = residual.float().permute(0, 2, 3, 1).reshape(rows * columns, channels, factor**2)
    y += base.permute(0, 2, 3, 1).reshape(rows * columns, -1, 1)
    y = y.view(1, rows, columns, channels, factor, factor).permute(0, 3, 1, 4, 2, 5)
    target.unflatten(3, (columns, factor)).unflatten(2, (rows, factor)).copy_(y)


def _read_slopes(layer: nn.Module, dtype: torch.dtype) -> tuple[float | None, Tensor | None]:
    """Return the slope to fuse into the convolution, or PReLU's slopes per channel."""
    if isinstance(layer, nn.PReLU):
        return None, layer.weight.detach().to(dtype)
    return (0.0 if isinstance(layer, nn.ReLU) else float(layer.negative_slope)), None  # type: ignore[arg-type]
