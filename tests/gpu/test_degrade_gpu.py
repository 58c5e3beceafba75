"""The same recipes on a GPU: the same images up to the order of sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from realesr_cli.degrade.degradation import apply, sample_batch
from realesr_cli.degrade.presets import PRESETS, get_preset
from realesr_cli.ops.filters import filter2d, usm_sharpen

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.parametrize("name", PRESETS)
def test_recipes_give_the_same_on_both(name: str) -> None:
    gt = torch.rand(8, 3, 128, 160)
    rng = np.random.default_rng(0)
    recipes = sample_batch(get_preset(name), rng, 8, scale=4, size=(128, 160))
    difference = (apply(recipes, gt.cuda()).cpu() - apply(recipes, gt)).abs() * 255
    # JPEG rounds coefficients: one that lies between two steps may fall either way.
    assert (difference > 1.5).float().mean() < 0.02
    assert difference.mean() < 0.2


def test_filters() -> None:
    images, kernels = torch.rand(4, 3, 70, 90), torch.rand(4, 21, 21)
    kernels = kernels / kernels.sum((1, 2), keepdim=True)
    ours = filter2d(images.cuda(), kernels.cuda()).cpu()
    torch.testing.assert_close(ours, filter2d(images, kernels), atol=1e-5, rtol=0)
    one = filter2d(images.cuda(), kernels[:1].cuda()).cpu()
    torch.testing.assert_close(one, filter2d(images, kernels[:1]), atol=1e-5, rtol=0)
    sharp = usm_sharpen(images.cuda()).cpu()
    torch.testing.assert_close(sharp, usm_sharpen(images), atol=1e-4, rtol=0)


def test_noise_drawn_there_repeats() -> None:
    gt = torch.rand(4, 3, 64, 64).cuda()
    rng = np.random.default_rng(0)
    recipes = sample_batch(get_preset("realesrgan"), rng, 4, scale=4, size=(64, 64))
    first = apply(recipes, gt, noise_device="input")
    assert torch.equal(first, apply(recipes, gt, noise_device="input"))
