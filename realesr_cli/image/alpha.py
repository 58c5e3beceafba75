"""Alpha: color spread under transparent pixels, so that no fringe appears when an image is
enlarged, and the short cut for alpha that is the same everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from realesr_cli.image.depth import Array, band_height

Floats = NDArray[np.float32]


def constant_alpha(alpha: Array) -> int | float | None:
    """The one value of an alpha channel (height, width), or None where it varies."""
    first = alpha.flat[0]
    return first.item() if bool((alpha == first).all()) else None


def bleed(pixels: Array, alpha: Array) -> Array:
    """Color (height, width, channels) with the fully transparent pixels filled from the others.

    What a transparent pixel hides is arbitrary (black, mostly), and a network would mix it into
    the edge. Here it continues the visible color, each pixel weighted by its alpha, smoothly and
    over any distance. Pixels whose alpha is above zero stay as they are, and so does an image
    without any. Source: the push-pull pyramid of Gortler et al., The Lumigraph (1996), 3.4.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    levels = [_halved(*_weighted(pixels, alpha))]
    while max(levels[-1][1].shape) > 1:
        levels.append(_halved(*levels[-1]))
    color = _quotient(*levels.pop())
    while levels:
        sums, weights = levels.pop()
        guess = _doubled(color, *weights.shape)
        # Less than one opaque pixel's worth of color gives way to what lies around it.
        trust = np.minimum(weights, 1)[..., None]
        color = guess + (_quotient(sums, weights) - guess) * trust
    return _filled(pixels, hidden, color)


def _weighted(pixels: Array, alpha: Array) -> tuple[Floats, Floats]:
    top = 1 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max
    weights = alpha.astype(np.float32) / np.float32(top)
    return pixels * weights[..., None], weights


def _halved(sums: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Sums over blocks of two by two; an odd last row or column stands alone."""
    return _pairs(_pairs(sums, 0), 1), _pairs(_pairs(weights, 0), 1)


def _pairs(array: Floats, axis: int) -> Floats:
    array = np.moveaxis(array, axis, 0)
    result = array[::2].copy()
    result[: len(array) // 2] += array[1::2]
    return np.moveaxis(result, 0, axis)


def _quotient(sums: Floats, weights: Floats) -> Floats:
    wide = weights[..., None]
    return np.divide(sums, wide, out=np.zeros_like(sums), where=wide > 0)


def _doubled(array: Floats, height: int, width: int) -> Floats:
    """Bilinear enlargement of (h, w, channels) to the size it was halved from."""
    return _stretched(_stretched(array, height, 0), width, 1)


def _stretched(array: Floats, size: int, axis: int) -> Floats:
    array = np.moveaxis(array, axis, 0)
    before = np.concatenate([array[:1], array[:-1]])
    after = np.concatenate([array[1:], array[-1:]])
    result = np.empty((2 * len(array), *array.shape[1:]), np.float32)
    result[::2] = array + (before - array) * np.float32(0.25)
    result[1::2] = array + (after - array) * np.float32(0.25)
    return np.moveaxis(result[:size], 0, axis)


def _filled(pixels: Array, hidden: NDArray[np.bool_], color: Floats) -> Array:
    """The pixels with the hidden ones taken from `color`, which is half as large."""
    result = pixels.copy()
    height, width, channels = pixels.shape
    step = 2 * band_height(width, channels * 8)
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        where = hidden[rows]
        if not where.any():
            continue
        # One row more on either side, so that bands join as if there were none.
        low, high = start // 2 - 1, -(-rows.stop // 2) + 1
        part = color[max(low, 0) : high]
        skip = start - 2 * max(low, 0)
        guess = _doubled(part, 2 * len(part), width)[skip : skip + len(where)]
        if pixels.dtype.kind == "u":
            guess = np.rint(guess)
        result[rows][where] = guess[where].astype(pixels.dtype)
    return result
