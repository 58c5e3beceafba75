"""Where tiles lie and how they blend: integers and numpy only.

An image is cut along each axis by itself, and a tile is the product of two spans. The blend weights
of an axis sum to one at every output pixel, so their products over both axes do too: blending needs
no division and no weight buffer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Span:
    """One tile along one axis.

    `read` is what the network sees, in input pixels, `write` the output pixels it contributes to,
    with `weights[i]` for output pixel `write[0] + i`. Of a wrapped axis `read` may reach beyond the
    image at both ends.
    """

    read: tuple[int, int]
    write: tuple[int, int]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Axis:
    """One axis of an image: input and output size, and how it is cut."""

    size: int
    out_size: int
    tile: int
    """Tile size in input pixels, without overlap; the last may be smaller. 0: one tile."""
    overlap: int
    """Input pixels that each tile reads beyond its own, to each side."""
    blend: int = 0
    """Input pixels on each side of a boundary over which two tiles are blended; <= overlap."""
    multiple: int = 1
    """Tiles begin at a multiple of this, so that pixel-unshuffle keeps its phase."""
    wrap: bool = False
    """The image continues at its opposite edge, so tiles there read beyond the edge."""
    read_size: int = 0
    """Input pixels that every tile reads, for backends that prepare for each shape; at least the
    tile with its overlap. 0: no more than needed. Not of a wrapped axis."""


@dataclass(frozen=True)
class Grid:
    """How an image is cut: two axes, the network's scale, and how tiles are run."""

    rows: Axis
    columns: Axis
    scale: int
    batch: int = 1
    """Tiles in one call of the network."""
    at_once: int = 1
    """Calls side by side."""

    @functools.cached_property
    def row_spans(self) -> list[Span]:
        """The spans from top to bottom."""
        return place_spans(self.rows)

    @functools.cached_property
    def column_spans(self) -> list[Span]:
        """The spans from left to right."""
        return place_spans(self.columns)

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.row_spans) * len(self.column_spans)

    @property
    def read_pixels(self) -> int:
        """Input pixels that all tiles read together, overlap included."""
        heights, widths = (
            sum(span.read[1] - span.read[0] for span in spans)
            for spans in (self.row_spans, self.column_spans)
        )
        return heights * widths


def place_spans(axis: Axis) -> list[Span]:
    """Return the tiles of one axis in order; their weights sum to one at every output pixel."""
    bounds = _align(split_evenly(axis.size, axis.tile), axis)
    ratio = axis.out_size / axis.size
    edges = [round(bound * ratio) for bound in bounds]
    edges[-1] = axis.out_size
    result = []
    for i in range(len(bounds) - 1):
        first, last = i == 0, i == len(bounds) - 2
        left = 0 if first else _ramp_reach(axis, bounds, i)
        right = 0 if last else _ramp_reach(axis, bounds, i + 1)
        write, weights = _weigh((edges[i], edges[i + 1]), (left, right), ratio)
        if write[0] == write[1]:
            # A strong reduction leaves nothing of a small tile.
            continue
        result.append(Span(_read_range(axis, bounds[i], bounds[i + 1]), write, weights))
    return result


def _read_range(axis: Axis, start: int, stop: int) -> tuple[int, int]:
    """Extend a tile by the overlap, to multiples, within the image unless it wraps."""
    low, high = start - axis.overlap, stop + axis.overlap
    low -= low % axis.multiple
    high += -high % axis.multiple
    if axis.size > axis.read_size > 0 and not axis.wrap:
        last = axis.size - axis.read_size
        last -= last % axis.multiple
        low = max(0, min(low, last))
        # Up to the end, where the size is no multiple: the last tile reads a few pixels more.
        return low, axis.size if low == last else low + axis.read_size
    return (low, high) if axis.wrap else (max(0, low), min(axis.size, high))


def split_evenly(size: int, tile: int) -> list[int]:
    """Return the boundaries of the tiles, from 0 to `size`: as few as `tile` allows, equally large.

    Equal tiles waste nothing on a sliver at the end and can be batched.
    """
    count = 1 if tile <= 0 else -(-size // tile)
    return [round(i * size / count) for i in range(count + 1)]


def _align(bounds: list[int], axis: Axis) -> list[int]:
    inner = [bound - bound % axis.multiple for bound in bounds[1:-1]]
    return sorted({0, axis.size, *inner})


def _ramp_reach(axis: Axis, bounds: list[int], i: int) -> int:
    """Return the half-width of the ramp at boundary i: two ramps must not meet inside a tile."""
    narrow = min(bounds[i] - bounds[i - 1], bounds[i + 1] - bounds[i])
    return min(axis.blend, narrow // 2)


def _weigh(
    edges: tuple[int, int], reach: tuple[int, int], ratio: float
) -> tuple[tuple[int, int], NDArray[np.float32]]:
    """Return output range and weights: 1 inside, raised-cosine ramps centered on inner edges."""
    left, right = (int(r * ratio) for r in reach)
    low, high = edges[0] - left, edges[1] + right
    weights = np.ones(high - low, dtype=np.float32)
    if left:
        weights[: 2 * left] = make_ramp(2 * left)
    if right:
        # Exactly one minus the neighbor's ramp, so that the two sum to one in float32 too.
        weights[-2 * right :] = np.float32(1) - make_ramp(2 * right)
    return (low, high), weights


def make_ramp(length: int) -> NDArray[np.float32]:
    """Return a rising raised-cosine ramp of `length` samples, never quite 0 or 1."""
    phase = (np.arange(length) + 0.5) / length
    return (0.5 - 0.5 * np.cos(np.pi * phase)).astype(np.float32)
