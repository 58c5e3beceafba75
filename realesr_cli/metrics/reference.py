"""PSNR and SSIM against a reference image, in exactly the conventions of the field's papers.

Images are first brought to 8 bits (clamp, x255, round half to even); everything after that is
float64. Source of SSIM: Wang et al. 2004 in MATLAB's form, as super-resolution papers report it.
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
"""MATLAB's BT.601 studio luma of RGB in [0, 1], plus 16; on the scale 0..255."""


def psnr(a: Tensor, b: Tensor, *, crop: int = 0, luma: bool = False) -> float:
    """Peak signal-to-noise ratio in dB of two images of equal shape.

    a, b: (C, H, W) or (1, C, H, W), RGB or gray in [0, 1]. `crop` pixels are left out on each side
    (papers use the scale), `luma` compares the MATLAB Y channel without rounding it. The error is
    averaged over all channels together; equal images give infinity. ValueError when the shapes
    differ or nothing is left after the crop.
    """
    x, y = _prepare(a, b, crop, luma)
    error = float(((x - y) ** 2).mean())
    return float("inf") if error == 0 else float(10 * np.log10(PEAK**2 / error))


def ssim(a: Tensor, b: Tensor, *, crop: int = 0, luma: bool = False) -> float:
    """Structural similarity, 1 for equal images; arguments as for `psnr`.

    11x11 Gaussian window of sigma 1.5, population moments, valid region only, mean over the
    channels. ValueError also for images smaller than the window.
    """
    x, y = _prepare(a, b, crop, luma)
    if min(x.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs at least 11x11 pixels, got {tuple(x.shape[-2:])}")
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x**2
    var_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    bottom = (mean_x**2 + mean_y**2 + SSIM_C1) * (var_x + var_y + SSIM_C2)
    return float((top / bottom).mean())


def ssim_window() -> Tensor:
    """The window along one axis: 11 float64 weights that sum to one."""
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    return weights / weights.sum()


def eight_bits(image: Tensor) -> Tensor:
    """[0, 1] to whole numbers 0..255 as float64, on the CPU; NaN is not hidden but kept."""
    return (image.detach().cpu().double().clamp(0, 1) * PEAK).round()


def matlab_luma(image: Tensor) -> Tensor:
    """(C, H, W) on 0..255 to its luma (1, H, W) on 16..235, unrounded; gray becomes its own RGB."""
    rgb = image if image.shape[0] == 3 else image[:1].expand(3, -1, -1)
    weights = torch.tensor(Y_WEIGHTS, dtype=image.dtype).view(3, 1, 1)
    return 16 + (rgb / PEAK * weights).sum(0, keepdim=True)


def whole_luma(image: Tensor) -> Tensor:
    """(C, H, W) or (1, C, H, W) in [0, 1] to its luma (1, H, W), rounded to 8 bits, in [0, 1].

    What MATLAB's rgb2ycbcr gives for 8-bit images, and published PSNR on Y often starts from.
    """
    return matlab_luma(eight_bits(image.squeeze(0) if image.ndim == 4 else image)).round() / PEAK


def _prepare(a: Tensor, b: Tensor, crop: int, luma: bool) -> tuple[Tensor, Tensor]:
    if a.shape != b.shape:
        raise ValueError(f"images of different shapes: {tuple(a.shape)} and {tuple(b.shape)}")
    height, width = a.shape[-2:]
    if crop < 0 or min(height, width) <= 2 * crop:
        raise ValueError(f"a crop of {crop} leaves nothing of {height}x{width} pixels")
    pair = []
    for image in (a, b):
        image = eight_bits(image.squeeze(0) if image.ndim == 4 else image)
        image = image[:, crop : height - crop, crop : width - crop]
        pair.append(matlab_luma(image) if luma else image)
    return pair[0], pair[1]


def _blur(x: Tensor) -> Tensor:
    """Separable valid convolution of (C, H, W) with the window."""
    window = ssim_window()
    rows = F.conv2d(x.unsqueeze(1), window.view(1, 1, -1, 1))
    return F.conv2d(rows, window.view(1, 1, 1, -1)).squeeze(1)
