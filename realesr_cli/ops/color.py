"""Color: luma and chroma of BT.601, in the studio range (MATLAB) and the full range (JPEG), and
the transfer of large-scale color from one image to another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from realesr_cli.ops.filters import gaussian_blur

LARGE_SCALE_SIGMA = 5.0
"""Standard deviation, in input pixels, of what counts as large-scale color."""

LARGE_SCALE_RADIUS = 15
"""Where its Gaussian is cut off: three standard deviations."""

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

# The Y of MATLAB's rgb2ycbcr, 16 to 235 for 8-bit images.
_STUDIO_LUMA = (65.481, 128.553, 24.966)
_STUDIO_BLACK = 16.0


def rgb_to_ycbcr_jpeg(rgb: Tensor) -> Tensor:
    """Convert RGB (B, 3, H, W) in [0, 1] to Y, Cb, Cr of JFIF: full range, neither rounded nor
    clamped.

    Neutral chroma is 128/255. Cb of pure blue is 255.5/255, as the standard's numbers give it.
    """
    return _mix(rgb, _JPEG_FORWARD, 1.0) + _column(_JPEG_OFFSET, rgb)


def ycbcr_jpeg_to_rgb(ycbcr: Tensor) -> Tensor:
    """Invert `rgb_to_ycbcr_jpeg`, up to the rounding of the standard's numbers."""
    return _mix(ycbcr - _column(_JPEG_OFFSET, ycbcr), _JPEG_INVERSE, 1.0)


def luma_studio(rgb: Tensor) -> Tensor:
    """Convert RGB (B, 3, H, W) to the Y of BT.601 in the studio range over 255, (B, 1, H, W).

    These are MATLAB's numbers, without its rounding to 8 bit: white is 235/255, black 16/255.
    """
    return _mix(rgb, (_STUDIO_LUMA,), 255.0) + _STUDIO_BLACK / 255


def luma(rgb: Tensor) -> Tensor:
    """Convert RGB (B, 3, H, W) to gray (B, 1, H, W): BT.601 luma in the full range."""
    return _mix(rgb, _JPEG_FORWARD[:1], 1.0)


def match_large_scale_color(enlarged: Tensor, original: Tensor) -> Tensor:
    """Replace the low frequencies of an enlarged image by those of its original; not clamped.

    `enlarged` is (B, C, h * s, w * s), `original` (B, C, h, w). Both are compared at the size of
    the original; the difference is smoothed (Gaussian, LARGE_SCALE_SIGMA), enlarged and added.
    """
    scale = enlarged.shape[2] // original.shape[2]
    size = 2 * LARGE_SCALE_RADIUS + 1
    missing = original - F.avg_pool2d(enlarged, scale)
    smooth = gaussian_blur(missing, size=size, sigma=LARGE_SCALE_SIGMA)
    return enlarged + F.interpolate(
        smooth, size=enlarged.shape[2:], mode="bilinear", align_corners=False
    )


def _mix(pixels: Tensor, rows: tuple[tuple[float, ...], ...], divisor: float) -> Tensor:
    # Weighted sums of planes: an einsum over three channels would first copy them together.
    red, green, blue = pixels.unbind(-3)
    planes = [
        red * (row[0] / divisor) + green * (row[1] / divisor) + blue * (row[2] / divisor)
        for row in rows
    ]
    return torch.stack(planes, dim=-3)


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)
