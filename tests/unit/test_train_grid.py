"""The grid loss sees the edges of low-quality pixels, and nothing else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from realesr_cli.train.losses import grid_loss


def smooth(seed: int, side: int = 64) -> torch.Tensor:
    coarse = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)


def noise(seed: int, side: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [2, 4])
def test_repeated_pixels_are_a_grid_and_smooth_or_noisy_pictures_are_none(scale: int) -> None:
    repeated = F.interpolate(noise(1), scale_factor=scale, mode="nearest")
    # All steps fall on one of the places: deviations scale - 1 once, 1 otherwise.
    assert float(grid_loss(repeated, scale)) == pytest.approx(scale - 1, rel=0.02)
    assert float(grid_loss(smooth(2), scale)) < 0.05
    assert float(grid_loss(noise(3, 256), scale)) < 0.01


def test_a_faint_grid_on_a_picture_is_seen() -> None:
    picture = smooth(2)
    repeated = F.interpolate(F.avg_pool2d(picture, 4), scale_factor=4, mode="nearest")
    mixed = [float(grid_loss(picture + s * (repeated - picture), 4)) for s in (0, 0.2, 0.5)]
    assert mixed[0] < mixed[1] < mixed[2]


def test_flat_pictures_and_scale_one_have_none() -> None:
    assert float(grid_loss(torch.full((1, 3, 16, 16), 0.5), 4)) <= 1
    assert float(grid_loss(noise(1), 1)) == 0


def test_each_axis_counts() -> None:
    columns = F.interpolate(noise(1), scale_factor=(1, 4), mode="nearest")
    assert float(grid_loss(columns[..., :64], 4)) == pytest.approx(1.5, rel=0.05)


def test_descending_it_takes_a_grid_away_without_blurring() -> None:
    picture = smooth(4) + 0.05 * noise(5)
    repeated = F.interpolate(F.avg_pool2d(picture, 4), scale_factor=4, mode="nearest")
    fake = (picture + 0.3 * (repeated - picture)).requires_grad_()
    before = float(grid_loss(fake.detach(), 4))
    optimiser = torch.optim.Adam([fake], lr=1e-3)
    for _ in range(60):
        optimiser.zero_grad()
        grid_loss(fake, 4).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert float(grid_loss(fake.detach(), 4)) < before / 10


def test_a_pattern_that_repeats_is_seen_although_its_steps_are_even() -> None:
    """Steps evened out by a checkerboard are no cure."""
    board = ((torch.arange(64)[:, None] + torch.arange(64)) % 2).float() - 0.5
    for amount in (0.5, 2.0):
        flat = (0.5 + amount / 255 * board).expand(1, 3, -1, -1)
        assert float(grid_loss(flat, 4)) > 0.05
    picture = smooth(2)
    losses = [float(grid_loss(picture + amount / 255 * board, 4)) for amount in (0, 4, 8)]
    assert losses[0] < losses[1] < losses[2]
