"""PSNR and SSIM against a reference image, in the conventions of super-resolution papers.

Images are first rounded to 8 bits (clamp, x255, round half to even); everything after that is
float64. Source of SSIM: Wang et al. 2004, in the form of its MATLAB code.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PEAK = 255.0
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1 = (0.01 * PEAK) ** 2
SSIM_C2 = (0.03 * PEAK) ** 2
Y_WEIGHTS = (65.481, 128.553, 24.966)
"""BT.601 studio luma of RGB in [0, 1], as in MATLAB: the sum plus 16 is in 16..235."""


def psnr(a: Tensor, b: Tensor, *, crop: int = 0, luma: bool = False) -> float:
    """Return the peak signal-to-noise ratio in dB of two images of equal shape.

    a, b: (C, H, W) or (1, C, H, W), RGB or gray in [0, 1]. `crop` pixels are excluded on each side
    (papers use the scale); `luma` compares MATLAB's Y channel without rounding it. The error is
    averaged over all channels together; equal images give infinity. Raises ValueError if the
    shapes differ or nothing is left after the crop.
    """
    x, y = _prepare("PSNR", a, b, crop, luma)
    error = float(((x - y) ** 2).mean())
    return float("inf") if error == 0 else float(10 * np.log10(PEAK**2 / error))


def ssim(a: Tensor, b: Tensor, *, crop: int = 0, luma: bool = False) -> float:
    """Return the structural similarity, 1 for equal images; arguments as for `psnr`.

    11x11 Gaussian window of sigma 1.5, population moments, valid region only, mean over the
    channels. Raises ValueError for images smaller than the window, too.
    """
    x, y = _prepare("SSIM", a, b, crop, luma, smallest=SSIM_WINDOW)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x**2
    var_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    bottom = (mean_x**2 + mean_y**2 + SSIM_C1) * (var_x + var_y + SSIM_C2)
    return float((top / bottom).mean())


def ssim_window() -> Tensor:
    """Return the window along one axis: 11 float64 weights that sum to one."""
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    return weights / weights.sum()


def round_to_8bit(image: Tensor) -> Tensor:
    """Convert [0, 1] to integers in 0..255 as float64 on the CPU; NaN stays NaN."""
    return (image.detach().cpu().double().clamp(0, 1) * PEAK).round()


def matlab_luma(image: Tensor) -> Tensor:
    """Convert (C, H, W) in 0..255 to luma (1, H, W) in 16..235, unrounded; gray counts as RGB."""
    rgb = image if image.shape[0] == 3 else image[:1].expand(3, -1, -1)
    weights = torch.tensor(Y_WEIGHTS, dtype=image.dtype).view(3, 1, 1)
    return 16 + (rgb / PEAK * weights).sum(0, keepdim=True)


def round_luma(image: Tensor) -> Tensor:
    """Convert (C, H, W) or (1, C, H, W) to luma (1, H, W), both in [0, 1], rounded to 8 bits.

    This is what MATLAB's rgb2ycbcr returns for 8-bit images, and what much of the published PSNR on
    Y is computed from.
    """
    return matlab_luma(round_to_8bit(image.squeeze(0) if image.ndim == 4 else image)).round() / PEAK


def crop_pair(
    name: str, a: Tensor, b: Tensor, crop: int, smallest: int = 1
) -> tuple[Tensor, Tensor]:
    """Return two images (..., H, W) without `crop` pixels on each side.

    Raises ValueError, in which `name` is that of the metric, if their shapes differ or a side of
    less than `smallest` pixels is left.
    """
    if a.shape != b.shape:
        raise ValueError(f"images of different shapes: {tuple(a.shape)} and {tuple(b.shape)}")
    height, width = a.shape[-2:]
    if crop < 0 or min(height, width) - 2 * crop < smallest:
        raise ValueError(
            f"{name} needs {smallest}x{smallest} pixels, got {width}x{height} with a crop of {crop}"
        )
    inside = (..., slice(crop, height - crop), slice(crop, width - crop))
    return a[inside], b[inside]


def _prepare(
    name: str, a: Tensor, b: Tensor, crop: int, luma: bool, *, smallest: int = 1
) -> list[Tensor]:
    pair = crop_pair(name, a, b, crop, smallest)
    images = [round_to_8bit(x.squeeze(0) if x.ndim == 4 else x) for x in pair]
    return [matlab_luma(image) for image in images] if luma else images


def _blur(x: Tensor) -> Tensor:
    """Convolve (C, H, W) with the window along both axes, valid region only."""
    window = ssim_window()
    rows = F.conv2d(x.unsqueeze(1), window.view(1, 1, -1, 1))
    return F.conv2d(rows, window.view(1, 1, 1, -1)).squeeze(1)
