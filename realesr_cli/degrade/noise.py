"""Noise on images: Gaussian (colored, gray or correlated) and Poisson, from given seeds.

The same seed gives the same noise on every machine as long as it is drawn on the CPU, which is
the default. Drawing on a GPU is faster there, repeats on the same kind of GPU, and differs from
the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# The image's brightness as the reference's gray conversion weighs it (BT.601, rounded its way).
_GRAY = (0.2989, 0.587, 0.114)


def generator(seed: int, device: torch.device) -> torch.Generator:
    """A generator of its own for one image."""
    return torch.Generator(device=device).manual_seed(seed)


def gaussian(
    image: Tensor, sigma: float, *, gray: bool, source: torch.Generator, mix: Sequence[float] = ()
) -> Tensor:
    """(3, H, W) in [0, 1] plus normal noise of standard deviation `sigma` / 255; not clamped.

    Args:
        gray: the same noise for the three channels.
        source: whose numbers are used; its device is where they are drawn.
        mix: nine numbers, rows of a 3x3 matrix, applied to the colors of unit noise in place of
            `sigma`, which makes the channels correlated.
    """
    height, width = image.shape[-2:]
    channels = 1 if gray else 3
    noise = torch.randn(channels, height, width, generator=source, device=source.device)
    noise = noise.to(image.device)
    if mix:
        matrix = torch.tensor(mix, dtype=noise.dtype, device=noise.device).view(3, 3)
        return image + (matrix @ noise.flatten(1)).view_as(noise)
    return torch.add(image, noise, alpha=sigma / 255)


def poisson(
    image: Tensor, scale: float, *, gray: bool, levels: int, source: torch.Generator
) -> Tensor:
    """(3, H, W) in [0, 1] plus shot noise of variance scale^2 x / levels; not clamped.

    The noise is that of the image rounded to 8 bit, x, seen through `levels` photons at white.
    `levels` 0 counts them as the reference does: the number of different values in the image (in
    its gray version for gray noise), rounded up to a power of two; an image of one value gets one
    photon, and with it noise that hides everything.
    """
    base = image
    if gray:
        red, green, blue = image.unbind(0)
        base = (red * _GRAY[0] + green * _GRAY[1] + blue * _GRAY[2]).unsqueeze(0)
    codes = (base * 255).round_().clamp_(0, 255)
    photons = float(levels or count_levels(codes))
    rate = codes * (photons / 255)
    drawn = torch.poisson(rate.to(source.device), generator=source).to(image.device)
    return torch.add(image, drawn.sub_(rate), alpha=scale / photons)


def count_levels(codes: Tensor) -> int:
    """The number of different 8-bit values, rounded up to a power of two: 1, 2, 4 ... 256."""
    used = int((torch.bincount(codes.flatten().to(torch.int64), minlength=256) > 0).sum())
    return 1 << math.ceil(math.log2(used))
