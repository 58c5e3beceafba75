"""The parts of NIQE against scipy: local normalization, and shapes found from random samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from realesr_cli.metrics.niqe import fit_asymmetric_gaussian, normalize_locally


def test_local_normalization_equals_scipys() -> None:
    luma = np.random.default_rng(1).integers(16, 236, (40, 52)).astype(float)
    # truncate makes the window seven wide: 3 is 2.57 deviations of 7/6.
    mean, square = (
        ndimage.gaussian_filter(x, 7 / 6, mode="nearest", truncate=2.6) for x in (luma, luma**2)
    )
    expected = (luma - mean) / (np.sqrt(np.abs(square - mean**2)) + 1)
    ours = normalize_locally(torch.from_numpy(luma).view(1, 1, 40, 52))[0, 0].numpy()
    assert ours == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("shape", "left", "right"), [(2.0, 1.0, 1.0), (0.8, 0.5, 1.5), (1.3, 2.0, 0.7), (4.0, 1.0, 3.0)]
)
def test_shapes_of_asymmetric_samples_are_recovered(
    shape: float, left: float, right: float
) -> None:
    rng = np.random.default_rng(5)
    size = np.abs(stats.gennorm.rvs(shape, size=(1, 600, 600), random_state=rng))
    negative = rng.random(size.shape) < left / (left + right)
    alpha, low, high = fit_asymmetric_gaussian(np.where(negative, -left * size, right * size))
    assert alpha[0] == pytest.approx(shape, rel=0.03)
    assert low[0] == pytest.approx(left, rel=0.03)
    assert high[0] == pytest.approx(right, rel=0.03)
