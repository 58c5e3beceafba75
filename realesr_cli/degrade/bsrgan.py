"""Draw the numbers of BSRGAN's degradation, in which the order of the operations is random too.

Source: Zhang et al. 2021, "Designing a Practical Degradation Model for Deep Blind Image
Super-Resolution", and the numbers of its published code.
"""

from __future__ import annotations

import math

import numpy as np

from realesr_cli.degrade.config import Shuffled
from realesr_cli.degrade.kernels import Kernel
from realesr_cli.degrade.recipe import (
    STRIDE,
    Compress,
    Filter,
    GaussianNoise,
    Operation,
    Recipe,
    Round,
    Scale,
)
from realesr_cli.degrade.sampling import SampleContext, Size, draw_seed, uniform

# The steps that are shuffled; the final downscale always follows the first one.
_BLUR_A, _BLUR_B, _FIRST_DOWNSCALE, _FINAL_DOWNSCALE, _NOISE, _JPEG = range(6)

# A Gaussian of this size and at least this sigma precedes taking every n-th pixel.
_STRIDE_TAPS = 25
_MIN_SIGMA = 0.1

# Standard deviation of noise with correlated channels, of 255: the same in every image.
_CORRELATED_SIGMA = 25


def sample_shuffled(config: Shuffled, context: SampleContext) -> Recipe:
    """Draw a recipe of the shuffled degradation."""
    rng = context.random.own
    operations: list[Operation] = []
    size, factor = context.gt_size, context.scale
    if factor == 4 and rng.random() < config.halve:
        factor = 2
        size = (max(1, size[0] // 2), max(1, size[1] // 2))
        mode = "matlab" if rng.random() < 0.5 else str(rng.choice(config.modes))
        operations.append(Scale(*size, mode))
    for step in _sample_order(rng):
        if step in (_BLUR_A, _BLUR_B):
            operations.append(Filter(_sample_blur(config, factor, rng)))
        elif step == _FIRST_DOWNSCALE:
            drawn, size = _sample_downscale(config, factor, size, rng)
            operations += drawn
        elif step == _FINAL_DOWNSCALE:
            operations.append(Scale(*context.lq_size, str(rng.choice(config.modes))))
        elif step == _NOISE:
            operations.append(_sample_noise(config, rng))
        elif rng.random() < config.jpeg:
            operations.append(_sample_jpeg(config, rng))
    operations += [_sample_jpeg(config, rng), Round()]
    return Recipe(context.scale, *context.gt_size, tuple(operations))


def _sample_order(rng: np.random.Generator) -> list[int]:
    order = [int(step) for step in rng.permutation(6)]
    first, last = order.index(_FIRST_DOWNSCALE), order.index(_FINAL_DOWNSCALE)
    if first > last:
        order[first], order[last] = order[last], order[first]
    return order


def _sample_blur(config: Shuffled, factor: int, rng: np.random.Generator) -> Kernel:
    size = int(rng.choice(config.sizes))
    if rng.random() < config.aniso:
        # Variances, not standard deviations, are uniform; zero would be no kernel at all.
        along, across = (max(_MIN_SIGMA, math.sqrt((4 + factor) * rng.random())) for _ in range(2))
        return Kernel("aniso", size, along, across, uniform(rng, (0.0, math.pi)))
    sigma = max(_MIN_SIGMA, (2 + 0.2 * factor) * rng.random())
    return Kernel("iso", size, sigma, sigma)


def _sample_downscale(
    config: Shuffled, factor: int, size: Size, rng: np.random.Generator
) -> tuple[list[Operation], Size]:
    if rng.random() < config.resample:
        divisor = uniform(rng, (1.0, 2.0 * factor))
        height, width = (max(1, math.floor(side / divisor)) for side in size)
        mode = str(rng.choice(config.modes))
        return [Scale(height, width, mode)], (height, width)
    sigma = uniform(rng, (_MIN_SIGMA, 0.6 * factor))
    # Every n-th pixel stands for the center of its n x n cell, so the blur is shifted there.
    kernel = Kernel("iso", _STRIDE_TAPS, sigma, sigma, shift=(factor - 1) / 2)
    height, width = (math.ceil(side / factor) for side in size)
    return [Filter(kernel), Scale(height, width, STRIDE)], (height, width)


def _sample_noise(config: Shuffled, rng: np.random.Generator) -> GaussianNoise:
    sigma = float(rng.integers(config.sigma[0], config.sigma[1] + 1))
    kind = rng.random()
    if kind < config.gray:
        return GaussianNoise(sigma, True, draw_seed(rng))
    if kind < config.gray + config.correlated:
        return GaussianNoise(_CORRELATED_SIGMA, False, draw_seed(rng), _sample_mix(rng))
    return GaussianNoise(sigma, False, draw_seed(rng))


def _sample_mix(rng: np.random.Generator) -> tuple[float, ...]:
    """Draw a matrix A such that A n has BSRGAN's random covariance for unit normal n (3,)."""
    basis = np.linalg.svd(rng.random((3, 3)))[0]
    covariance = np.abs(basis.T @ np.diag(rng.random(3)) @ basis) * (_CORRELATED_SIGMA / 255) ** 2
    _, singular, vectors = np.linalg.svd(covariance)
    matrix = (np.sqrt(singular)[:, None] * vectors).T
    return tuple(float(value) for value in matrix.flat)


def _sample_jpeg(config: Shuffled, rng: np.random.Generator) -> Compress:
    quality = rng.integers(config.quality[0], config.quality[1] + 1)
    return Compress(float(quality), "libjpeg")
