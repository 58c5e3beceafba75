"""Per-sample filtering, separable blur and unsharp masking."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from realesr_cli.ops import filters


@pytest.mark.parametrize(("height", "width"), [(40, 56), (17, 16), (30, 5), (1, 9), (1, 1)])
def test_reflect_pad_follows_numpy(height: int, width: int) -> None:
    image = torch.rand(2, 3, height, width)
    ours = filters.reflect_pad(image, rows=10, columns=10)
    theirs = np.pad(image.numpy(), ((0, 0), (0, 0), (10, 10), (10, 10)), mode="reflect")
    torch.testing.assert_close(ours, torch.from_numpy(theirs), atol=0, rtol=0)


@pytest.mark.parametrize("size", [1, 7, 21])
def test_each_image_has_its_own_kernel(size: int) -> None:
    images, kernels = torch.rand(3, 3, 33, 50), torch.rand(3, size, size)
    ours = filters.filter2d(images, kernels)
    pad = size // 2
    for image, kernel, result in zip(images, kernels, ours, strict=True):
        padded = F.pad(image[:, None], (pad,) * 4, mode="reflect")
        dense = F.conv2d(padded, kernel[None, None])[:, 0]
        torch.testing.assert_close(result, dense, atol=1e-4, rtol=1e-4)


def test_one_kernel_for_all() -> None:
    images, kernel = torch.rand(3, 3, 20, 24), torch.rand(1, 5, 5)
    ours = filters.filter2d(images, kernel)
    torch.testing.assert_close(ours, filters.filter2d(images, kernel.expand(3, -1, -1)))


def test_kernel_of_one_tap_changes_no_bit() -> None:
    images = torch.rand(2, 3, 30, 41)
    kernel = torch.zeros(1, 21, 21)
    kernel[0, 10, 10] = 1
    assert torch.equal(filters.filter2d(images, kernel), images)


def test_constant_image_stays() -> None:
    images = torch.full((1, 3, 25, 30), 0.37)
    kernel = torch.rand(1, 9, 9)
    kernel /= kernel.sum()
    torch.testing.assert_close(filters.filter2d(images, kernel), images)


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 3, 5), (3, 3), (2, 3, 3)])
def test_wrong_kernels(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="kernels"):
        filters.filter2d(torch.rand(3, 3, 20, 20), torch.rand(shape))


def test_separable_is_the_outer_product() -> None:
    images = torch.rand(2, 3, 70, 45, dtype=torch.float64)
    taps = filters.gaussian_taps(13, 2.1)
    dense = filters.filter2d(images, torch.outer(taps, taps)[None])
    ours = filters.gaussian_blur(images, size=13, sigma=2.1)
    torch.testing.assert_close(ours, dense, atol=1e-12, rtol=0)


def test_usm_window() -> None:
    assert filters.auto_sigma(51) == pytest.approx(8.0)
    taps = filters.gaussian_taps(51, 8.0)
    assert taps[25].item() == pytest.approx(0.0499389391)
    assert taps[0].item() == pytest.approx(0.000378321, rel=1e-5)


def test_usm_leaves_constant_and_weak_steps() -> None:
    flat = torch.full((1, 3, 60, 60), 0.4)
    torch.testing.assert_close(filters.usm_sharpen(flat), flat)
    step = torch.full((1, 3, 40, 120), 0.3, dtype=torch.float64)
    weak, strong = step.clone(), step.clone()
    weak[..., 60:] += 21.05 / 255
    strong[..., 60:] += 21.06 / 255
    torch.testing.assert_close(filters.usm_sharpen(weak), weak)
    assert (filters.usm_sharpen(strong) - strong).abs().max() > 1e-3


def test_usm_of_a_step() -> None:
    step = torch.full((1, 1, 30, 160), 50 / 255, dtype=torch.float64)
    step[..., 80:] = 150 / 255
    ours = filters.usm_sharpen(step) * 255
    assert ours[0, 0, 10, 79].item() == pytest.approx(31.2545784, abs=1e-5)
    assert ours[0, 0, 10, 80].item() == pytest.approx(168.7454216, abs=1e-5)


def test_usm_stays_in_range() -> None:
    ours = filters.usm_sharpen(torch.rand(1, 3, 64, 64))
    assert ours.min() >= 0
    assert ours.max() <= 1
