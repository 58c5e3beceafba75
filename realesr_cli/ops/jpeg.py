"""JPEG compression as a differentiable function of image and quality, on any device.

Follows ITU-T T.81 (tables K.1 and K.2, 8x8 DCT) and JFIF (color, 4:2:0). What the entropy coder
does is lossless, so it is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from realesr_cli.errors import ConfigError
from realesr_cli.ops.color import rgb_to_ycbcr_jpeg, ycbcr_jpeg_to_rgb
from realesr_cli.settings import check, option

# T.81 table K.1 and K.2: [vertical frequency][horizontal frequency].
LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)

# The factor of quality 100 is zero, and a table of zeros divides by zero. libjpeg clamps entries to
# one there; this much finer step keeps the unrounded tables continuous up to 100.
_SMALLEST_FACTOR = 1e-3


@dataclass(frozen=True)
class JpegStyle:
    """Which JPEG is computed, of the several in use."""

    rounding: str = option(
        "hard",
        choices=("hard", "cubic"),
        help="Rounding of coefficients; cubic passes gradients to the image.",
    )
    integer_tables: bool = option(False, help="Round and clamp tables to 1..255, as libjpeg does.")
    transposed_luma: bool = option(False, help="Swap the axes of the luma table.")
    padding: str = option(
        "edge", choices=("edge", "zero"), help="Padding of an image to whole blocks."
    )

    def __post_init__(self) -> None:
        check(self)


DEFAULT_STYLE = JpegStyle()

REFERENCE_STYLE = JpegStyle(transposed_luma=True, padding="zero")
"""What the reference implementation computes, its two defects included."""


def quality_factor(quality: Tensor) -> Tensor:
    """Return libjpeg's factor on the quantization tables for qualities in (0, 100]."""
    return torch.where(quality < 50, 50 / quality, 2 - quality / 50)


def jpeg(images: Tensor, quality: Tensor | float, *, style: JpegStyle = DEFAULT_STYLE) -> Tensor:
    """Compress images by JPEG with 4:2:0 chroma, and decompress them.

    Args:
        images: RGB, (B, 3, H, W) in [0, 1]; values outside are clamped first.
        quality: 0 < q <= 100, one number or (B,); real-valued, and left as it is.
        style: tables, rounding and borders.

    Returns (B, 3, H, W) in [0, 1], not rounded to 8 bit. Raises ConfigError for a quality outside
    the range.
    """
    quality = torch.as_tensor(quality, dtype=images.dtype, device=images.device)
    quality = quality.expand(images.shape[0])
    if not bool(((quality > 0) & (quality <= 100)).all()):
        raise ConfigError(f"JPEG quality {quality.tolist()}: must be above 0 and at most 100")
    height, width = images.shape[-2:]
    padded = _to_whole_blocks(images.clamp(0, 1), style.padding)
    ycbcr = rgb_to_ycbcr_jpeg(padded) * 255
    small = F.avg_pool2d(ycbcr[:, 1:], 2)
    luma = _quantize(ycbcr[:, :1], _table(LUMA_TABLE, quality, style, style.transposed_luma), style)
    chroma = _quantize(small, _table(CHROMA_TABLE, quality, style, False), style)
    chroma = F.interpolate(chroma, scale_factor=2, mode="nearest")
    rgb = ycbcr_jpeg_to_rgb(torch.cat((luma, chroma), dim=1) / 255)
    return rgb[..., :height, :width].clamp(0, 1)


def _to_whole_blocks(images: Tensor, padding: str) -> Tensor:
    """Extend right and bottom to multiples of 16, the size of a block of halved chroma."""
    height, width = images.shape[-2:]
    pad = (0, math.ceil(width / 16) * 16 - width, 0, math.ceil(height / 16) * 16 - height)
    if not any(pad):
        return images
    return F.pad(images, pad, mode="replicate" if padding == "edge" else "constant")


def _table(
    base: tuple[tuple[int, ...], ...], quality: Tensor, style: JpegStyle, transposed: bool
) -> Tensor:
    """Return quantization steps, (B, 1, 1, 8, 1, 8) to fit blocks laid out as rows of blocks."""
    table = torch.tensor(base, dtype=quality.dtype, device=quality.device)
    if transposed:
        table = table.t()
    steps = table * quality_factor(quality).clamp(min=_SMALLEST_FACTOR).view(-1, 1, 1)
    if style.integer_tables:
        percent = torch.floor(quality_factor(quality) * 100 + 1e-4).view(-1, 1, 1)
        steps = torch.floor((table * percent + 50) / 100).clamp(1, 255)
    return steps.view(-1, 1, 1, 8, 1, 8)


def _quantize(planes: Tensor, steps: Tensor, style: JpegStyle) -> Tensor:
    """Transform planes 0..255 by DCT, round to multiples of the steps, and transform back."""
    batch, channels, height, width = planes.shape
    transform = _dct_matrix().to(planes)
    rows = (planes - 128).reshape(batch, channels, height // 8, 8, width)
    blocks = (transform @ rows).reshape(batch, channels, height // 8, 8, width // 8, 8)
    coefficients = (blocks @ transform.t()) / steps
    rounded = torch.round(coefficients)
    if style.rounding == "cubic":
        rounded = rounded + (coefficients - rounded) ** 3
    blocks = (rounded * steps) @ transform
    rows = transform.t() @ blocks.reshape(batch, channels, height // 8, 8, width)
    return rows.reshape(batch, channels, height, width) + 128


@lru_cache(maxsize=1)
def _dct_matrix() -> Tensor:
    """Return the orthonormal 8-point DCT-II (T.81, A.3.3): row u is the cosine of frequency u."""
    frequency = torch.arange(8, dtype=torch.float64).view(8, 1)
    position = torch.arange(8, dtype=torch.float64).view(1, 8)
    matrix = torch.cos((2 * position + 1) * frequency * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix
