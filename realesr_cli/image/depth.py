"""Pixel arrays: their depths, the rounding between them, and rows with alpha put beside color."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr_cli.errors import UnsupportedImageError

Array = NDArray[Any]

BITS = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16, np.dtype(np.float32): 32}

BAND_BYTES = 2**18
"""Pixels are worked on in bands of rows about this large, which stay in the processor's cache."""

_EIGHT_OF_SIXTEEN = ((np.arange(65536, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def to_uint8(array: Array) -> Array:
    """The nearest 8-bit values of uint8, uint16 or float [0, 1]."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return np.asarray(_EIGHT_OF_SIXTEEN[array])
    return np.rint(np.clip(array, 0, 1) * np.float32(255)).astype(np.uint8)


def to_uint16(array: Array) -> Array:
    """The nearest 16-bit values of uint8, uint16 or float [0, 1]."""
    if array.dtype == np.uint16:
        return array
    if array.dtype == np.uint8:
        return array.astype(np.uint16) * np.uint16(257)
    return np.rint(np.clip(array, 0, 1).astype(np.float64) * 65535).astype(np.uint16)


def unit_floats(array: Array) -> Array:
    """Floats of any width as float32 in [0, 1]; overshoot up to 1e-5 is clipped.

    Raises UnsupportedImage where values are not finite or lie outside.
    """
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UnsupportedImageError(
            "the floating-point pixels hold NaN or infinite values: replace them by numbers in 0..1"
        )
    if low < -1e-5 or high > 1 + 1e-5:
        raise UnsupportedImageError(
            f"the floating-point pixels lie in {low:g}..{high:g}; they must lie in 0..1 "
            "(divide 0..255 by 255, tone-map HDR first)"
        )
    result = array.astype(np.float32)
    return result if low >= 0 and high <= 1 else result.clip(0, 1)


def band_height(width: int, bytes_per_pixel: int) -> int:
    """How many rows make a band of about `BAND_BYTES`; at least one."""
    return max(1, BAND_BYTES // (width * bytes_per_pixel))


def interleaved(pixels: Array, alpha: Array | None, start: int, stop: int) -> Array:
    """Rows `start` to `stop` as (rows, width, channels), alpha last where there is one."""
    rows = pixels[start:stop]
    return rows if alpha is None else np.dstack([rows, alpha[start:stop]])


def over_white(pixels: Array, alpha: Array) -> Array:
    """Color (height, width, channels) composited over white, in the image's own encoding."""
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
