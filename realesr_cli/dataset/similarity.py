"""What an image looks like, in a few numbers: a perceptual hash, a thumbnail, its blockiness."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bits = NDArray[np.bool_]

HASH_SIDE = 8
_HASH_THUMB = 32
THUMB = 16

_CENTER = 1536
"""Blockiness is measured on the middle of this many pixels a side: more would tell no more."""

_EDGE = 12.0
"""Steps above this many codes are edges of things, not of blocks."""

_LUMA = np.array((0.299, 0.587, 0.114), dtype=np.float32)


def luma_of(pixels: NDArray[np.generic]) -> Floats:
    """(H, W) in 0..255 from (H, W, 1 or 3) of uint8, uint16 or float in [0, 1]."""
    white = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}.get(pixels.dtype, 1.0)
    values = pixels.astype(np.float32)
    gray = values[..., 0] if values.shape[-1] == 1 else values @ _LUMA
    return np.asarray(gray * np.float32(255 / white), dtype=np.float32)


def shrink(luma: Floats, side: int) -> Floats:
    """(side, side) by averages over areas; images smaller than that repeat pixels."""
    rows, columns = (_starts(length, side) for length in luma.shape)
    sums = np.add.reduceat(np.add.reduceat(luma, rows, axis=0), columns, axis=1)
    counts = np.outer(_counts(rows, luma.shape[0]), _counts(columns, luma.shape[1]))
    return np.asarray(sums / counts, dtype=np.float32)


def _starts(length: int, side: int) -> NDArray[np.intp]:
    return np.minimum(np.arange(side) * length // side, length - 1)


def _counts(starts: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    # reduceat takes a single element where the next start is not larger.
    return np.maximum(np.diff(np.append(starts, length)), 1)


def perceptual_hash(luma: Floats) -> Bits:
    """64 bits that stay nearly the same when an image is resized, compressed or brightened.

    The signs, about their median, of the lowest frequencies of a 32x32 thumbnail without the mean.
    """
    basis = _dct(_HASH_THUMB)[: HASH_SIDE + 1]
    low = (basis @ shrink(luma, _HASH_THUMB) @ basis.T).flatten()[1 : HASH_SIDE**2 + 1]
    return np.asarray(low > np.median(low))


def _dct(size: int) -> Floats:
    frequency, position = np.arange(size)[:, None], np.arange(size)[None]
    return np.cos((2 * position + 1) * frequency * math.pi / (2 * size)).astype(np.float32)


def likeness(first: Floats, second: Floats) -> float:
    """Correlation of two thumbnails: 1 equal, 0 unrelated. Two without any contrast are equal."""
    a, b = first - first.mean(), second - second.mean()
    power = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    if power < 1e-3:
        return 1.0 if float(np.abs(first - second).mean()) < 4 else 0.0
    return float((a * b).sum()) / power


def near_pairs(
    hashes: Sequence[Bits], others: Sequence[Bits] | None = None, *, distance: int
) -> list[tuple[int, int]]:
    """Indices of hashes that differ in at most `distance` bits.

    Within one list each pair is given once, the smaller index first; with `others`, pairs across.
    """
    if not hashes or (others is not None and not others):
        return []
    left = _signs(hashes)
    right = left if others is None else _signs(others)
    found: list[tuple[int, int]] = []
    step = max(1, 2**24 // len(right))
    for start in range(0, len(left), step):
        # The dot product of signs is the number of equal bits less that of different ones.
        apart = (HASH_SIDE**2 - left[start : start + step] @ right.T) / 2
        for i, j in np.argwhere(apart <= distance + 0.25):
            if others is not None or start + i < j:
                found.append((start + int(i), int(j)))
    return found


def _signs(hashes: Sequence[Bits]) -> Floats:
    return np.where(np.stack(list(hashes)), 1, -1).astype(np.float32)


def blockiness(luma: Floats) -> float:
    """How much larger steps are at the borders of 8x8 blocks than elsewhere, in codes of 255.

    About 0 for clean images, 1.2 at JPEG quality 50, 1.7 at 30; 0 for images under 64 pixels.
    The grid may start anywhere, so cropped JPEGs are found too; enlarged or shrunk ones are not.
    """
    height, width = luma.shape
    if min(height, width) < 64:
        return 0.0
    top, left = max(0, (height - _CENTER) // 2), max(0, (width - _CENTER) // 2)
    middle = luma[top : top + _CENTER, left : left + _CENTER]
    return max(0.0, min(_grid_step(middle), _grid_step(middle.T)))


def _grid_step(luma: Floats) -> float:
    steps = np.minimum(np.abs(np.diff(luma, axis=1)), _EDGE)
    whole = steps.shape[1] // 8 * 8
    phases = steps[:, :whole].mean(axis=0).reshape(-1, 8).mean(axis=0)
    return float(phases.max() - np.median(phases))
