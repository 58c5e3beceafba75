"""Degradation against SciPy: the Bessel function, rotated kernels, distributions of the noise."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import special, stats

from realesr_cli.degrade import noise
from realesr_cli.degrade.kernels import Kernel, bessel_j1, build_kernel, unnormalized_sinc

CPU = torch.device("cpu")


def test_bessel_is_scipys() -> None:
    x = np.linspace(-60, 60, 4001)
    np.testing.assert_allclose(bessel_j1(x), special.j1(x), atol=1e-13)


def test_sinc_is_the_transform_of_a_disc() -> None:
    offsets = np.arange(15) - 7
    radius = np.hypot(offsets[:, None], offsets[None])
    radius[7, 7] = 1e-9
    expected = 1.9 * special.j1(1.9 * radius) / (2 * math.pi * radius)
    np.testing.assert_allclose(unnormalized_sinc(15, 1.9), expected, atol=1e-9)


def test_anisotropic_kernel_is_a_normal_density() -> None:
    theta, sigmas = 0.7, (2.2, 0.9)
    turn = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
    covariance = turn @ np.diag(np.square(sigmas)) @ turn.T
    offsets = np.arange(17) - 8
    points = np.stack(np.meshgrid(offsets, offsets), axis=-1)
    density = stats.multivariate_normal(cov=covariance).pdf(points)
    ours = build_kernel(Kernel("aniso", 17, *sigmas, theta))
    np.testing.assert_allclose(ours, density / density.sum(), atol=1e-12)


def test_gaussian_noise_is_normal() -> None:
    flat = torch.full((3, 120, 120), 0.5)
    noisy = noise.add_gaussian_noise(flat, 12.0, gray=False, source=noise.make_generator(3, CPU))
    values = ((noisy - flat) * 255 / 12).flatten().numpy()
    assert stats.kstest(values, "norm").pvalue > 1e-3


@pytest.mark.parametrize("code", [1, 30, 128, 255])
def test_poisson_noise_is_poisson(code: int) -> None:
    flat = torch.full((3, 120, 120), code / 255)
    source = noise.make_generator(5, CPU)
    noisy = noise.add_poisson_noise(flat, 1.0, gray=False, levels=256, source=source)
    counts = (noisy * 256).round().flatten().numpy()
    rate = code / 255 * 256
    np.testing.assert_allclose(counts, noisy.flatten().numpy() * 256, atol=0.01)
    assert counts.mean() == pytest.approx(rate, abs=5 * math.sqrt(rate / counts.size))
    assert counts.var() == pytest.approx(rate, rel=0.05)
    edges = np.unique(stats.poisson(rate).ppf(np.linspace(0.05, 0.95, 10)))
    expected = np.diff(stats.poisson(rate).cdf(edges))
    found = [np.mean((counts > low) & (counts <= high))
             for low, high in pairwise(edges)]  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=0.01)
