"""Back-projection against the published loop, written with NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import convolve2d

from realesr_cli.ops.back_projection import KERNELS, back_project

Plane = NDArray[np.float64]


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0))


def matlab_axis(plane: Plane, out: int) -> Plane:
    """imresize of the rows: bicubic, antialiased when shrinking, mirrored at the ends."""
    size = plane.shape[0]
    scale = out / size
    stretch = min(scale, 1)
    result = np.zeros((out, plane.shape[1]))
    for i in range(out):
        center = (i + 0.5) / scale - 0.5
        places = np.arange(np.floor(center - 2 / stretch), np.ceil(center + 2 / stretch) + 1)
        weights = cubic((places - center) * stretch)
        padded = np.pad(np.arange(size), 400, mode="symmetric")
        result[i] = (weights / weights.sum()) @ plane[padded[places.astype(int) + 400]]
    return result


def imresize(plane: Plane, size: tuple[int, int]) -> Plane:
    return matlab_axis(matlab_axis(plane, size[0]).T, size[1]).T


def published(enlarged: Plane, original: Plane, iterations: int, kernel: str) -> Plane:
    offsets = np.arange(-2, 3)
    gauss = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / 2)
    gauss /= gauss.sum()
    filter_ = gauss**2 / (gauss**2).sum()
    bicubic = imresize(original, enlarged.shape)
    for _ in range(iterations):
        reduced = imresize(enlarged, original.shape)
        if kernel == "gaussian":
            difference = imresize(original - reduced, enlarged.shape)
            enlarged = enlarged + convolve2d(difference, filter_, mode="same")
        else:
            enlarged = enlarged + bicubic - imresize(reduced, enlarged.shape)
    return enlarged


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("small", "large"),
    [((9, 13), (36, 52)), ((12, 7), (24, 14)), ((10, 8), (27, 29)), ((3, 1), (5, 9))],
)
@pytest.mark.parametrize("iterations", [1, 20])
def test_the_iteration_is_the_published_one(
    kernel: str, small: tuple[int, int], large: tuple[int, int], iterations: int
) -> None:
    rng = np.random.default_rng(1)
    original, enlarged = rng.random(small), rng.random(large)
    theirs = published(enlarged, original, iterations, kernel)
    ours = back_project(
        torch.from_numpy(enlarged)[None, None],
        torch.from_numpy(original)[None, None],
        iterations=iterations,
        kernel=kernel,
    )
    np.testing.assert_allclose(ours[0, 0].numpy(), theirs, atol=1e-11)
