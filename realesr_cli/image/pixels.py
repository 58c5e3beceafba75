"""Pixel arrays: conversion between depths, and color under transparent pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr_cli.errors import UnsupportedImageError

Array = NDArray[Any]
Floats = NDArray[np.float32]

BITS = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16, np.dtype(np.float32): 32}

BAND_BYTES = 2**18
"""Bytes of one band of rows: small enough to stay in the processor's cache."""

_UINT16_TO_UINT8 = ((np.arange(65536, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def to_uint8(array: Array) -> Array:
    """Round uint8, uint16 or float [0, 1] to the nearest 8-bit values."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return np.asarray(_UINT16_TO_UINT8[array])
    return np.rint(np.clip(array, 0, 1) * np.float32(255)).astype(np.uint8)


def to_uint16(array: Array) -> Array:
    """Round uint8, uint16 or float [0, 1] to the nearest 16-bit values."""
    if array.dtype == np.uint16:
        return array
    if array.dtype == np.uint8:
        return array.astype(np.uint16) * np.uint16(257)
    return np.rint(np.clip(array, 0, 1).astype(np.float64) * 65535).astype(np.uint16)


def to_unit_floats(array: Array) -> Floats:
    """Convert floats of any width to float32 in [0, 1]; overshoot up to 1e-5 is clipped.

    Raises UnsupportedImageError for NaN, infinite values and values outside [0, 1].
    """
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UnsupportedImageError(
            "the floating-point pixels contain NaN or infinite values; replace them first"
        )
    if low < -1e-5 or high > 1 + 1e-5:
        raise UnsupportedImageError(
            f"expected floating-point pixels in 0..1, got {low:g}..{high:g}; divide 0..255 by 255, "
            "tone-map HDR first"
        )
    result = array.astype(np.float32)
    return result if low >= 0 and high <= 1 else result.clip(0, 1)


def band_height(width: int, bytes_per_pixel: int) -> int:
    """Return how many rows make a band of about `BAND_BYTES`; at least one."""
    return max(1, BAND_BYTES // (width * bytes_per_pixel))


def interleave(pixels: Array, alpha: Array | None) -> Array:
    """Return (rows, width, channels) with alpha, if there is any, as the last channel."""
    return pixels if alpha is None else np.dstack([pixels, alpha])


def over_white(pixels: Array, alpha: Array) -> Array:
    """Composite (height, width, channels) over white, in the image's own encoding."""
    result = np.empty_like(pixels)
    height, width, channels = pixels.shape
    step = band_height(width, channels * 8)
    for start in range(0, height, step):
        color, cover = pixels[start : start + step], alpha[start : start + step, :, None]
        if pixels.dtype == np.float32:
            result[start : start + step] = color * cover + (1 - cover)
            continue
        top = np.uint64(np.iinfo(pixels.dtype).max)
        wide, cover = color.astype(np.uint64), cover.astype(np.uint64)
        result[start : start + step] = (wide * cover + top * (top - cover) + top // 2) // top
    return result


def unmultiply(pixels: Array, alpha: Array) -> Array:
    """Divide premultiplied color by alpha; color is zero where alpha is."""
    cover = alpha[..., None].astype(np.float64)
    color = np.divide(pixels, cover, out=np.zeros(pixels.shape), where=cover > 0).clip(0, 1)
    if pixels.dtype == np.float32:
        return np.asarray(color, np.float32)
    return np.asarray(np.rint(color * 65535), np.uint16)


def constant_alpha(alpha: Array) -> int | float | None:
    """Return the only value of an alpha channel (height, width), or None if it varies."""
    first = alpha.flat[0]
    return first.item() if bool((alpha == first).all()) else None


def bleed(pixels: Array, alpha: Array) -> Array:
    """Fill the fully transparent pixels of (height, width, channels) with the color around them.

    The color that a transparent pixel hides is arbitrary, mostly black, and a network would mix it
    into the visible edge. Here hidden pixels continue the visible color smoothly over any distance,
    each visible pixel weighted by its alpha. Pixels with alpha above zero keep their color, and an
    image without any is returned unchanged. Source: the push-pull pyramid of Gortler et al., The
    Lumigraph (1996), section 3.4.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    levels = [_halve(*_weight(pixels, alpha))]
    while max(levels[-1][1].shape) > 1:
        levels.append(_halve(*levels[-1]))
    color = _divide(*levels.pop())
    while levels:
        sums, weights = levels.pop()
        guess = _double(color, *weights.shape)
        # Where a block has less weight than one opaque pixel, the coarser level fills in the rest.
        trust = np.minimum(weights, 1)[..., None]
        color = guess + (_divide(sums, weights) - guess) * trust
    return _fill(pixels, hidden, color)


def _weight(pixels: Array, alpha: Array) -> tuple[Floats, Floats]:
    """Return color times alpha, and alpha, both as float32."""
    top = 1 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max
    weights = alpha.astype(np.float32) / np.float32(top)
    return pixels * weights[..., None], weights


def _halve(sums: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Sum blocks of 2x2 pixels; an odd last row or column stays alone."""
    return _sum_pairs(_sum_pairs(sums, 0), 1), _sum_pairs(_sum_pairs(weights, 0), 1)


def _sum_pairs(array: Floats, axis: int) -> Floats:
    array = np.moveaxis(array, axis, 0)
    result = array[::2].copy()
    result[: len(array) // 2] += array[1::2]
    return np.moveaxis(result, 0, axis)


def _divide(sums: Floats, weights: Floats) -> Floats:
    wide = weights[..., None]
    return np.divide(sums, wide, out=np.zeros_like(sums), where=wide > 0)


def _double(array: Floats, height: int, width: int) -> Floats:
    """Enlarge (h, w, channels) bilinearly to the size it was halved from."""
    return _stretch(_stretch(array, height, 0), width, 1)


def _stretch(array: Floats, size: int, axis: int) -> Floats:
    array = np.moveaxis(array, axis, 0)
    before = np.concatenate([array[:1], array[:-1]])
    after = np.concatenate([array[1:], array[-1:]])
    result = np.empty((2 * len(array), *array.shape[1:]), np.float32)
    result[::2] = array + (before - array) * np.float32(0.25)
    result[1::2] = array + (after - array) * np.float32(0.25)
    return np.moveaxis(result[:size], 0, axis)


def _fill(pixels: Array, hidden: NDArray[np.bool_], color: Floats) -> Array:
    """Return `pixels` with the hidden ones taken from `color`, which has half the size."""
    result = pixels.copy()
    height, width, channels = pixels.shape
    step = 2 * band_height(width, channels * 8)
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        where = hidden[rows]
        if not where.any():
            continue
        # One more row on either side, so that the bands join without a seam.
        low, high = start // 2 - 1, -(-rows.stop // 2) + 1
        part = color[max(low, 0) : high]
        skip = start - 2 * max(low, 0)
        guess = _double(part, 2 * len(part), width)[skip : skip + len(where)]
        if pixels.dtype.kind == "u":
            guess = np.rint(guess)
        result[rows][where] = guess[where].astype(pixels.dtype)
    return result
