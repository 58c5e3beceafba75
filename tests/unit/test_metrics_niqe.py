"""NIQE: its statistics, its circular neighbors, what it ignores, and what has no score."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
import torch

from realesr_cli.metrics import niqe as module
from realesr_cli.metrics.niqe import SHIFTS, block_features, load_pristine, niqe


def natural(height: int = 192, width: int = 224, seed: int = 0) -> torch.Tensor:
    """Noise of many scales, which is a little like a photograph."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(1, 3, height, width)
    for level in range(6):
        size = (max(2, height >> level), max(2, width >> level))
        noise = torch.randn(1, 3, *size, generator=generator)
        total += 2**level * torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")
    return torch.sigmoid(total[0] / 20)


def test_the_natural_statistics_are_the_published_ones() -> None:
    mean, covariance = load_pristine()
    assert mean.shape == (36,)
    assert covariance.shape == (36, 36)
    assert mean[:3] == pytest.approx([2.6013137, 0.9057027, 0.8120478], abs=1e-6)
    assert np.trace(covariance) == pytest.approx(1.6309189, abs=1e-6)


def test_the_statistics_come_with_their_license() -> None:
    text = (files("realesr_cli.metrics") / "data" / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Apache License" in text


def test_noise_and_blur_are_less_natural() -> None:
    image = natural()
    noisy = (image + 0.1 * torch.randn(image.shape)).clamp(0, 1)
    smooth = torch.nn.functional.avg_pool2d(image, 9, 1, 4)
    assert niqe(image) < min(niqe(noisy), niqe(smooth))


def test_neighbors_are_circular_within_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block rolled around has the same features, which it has not if neighbors leave it."""
    monkeypatch.setattr(module, "normalize_locally", lambda luma: luma)
    block = torch.randn(1, 1, 24, 24, dtype=torch.float64)
    rolled = block.roll((5, 9), (2, 3))
    assert block_features(block, 24) == pytest.approx(block_features(rolled, 24))


def test_each_direction_of_neighbors_has_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a pattern that repeats along one direction only that direction's products are positive."""
    monkeypatch.setattr(module, "normalize_locally", lambda luma: luma)
    for number, (down, right) in enumerate(SHIFTS):
        rows, columns = np.indices((24, 24))
        # Constant along (down, right): a random function of what that step does not change.
        along = (rows * right - columns * down) % 24
        values = np.random.default_rng(3).standard_normal(24)[along]
        blocks = torch.from_numpy(values).view(1, 1, 24, 24)
        product = values * np.roll(values, (down, right), axis=(0, 1))
        assert (product >= 0).all()
        left = block_features(blocks, 24)[0, 2 + 4 * number + 2]
        assert np.isnan(left)  # Nothing is negative, so there is no left scale.


def test_what_lies_beyond_whole_blocks_does_not_count() -> None:
    image = natural()
    changed = image.clone()
    changed[:, :, 192:] = torch.rand(3, 192, 32)
    assert niqe(image) == niqe(changed)


def test_the_crop_leaves_out_the_border() -> None:
    image = natural(200, 200)
    assert niqe(image, crop=4) == niqe(image[:, 4:-4, 4:-4])
    assert niqe(image[None], crop=4) == niqe(image, crop=4)


def test_gray_is_its_own_luma() -> None:
    gray = natural()[:1]
    assert niqe(gray) == pytest.approx(niqe(gray.expand(3, -1, -1)))


def test_small_and_flat_images_have_no_score() -> None:
    with pytest.raises(ValueError, match="two blocks"):
        niqe(natural(96, 191))
    with pytest.raises(ValueError, match="two blocks"):
        niqe(natural(95, 400))
    with pytest.raises(ValueError, match="two blocks"):
        niqe(natural(96, 192), crop=1)
    with pytest.raises(ValueError, match="any detail"):
        niqe(torch.full((3, 192, 192), 0.5))
