"""Compare images by a perceptual hash and a thumbnail; measure JPEG blockiness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bits = NDArray[np.bool_]

HASH_SIDE = 8
_HASH_THUMB = 32
THUMB = 16
"""Side of the thumbnails that confirm what the hashes find."""

SAME_CORRELATION = 0.9
"""Smallest correlation of the thumbnails of near-duplicates."""

_FLAT_NORM = 0.03
"""Thumbnails with a smaller norm about their mean have no contrast, and no correlation."""
_FLAT_DIFFERENCE = 4.0
"""Largest difference in 8-bit levels of two thumbnails without contrast that count as equal."""

_BLOCK_PAIRS = 2**24
"""Pairs compared at a time, which bounds the memory."""

_CENTER = 1536
"""Side in pixels of the middle part that blockiness is measured on; more changes little."""

_EDGE = 12.0
"""Larger steps, in 8-bit levels, are edges of objects and not of blocks."""

_LUMA = np.array((0.299, 0.587, 0.114), dtype=np.float32)


@dataclass(frozen=True)
class Fingerprint:
    """What near-duplicates have in common: a hash of 64 bits, and a thumbnail (16, 16)."""

    hash: Bits
    thumb: Floats


def fingerprint(luma: Floats) -> Fingerprint:
    """Return the fingerprint of a luma image."""
    return Fingerprint(perceptual_hash(luma), shrink(luma, THUMB))


def luma_of(pixels: NDArray[np.generic]) -> Floats:
    """Convert (H, W, 1 or 3) of uint8, uint16 or float in [0, 1] to luma (H, W) in 0..255."""
    white = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}.get(pixels.dtype, 1.0)
    values = pixels.astype(np.float32)
    gray = values[..., 0] if values.shape[-1] == 1 else values @ _LUMA
    return np.asarray(gray * np.float32(255 / white), dtype=np.float32)


def shrink(luma: Floats, side: int) -> Floats:
    """Downscale to (side, side) by area averages; smaller images repeat pixels."""
    rows, columns = (_starts(length, side) for length in luma.shape)
    sums = np.add.reduceat(np.add.reduceat(luma, rows, axis=0), columns, axis=1)
    counts = np.outer(_counts(rows, luma.shape[0]), _counts(columns, luma.shape[1]))
    return np.asarray(sums / counts, dtype=np.float32)


def _starts(length: int, side: int) -> NDArray[np.intp]:
    return np.minimum(np.arange(side) * length // side, length - 1)


def _counts(starts: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    # reduceat takes a single element if the next start is not larger.
    return np.maximum(np.diff(np.append(starts, length)), 1)


def perceptual_hash(luma: Floats) -> Bits:
    """Return 64 bits that barely change when an image is resized, compressed or brightened.

    They are the signs, about their median, of the lowest frequencies of a 32x32 thumbnail, without
    the mean.
    """
    basis = _dct(_HASH_THUMB)[: HASH_SIDE + 1]
    low = (basis @ shrink(luma, _HASH_THUMB) @ basis.T).flatten()[1 : HASH_SIDE**2 + 1]
    return np.asarray(low > np.median(low))


def _dct(size: int) -> Floats:
    frequency, position = np.arange(size)[:, None], np.arange(size)[None]
    return np.cos((2 * position + 1) * frequency * math.pi / (2 * size)).astype(np.float32)


def correlation(first: Floats, second: Floats) -> float:
    """Return the correlation of two thumbnails: 1 for equal ones, 0 for unrelated ones.

    Of two without contrast it is 1 if they are equally bright, else 0.
    """
    pair = _Thumbs.of([first, second])
    return float(pair.correlations(slice(0, 1), pair)[0, 1])


@dataclass(frozen=True)
class _Thumbs:
    """Thumbnails as rows (n, 256) of zero mean and unit norm (zero if flat), and their means."""

    rows: Floats
    means: Floats
    flat: Bits

    @classmethod
    def of(cls, thumbs: Sequence[Floats]) -> _Thumbs:
        stacked = np.stack([thumb.ravel() for thumb in thumbs])
        means = stacked.mean(axis=1)
        rows = stacked - means[:, None]
        norms = np.linalg.norm(rows, axis=1)
        flat = norms < _FLAT_NORM
        scaled = rows / np.where(flat, 1, norms)[:, None]
        return cls(np.where(flat[:, None], 0, scaled).astype(np.float32), means, flat)

    def correlations(self, part: slice, other: _Thumbs) -> Floats:
        """Return the correlations of some rows with all rows of `other`."""
        found = self.rows[part] @ other.rows.T
        near = np.abs(self.means[part, None] - other.means[None]) < _FLAT_DIFFERENCE
        found[self.flat[part, None] & other.flat[None] & near] = 1
        return np.asarray(found, dtype=np.float32)


def first_matches(
    images: Sequence[Fingerprint],
    others: Sequence[Fingerprint] | None = None,
    *,
    hash_distance: int,
) -> list[tuple[int, int]]:
    """Return each image that has a near-duplicate, as (image, first near-duplicate) indices.

    Near-duplicates are among `others`, or among the images before it if that is None. Time is
    quadratic in the number of images, memory is not, however many of them are equal.
    """
    if not images or (others is not None and not others):
        return []
    against = images if others is None else others
    signs, their_signs = _signs(images), _signs(against)
    thumbs = _Thumbs.of([image.thumb for image in images])
    their_thumbs = _Thumbs.of([image.thumb for image in against])
    found: list[tuple[int, int]] = []
    step = max(1, _BLOCK_PAIRS // len(against))
    for start in range(0, len(images), step):
        part = slice(start, min(start + step, len(images)))
        # The dot product of signs is the number of equal bits minus that of different ones.
        near = (HASH_SIDE**2 - signs[part] @ their_signs.T) / 2 <= hash_distance + 0.25
        if others is None:
            near &= np.arange(len(against))[None] < np.arange(part.start, part.stop)[:, None]
        near &= thumbs.correlations(part, their_thumbs) > SAME_CORRELATION
        firsts = near.argmax(axis=1)
        found += [(start + i, int(firsts[i])) for i in np.flatnonzero(near.any(axis=1)).tolist()]
    return found


def _signs(images: Sequence[Fingerprint]) -> Floats:
    return np.where(np.stack([image.hash for image in images]), 1, -1).astype(np.float32)


def blockiness(luma: Floats) -> float:
    """Return by how many 8-bit levels steps at 8x8 block borders exceed those elsewhere.

    About 0 for clean images, 1.2 at JPEG quality 50, 1.7 at 30; 0 for images under 64 pixels.
    The grid may start anywhere, so cropped JPEGs are found too; resized ones are not.
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
