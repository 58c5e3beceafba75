"""Noise on images: Gaussian (colored, gray or correlated) and Poisson, from given seeds.

A seed gives the same noise on every machine when it is drawn on the CPU, which is the default.
Drawing on a GPU is faster there and reproducible on the same GPU model, but differs from the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# BT.601 luma weights as rounded in the reference's gray conversion.
_GRAY = (0.2989, 0.587, 0.114)


def make_generator(seed: int, device: torch.device) -> torch.Generator:
    """Return a generator for the noise of one image."""
    return torch.Generator(device=device).manual_seed(seed)


def add_gaussian_noise(
    image: Tensor, sigma: float, *, gray: bool, source: torch.Generator, mix: Sequence[float] = ()
) -> Tensor:
    """Return an image (3, H, W) in [0, 1] plus normal noise, not clamped.

    Args:
        sigma: standard deviation, of 255.
        gray: add the same noise to the three channels.
        source: random generator; noise is drawn on its device.
        mix: 3x3 matrix, row by row, applied to the channels of unit noise instead of `sigma`, which
            makes them correlated.
    """
    height, width = image.shape[-2:]
    channels = 1 if gray else 3
    noise = torch.randn(channels, height, width, generator=source, device=source.device)
    noise = noise.to(image.device)
    if mix:
        matrix = torch.tensor(mix, dtype=noise.dtype, device=noise.device).view(3, 3)
        return image + (matrix @ noise.flatten(1)).view_as(noise)
    return torch.add(image, noise, alpha=sigma / 255)


def add_poisson_noise(
    image: Tensor, scale: float, *, gray: bool, levels: int, source: torch.Generator
) -> Tensor:
    """Return an image (3, H, W) in [0, 1] plus shot noise, not clamped.

    The variance is scale^2 x / levels, with x the image rounded to 8 bit and `levels` the photons
    at white. `levels` 0 counts them as the reference does: the number of distinct values in the
    image (in its gray version for gray noise), rounded up to a power of two. An image of a single
    value then gets one photon, and noise that hides everything.
    """
    base = image
    if gray:
        red, green, blue = image.unbind(0)
        base = (red * _GRAY[0] + green * _GRAY[1] + blue * _GRAY[2]).unsqueeze(0)
    quantized = (base * 255).round_().clamp_(0, 255)
    photons = float(levels or count_levels(quantized))
    rate = quantized * (photons / 255)
    drawn = torch.poisson(rate.to(source.device), generator=source).to(image.device)
    return torch.add(image, drawn.sub_(rate), alpha=scale / photons)


def count_levels(quantized: Tensor) -> int:
    """Count the distinct 8-bit values, rounded up to a power of two: 1, 2, 4 ... 256."""
    used = int((torch.bincount(quantized.flatten().to(torch.int64), minlength=256) > 0).sum())
    return 1 << math.ceil(math.log2(used))
