"""Where tiles lie along one axis and how they blend; integers and numpy only.

An image is cut per axis, and a tile is the product of two spans. The blend weights of an axis sum
to one at every output pixel, so the products over both axes do too: no division, no weight buffer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CUBIC_A = -0.5
"""Parameter of the cubic kernel: Catmull-Rom, as Pillow and MATLAB use."""


@dataclass(frozen=True)
class Span:
    """One tile along one axis.

    `read` is what the network sees, in input pixels; `write` the output pixels it contributes to,
    with `weights[i]` for output pixel `write[0] + i`.
    """

    read: tuple[int, int]
    write: tuple[int, int]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Axis:
    """One axis of an image: input and output size, and how it is cut."""

    size: int
    out_size: int
    core: int
    """Input pixels per tile; the last tile may be smaller, and 0 means one tile."""
    overlap: int
    """Input pixels that each tile sees beyond its core."""
    blend: int = 0
    """Input pixels on each side of a boundary over which two tiles are mixed; <= overlap."""
    multiple: int = 1
    """Windows begin at a multiple of this, so that pixel-unshuffle keeps its phase."""


def cuts(size: int, core: int) -> list[int]:
    """Boundaries of the cores, from 0 to `size`: as few tiles as `core` allows, equally large.

    Equal tiles waste nothing on a sliver at the end and can be batched.
    """
    count = 1 if core <= 0 else -(-size // core)
    return [round(i * size / count) for i in range(count + 1)]


def spans(axis: Axis) -> list[Span]:
    """The tiles of one axis, in order; their weights sum to one at every output pixel."""
    bounds = _aligned(cuts(axis.size, axis.core), axis)
    ratio = axis.out_size / axis.size
    edges = [round(b * ratio) for b in bounds]
    edges[-1] = axis.out_size
    result = []
    for i in range(len(bounds) - 1):
        first, last = i == 0, i == len(bounds) - 2
        left = 0 if first else _reach(axis, bounds, i)
        right = 0 if last else _reach(axis, bounds, i + 1)
        lo = max(0, bounds[i] - axis.overlap)
        lo -= lo % axis.multiple
        hi = min(axis.size, bounds[i + 1] + axis.overlap)
        hi = min(axis.size, hi + -hi % axis.multiple)
        write, weights = _weights((edges[i], edges[i + 1]), (left, right), ratio)
        if write[0] == write[1]:
            # A strong reduction leaves nothing of a small tile.
            continue
        result.append(Span((lo, hi), write, weights))
    return result


def _aligned(bounds: list[int], axis: Axis) -> list[int]:
    inner = [b - b % axis.multiple for b in bounds[1:-1]]
    return sorted({0, axis.size, *inner})


def _reach(axis: Axis, bounds: list[int], i: int) -> int:
    """Half-width of the ramp at boundary i: two ramps must never meet inside one tile."""
    narrow = min(bounds[i] - bounds[i - 1], bounds[i + 1] - bounds[i])
    return min(axis.blend, narrow // 2)


def _weights(
    edges: tuple[int, int], reach: tuple[int, int], ratio: float
) -> tuple[tuple[int, int], NDArray[np.float32]]:
    """Output range and weights: 1 inside, raised-cosine ramps centerd on inner boundaries."""
    left, right = (int(r * ratio) for r in reach)
    lo, hi = edges[0] - left, edges[1] + right
    weights = np.ones(hi - lo, dtype=np.float32)
    if left:
        weights[: 2 * left] = ramp(2 * left)
    if right:
        weights[-2 * right :] = np.float32(1) - ramp(2 * right)
    return (lo, hi), weights


def ramp(length: int) -> NDArray[np.float32]:
    """A rising raised-cosine ramp of `length` samples, never quite 0 or 1."""
    phase = (np.arange(length) + 0.5) / length
    return (0.5 - 0.5 * np.cos(np.pi * phase)).astype(np.float32)


@dataclass(frozen=True)
class Taps:
    """A banded piece of a resampling matrix.

    Its output pixel i is the sum over j of weights[i, j] * input[first[i] + j].
    """

    first: NDArray[np.int64]
    weights: NDArray[np.float32]


def resample_taps(size: int, out_size: int, window: tuple[int, int]) -> Taps:
    """Antialiased cubic resampling of an axis, for the output pixels of `window` only.

    The kernel is cubic (a = -0.5), stretched by the factor of reduction (as MATLAB's imresize and
    Pillow do), with pixel centers at (i + 0.5) * size / out_size - 0.5. At the ends the weights
    that fall outside are dropped and the rest renormalized, as Pillow does. Rows sum to one.
    """
    step = size / out_size
    stretch = max(1.0, step)
    centers = (np.arange(*window) + 0.5) * step - 0.5
    count = min(size, int(np.ceil(4 * stretch)) + 1)
    first = np.floor(centers - 2 * stretch).astype(np.int64) + 1
    first = np.clip(first, 0, size - count)
    distance = (first[:, None] + np.arange(count) - centers[:, None]) / stretch
    weights = cubic(distance)
    weights /= weights.sum(axis=1, keepdims=True)
    return Taps(first, weights.astype(np.float32))


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5, zero beyond distance 2 (Keys 1981, eq. 4)."""
    d = np.abs(x)
    near = ((CUBIC_A + 2) * d - (CUBIC_A + 3)) * d * d + 1
    far = ((CUBIC_A * d - 5 * CUBIC_A) * d + 8 * CUBIC_A) * d - 4 * CUBIC_A
    result: NDArray[np.float64] = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    return result
