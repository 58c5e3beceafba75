"""RGB to luma and chroma of BT.601, in the studio range (MATLAB) and the full range (JPEG)."""

from __future__ import annotations

import torch
from torch import Tensor

# Rec. ITU-R BT.601 weights, as JFIF 1.02 rounds them.
_JPEG_FORWARD = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
_JPEG_INVERSE = (
    (1.0, 0.0, 1.402),
    (1.0, -0.344136, -0.714136),
    (1.0, 1.772, 0.0),
)
_JPEG_OFFSET = (0.0, 128 / 255, 128 / 255)

# MATLAB's rgb2ycbcr: Y 16..235 and Cb, Cr 16..240 for 8-bit images.
_STUDIO_FORWARD = (
    (65.481, 128.553, 24.966),
    (-37.797, -74.203, 112.0),
    (112.0, -93.786, -18.214),
)
_STUDIO_OFFSET = (16.0, 128.0, 128.0)


def rgb_to_ycbcr_jpeg(rgb: Tensor) -> Tensor:
    """Y, Cb, Cr of JFIF, (B, 3, H, W) from RGB in [0, 1]; full range, unrounded and unclamped.

    Neutral chroma is 128/255. Cb of pure blue is 255.5/255, as the standard's numbers give it.
    """
    return _mix(rgb, _JPEG_FORWARD, 1.0) + _column(_JPEG_OFFSET, rgb)


def ycbcr_jpeg_to_rgb(ycbcr: Tensor) -> Tensor:
    """The inverse of `rgb_to_ycbcr_jpeg`, up to the rounding of the standard's numbers."""
    return _mix(ycbcr - _column(_JPEG_OFFSET, ycbcr), _JPEG_INVERSE, 1.0)


def rgb_to_ycbcr_studio(rgb: Tensor) -> Tensor:
    """Y, Cb, Cr of BT.601 in the studio range divided by 255, (B, 3, H, W) from RGB in [0, 1].

    These are MATLAB's numbers, without its rounding to 8 bit: white has Y 235/255, black 16/255.
    """
    offset = _column(tuple(value / 255 for value in _STUDIO_OFFSET), rgb)
    return _mix(rgb, _STUDIO_FORWARD, 255.0) + offset


def luma_studio(rgb: Tensor) -> Tensor:
    """The Y of `rgb_to_ycbcr_studio` alone, (B, 1, H, W)."""
    return _mix(rgb, _STUDIO_FORWARD[:1], 255.0) + _STUDIO_OFFSET[0] / 255


def luma(rgb: Tensor) -> Tensor:
    """BT.601 luma in the full range, (B, 1, H, W) from (B, 3, H, W): a gray version of RGB."""
    return _mix(rgb, _JPEG_FORWARD[:1], 1.0)


def _mix(pixels: Tensor, rows: tuple[tuple[float, ...], ...], divisor: float) -> Tensor:
    # Weighted sums of planes: an einsum over three channels would move the planes about in memory.
    red, green, blue = pixels.unbind(-3)
    planes = [
        red * (row[0] / divisor) + green * (row[1] / divisor) + blue * (row[2] / divisor)
        for row in rows
    ]
    return torch.stack(planes, dim=-3)


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)
