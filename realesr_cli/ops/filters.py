"""Blurring and sharpening: per-sample kernels, separable filters and unsharp masking (USM).

Every filter here is a correlation over an image continued by reflection (the border pixel is not
repeated), as OpenCV's default and the published degradations have it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Output columns computed by one row of weights. A depthwise convolution has one output per weight
# row and leaves a processor's vector units idle; a band of weights (Toeplitz) that yields this many
# neighboring outputs at once is several times as fast on CPU although it multiplies by zeros.
_BAND_2D = 16
_BAND_1D = 32


def reflect_pad(images: Tensor, *, rows: int, columns: int) -> Tensor:
    """Pad (B, C, H, W) by reflection, `rows` above and below, `columns` left and right.

    Unlike torch's own padding this also serves images no larger than the padding, by reflecting
    again at the far border; a side of one pixel is repeated.
    """
    height, width = images.shape[-2:]
    if rows < height and columns < width:
        return F.pad(images, (columns, columns, rows, rows), mode="reflect")
    vertical = _reflected(height, rows, images.device)
    horizontal = _reflected(width, columns, images.device)
    return images.index_select(-2, vertical).index_select(-1, horizontal)


def _reflected(size: int, pad: int, device: torch.device) -> Tensor:
    index = torch.arange(-pad, size + pad, device=device)
    if size == 1:
        return torch.zeros_like(index)
    period = 2 * (size - 1)
    index = index % period
    return torch.where(index < size, index, period - index)


def filter2d(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each image with its own kernel; the same kernel for all its channels.

    Args:
        images: (B, C, H, W).
        kernels: (B, K, K) or (1, K, K) for all, K odd.

    Returns (B, C, H, W). Raises ValueError if the shapes do not fit.
    """
    size = kernels.shape[-1]
    batch, channels, height, width = images.shape
    if kernels.ndim != 3 or kernels.shape[-2] != size or size % 2 == 0:
        raise ValueError(f"kernels are (B, K, K) with odd K, got {tuple(kernels.shape)}")
    if kernels.shape[0] not in (1, batch):
        raise ValueError(f"{kernels.shape[0]} kernels for {batch} images")
    kernels = kernels.to(images)
    padded = reflect_pad(images, rows=size // 2, columns=size // 2)
    if kernels.shape[0] == 1:
        planes = padded.reshape(batch * channels, 1, *padded.shape[-2:])
    else:
        planes = padded.transpose(0, 1)
    if images.is_cuda:
        result = F.conv2d(planes, kernels.unsqueeze(1), groups=planes.shape[1])
    else:
        result = _banded_conv2d(planes, kernels, width)
    if kernels.shape[0] == 1:
        return result.reshape(batch, channels, height, width)
    return result.transpose(0, 1).contiguous()


def _banded_conv2d(planes: Tensor, kernels: Tensor, width: int) -> Tensor:
    """Correlate (N, G, H, W) with kernels (G, K, K), unpadded, _BAND_2D columns at a time."""
    groups, size, _ = kernels.shape
    blocks = math.ceil(width / _BAND_2D)
    planes = F.pad(planes, (0, blocks * _BAND_2D + size - 1 - planes.shape[-1]))
    band = kernels.new_zeros(groups, _BAND_2D, size, size + _BAND_2D - 1)
    for offset in range(_BAND_2D):
        band[:, offset, :, offset : offset + size] = kernels
    band = band.reshape(groups * _BAND_2D, 1, size, size + _BAND_2D - 1)
    result = F.conv2d(planes, band, stride=(1, _BAND_2D), groups=groups)
    count, _, height, _ = result.shape
    result = result.view(count, groups, _BAND_2D, height, blocks).permute(0, 1, 3, 4, 2)
    return result.reshape(count, groups, height, blocks * _BAND_2D)[..., :width]


def gaussian_taps(size: int, sigma: float) -> Tensor:
    """Return the 1-D Gaussian window, (size,) float64 with sum 1."""
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    taps = torch.exp(-(offsets**2) / (2 * sigma**2))
    return taps / taps.sum()


def auto_sigma(size: int) -> float:
    """Return the sigma that OpenCV uses for a Gaussian window of `size` taps by default."""
    return 0.3 * ((size - 1) / 2 - 1) + 0.8


def separable_filter(images: Tensor, taps: Tensor) -> Tensor:
    """Correlate rows and columns of (B, C, H, W) with the same odd number of taps, (K,)."""
    taps = taps.to(images)
    pad = (taps.numel() - 1) // 2
    batch, channels, height, width = images.shape
    padded = reflect_pad(images, rows=pad, columns=pad)
    planes = padded.reshape(batch * channels, 1, *padded.shape[-2:])
    planes = _rows(planes, taps, width)
    planes = _columns(planes, taps, height)
    return planes.reshape(batch, channels, height, width)


def _band(taps: Tensor) -> Tensor:
    band = taps.new_zeros(_BAND_1D, taps.numel() + _BAND_1D - 1)
    for offset in range(_BAND_1D):
        band[offset, offset : offset + taps.numel()] = taps
    return band


def _rows(planes: Tensor, taps: Tensor, width: int) -> Tensor:
    blocks = math.ceil(width / _BAND_1D)
    planes = F.pad(planes, (0, blocks * _BAND_1D + taps.numel() - 1 - planes.shape[-1]))
    result = F.conv2d(planes, _band(taps)[:, None, None, :], stride=(1, _BAND_1D))
    count, _, height, _ = result.shape
    result = result.permute(0, 2, 3, 1).reshape(count, 1, height, blocks * _BAND_1D)
    return result[..., :width]


def _columns(planes: Tensor, taps: Tensor, height: int) -> Tensor:
    blocks = math.ceil(height / _BAND_1D)
    planes = F.pad(planes, (0, 0, 0, blocks * _BAND_1D + taps.numel() - 1 - planes.shape[-2]))
    result = F.conv2d(planes, _band(taps)[:, None, :, None], stride=(_BAND_1D, 1))
    count, _, _, width = result.shape
    result = result.transpose(1, 2).reshape(count, 1, blocks * _BAND_1D, width)
    return result[..., :height, :]


def gaussian_blur(images: Tensor, *, size: int, sigma: float) -> Tensor:
    """Blur (B, C, H, W) with a Gaussian in an odd window of `size` pixels."""
    return separable_filter(images, gaussian_taps(size, sigma))


def usm_sharpen(
    images: Tensor, *, weight: float = 0.5, radius: int = 50, threshold: float = 10.0
) -> Tensor:
    """Sharpen (B, C, H, W) in [0, 1] by unsharp masking, as Real-ESRGAN its ground truth.

    Args:
        weight: share of the residual (image minus blurred image) that is added.
        radius: width of the Gaussian window in pixels; even numbers are rounded up to odd.
        threshold: residual, of 255, above which a pixel is sharpened; the mask of these pixels is
            blurred by the same window so that sharpened areas fade out.

    Source: the Real-ESRGAN reference; the paper's "Real-ESRGAN+" (section 4.2).
    """
    size = radius + 1 - radius % 2
    taps = gaussian_taps(size, auto_sigma(size))
    residual = images - separable_filter(images, taps)
    mask = (residual.abs() * 255 > threshold).to(images.dtype)
    soft = separable_filter(mask, taps)
    sharp = (images + weight * residual).clamp(0, 1)
    return soft * sharp + (1 - soft) * images
