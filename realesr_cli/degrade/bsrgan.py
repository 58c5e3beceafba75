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
from realesr_cli.degrade.sampling import Draw, Size, seed, uniform

# The steps that are shuffled; the last shrinking always follows the first.
_BLUR_A, _BLUR_B, _SHRINK_FIRST, _SHRINK_LAST, _NOISE, _JPEG = range(6)

# A Gaussian of this size and at least this sigma goes before taking every n-th pixel.
_STRIDE_TAPS = 25
_LEAST_SIGMA = 0.1

# Standard deviation of noise with correlated colors, of 255: the same in every image.
_CORRELATED_SIGMA = 25


def draw_shuffled(config: Shuffled, draw: Draw) -> Recipe:
    """A recipe of the shuffled degradation."""
    source = draw.chance.own
    operations: list[Operation] = []
    size, factor = draw.gt_size, draw.scale
    if factor == 4 and source.random() < config.halve:
        factor = 2
        size = (max(1, size[0] // 2), max(1, size[1] // 2))
        mode = "matlab" if source.random() < 0.5 else str(source.choice(config.modes))
        operations.append(Scale(*size, mode))
    for step in _order(source):
        if step in (_BLUR_A, _BLUR_B):
            operations.append(Filter(_blur(config, factor, source)))
        elif step == _SHRINK_FIRST:
            made, size = _shrink(config, factor, size, source)
            operations += made
        elif step == _SHRINK_LAST:
            operations.append(Scale(*draw.lq_size, str(source.choice(config.modes))))
        elif step == _NOISE:
            operations.append(_noise(config, source))
        elif source.random() < config.jpeg:
            operations.append(_jpeg(config, source))
    operations += [_jpeg(config, source), Round()]
    return Recipe(draw.scale, *draw.gt_size, tuple(operations))


def _order(source: np.random.Generator) -> list[int]:
    order = [int(step) for step in source.permutation(6)]
    first, last = order.index(_SHRINK_FIRST), order.index(_SHRINK_LAST)
    if first > last:
        order[first], order[last] = order[last], order[first]
    return order


def _blur(config: Shuffled, factor: int, source: np.random.Generator) -> Kernel:
    size = int(source.choice(config.sizes))
    if source.random() < config.aniso:
        # Variances, not standard deviations, are uniform; zero would be no kernel at all.
        along, across = (
            max(_LEAST_SIGMA, math.sqrt((4 + factor) * source.random())) for _ in range(2)
        )
        return Kernel("aniso", size, along, across, uniform(source, (0.0, math.pi)))
    sigma = max(_LEAST_SIGMA, (2 + 0.2 * factor) * source.random())
    return Kernel("iso", size, sigma, sigma)


def _shrink(
    config: Shuffled, factor: int, size: Size, source: np.random.Generator
) -> tuple[list[Operation], Size]:
    if source.random() < config.resample:
        divisor = uniform(source, (1.0, 2.0 * factor))
        height, width = (max(1, math.floor(side / divisor)) for side in size)
        mode = str(source.choice(config.modes))
        return [Scale(height, width, mode)], (height, width)
    sigma = uniform(source, (_LEAST_SIGMA, 0.6 * factor))
    # Every n-th pixel stands for the middle of its n x n cell: the blur is moved there.
    kernel = Kernel("iso", _STRIDE_TAPS, sigma, sigma, shift=(factor - 1) / 2)
    height, width = (math.ceil(side / factor) for side in size)
    return [Filter(kernel), Scale(height, width, STRIDE)], (height, width)


def _noise(config: Shuffled, source: np.random.Generator) -> GaussianNoise:
    sigma = float(source.integers(config.sigma[0], config.sigma[1] + 1))
    which = source.random()
    if which < config.gray:
        return GaussianNoise(sigma, True, seed(source))
    if which < config.gray + config.correlated:
        return GaussianNoise(_CORRELATED_SIGMA, False, seed(source), _mix(source))
    return GaussianNoise(sigma, False, seed(source))


def _mix(source: np.random.Generator) -> tuple[float, ...]:
    """A matrix A such that A n has BSRGAN's random covariance for three unit normal numbers n."""
    basis = np.linalg.svd(source.random((3, 3)))[0]
    covariance = (
        np.abs(basis.T @ np.diag(source.random(3)) @ basis) * (_CORRELATED_SIGMA / 255) ** 2
    )
    _, spread, turn = np.linalg.svd(covariance)
    matrix = (np.sqrt(spread)[:, None] * turn).T
    return tuple(float(value) for value in matrix.flat)


def _jpeg(config: Shuffled, source: np.random.Generator) -> Compress:
    quality = source.integers(config.quality[0], config.quality[1] + 1)
    return Compress(float(quality), "libjpeg")
