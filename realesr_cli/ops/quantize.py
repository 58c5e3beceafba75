"""Quantization: float images in [0, 1] as the integers that files hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def full_scale(dtype: np.dtype[Any]) -> float:
    """Return the value that stands for 1.0 in an array of this type."""
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0


def quantize(image: Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert (C, H, W) on any device to (H, W, C) of `dtype`: uint8, uint16, or float32.

    Clamped to [0, 1]; for integers scaled to their range and rounded, halves to even.
    """
    values = image.detach().clamp(0, 1)
    if not np.issubdtype(dtype, np.integer):
        return values.permute(1, 2, 0).contiguous().cpu().numpy().astype(dtype, copy=False)
    levels = values.mul_(full_scale(dtype)).round_()
    if dtype == np.uint8:
        # Much faster than numpy's conversion, and so is reordering bytes instead of floats.
        return levels.to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    return levels.permute(1, 2, 0).contiguous().cpu().numpy().astype(dtype)


def to_8bit_levels(image: Tensor) -> NDArray[np.uint8]:
    """Quantize (C, H, W) in [0, 1] to (H, W, C) uint8."""
    return quantize(image, np.dtype(np.uint8))


def from_8bit_levels(pixels: NDArray[np.uint8]) -> Tensor:
    """Convert (H, W, C) to (1, C, H, W) float32 in [0, 1], which `to_8bit_levels` inverts."""
    levels = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return levels.unsqueeze(0).float() / 255
