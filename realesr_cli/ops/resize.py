"""Resizing: torch's area, bilinear and bicubic, exact area averages, and MATLAB-compatible bicubic.

Three interpolations in use are all called bicubic: MATLAB and Pillow take a = -0.5 and widen the
kernel when shrinking (antialiasing); OpenCV and torch take a = -0.75 and do not.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from realesr_cli.errors import ConfigError
from realesr_cli.ops.banded import Banded, make_banded
from realesr_cli.text import did_you_mean

TORCH_MODES = ("area", "bilinear", "bicubic")
MATRIX_MODES = ("box", "matlab", "triangle", "lanczos")
MODES = (*TORCH_MODES, *MATRIX_MODES)

# Half the width of each kernel, in pixels of the coarser grid.
_SUPPORT = {"matlab": 2.0, "cubic": 2.0, "triangle": 1.0, "lanczos": 3.0, "box": 0.5}


def resize(images: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize (B, C, H, W) to `size` (height, width); the result is not clamped.

    Modes:
        area: average of the pixels touched, by whole pixels (adaptive average pooling).
        bilinear, bicubic: sampled at pixel centers, without antialiasing; bicubic has a = -0.75.
        box: exact area average with fractions of pixels, as OpenCV's INTER_AREA.
        matlab: bicubic a = -0.5, antialiased when shrinking, as MATLAB's imresize.
        triangle, lanczos: the same with a tent and a three-lobed Lanczos kernel, as Pillow's.

    Raises ConfigError for an unknown mode.
    """
    height, width = size
    if mode not in MODES:
        raise ConfigError(
            f"unknown resize mode {mode!r}: expected one of {', '.join(MODES)}"
            f"{did_you_mean(mode, MODES)}"
        )
    if (height, width) == tuple(images.shape[-2:]):
        return images
    if mode == "area":
        return F.interpolate(images, size=size, mode="area")
    if mode in TORCH_MODES:
        return F.interpolate(images, size=size, mode=mode, align_corners=False)
    for axis, length in ((-2, height), (-1, width)):
        images = resample_band(images.shape[axis], length, kernel=mode).apply(images, axis)
    return images


def imresize(images: Tensor, scale: float) -> Tensor:
    """Resize as MATLAB's imresize(image, scale): bicubic, antialiased when shrinking.

    (B, C, H, W) to (B, C, ceil(H * scale), ceil(W * scale)); the scale itself, not the ratio of the
    sizes, sets where pixels are sampled. Edges are continued symmetrically. Not clamped.
    """
    for axis in (-2, -1):
        # The small number keeps 24 * (1 / 3), a hair above 8 in binary, from becoming 9.
        length = math.ceil(images.shape[axis] * scale - 1e-9)
        images = resample_band(images.shape[axis], length, ratio=scale).apply(images, axis)
    return images


def resample_band(
    in_size: int,
    out_size: int,
    *,
    kernel: str = "matlab",
    ratio: float | None = None,
    margin: int = 0,
) -> Banded:
    """Return the resampling matrix of one axis, (out_size, in_size), each row with sum 1.

    `ratio` is output over input size where it is not exactly out_size / in_size. What lies beyond
    the ends depends on the kernel:

        matlab: the image mirrored, the last pixel repeated (bicubic, a = -0.5).
        cubic: nothing, the same kernel with its weights made to sum to 1 again, as Pillow's.
        triangle, lanczos, box: nothing, likewise.

    With a `margin` the input is known that many pixels beyond both ends: the matrix has in_size +
    2 * margin columns, and needs no rule for the ends. Raises ConfigError for an unknown kernel.
    """
    if kernel not in _SUPPORT:
        raise ConfigError(f"unknown kernel {kernel!r}: expected one of {', '.join(_SUPPORT)}")
    index, weights = _weigh(in_size, out_size, ratio or out_size / in_size, kernel)
    if margin:
        return make_banded(index + margin, weights, in_size + 2 * margin)
    if kernel == "matlab":
        folded = index % (2 * in_size)
        index = torch.where(folded < in_size, folded, 2 * in_size - 1 - folded)
    else:
        weights = torch.where((index >= 0) & (index < in_size), weights, 0)
        weights = weights / weights.sum(1, keepdim=True)
    return make_banded(index, weights, in_size)


def _weigh(in_size: int, out_size: int, ratio: float, kernel: str) -> tuple[Tensor, Tensor]:
    """Return input positions (may lie outside) and weights per output, both (out_size, taps)."""
    stretch = max(1.0, 1 / ratio)
    support = _SUPPORT[kernel] * stretch
    output = torch.arange(out_size, dtype=torch.float64)
    center = (output + 0.5) / ratio - 0.5
    if kernel == "box":
        # Area covered of each input pixel; right for enlarging too, where the box is below one.
        half = 0.5 / ratio
        first = torch.floor(center - half + 0.5)
        index = first.view(-1, 1) + torch.arange(math.ceil(2 * half) + 2)
        low = torch.maximum(index - 0.5, (center - half).view(-1, 1))
        high = torch.minimum(index + 0.5, (center + half).view(-1, 1))
        weights = (high - low).clamp(min=0)
    else:
        first = torch.ceil(center - support)
        index = first.view(-1, 1) + torch.arange(math.ceil(2 * support) + 1)
        weights = _evaluate_kernel((index - center.view(-1, 1)) / stretch, kernel)
    return index.to(torch.int64), weights / weights.sum(1, keepdim=True)


def _evaluate_kernel(distance: Tensor, kernel: str) -> Tensor:
    x = distance.abs()
    if kernel == "triangle":
        return (1 - x).clamp(min=0)
    if kernel == "lanczos":
        return torch.where(x < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))
    # Keys' cubic convolution with a = -0.5 (Keys 1981, equation 15).
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, inner, torch.where(x < 2, outer, torch.zeros_like(x)))
