"""Training pairs: alignment of the crops, sharpening, and the pool."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from realesr_cli.degrade.config import DegradationConfig, Final, Jpeg
from realesr_cli.degrade.pairs import Pair, PairPlan, Pool, check_pool_size, make_pairs
from realesr_cli.degrade.presets import get_preset
from realesr_cli.errors import ConfigError
from realesr_cli.ops.filters import usm_sharpen

PLAIN = DegradationConfig(final=Final(modes=("area",), sinc=0.0, jpeg=Jpeg(probability=0.0)))


def ground_truth(count: int = 4, side: int = 96) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(2))


def pairs(config: DegradationConfig, plan: PairPlan, gt: torch.Tensor, seed: int = 5) -> Pair:
    return make_pairs(gt, config, np.random.default_rng(seed), plan)


def test_crops_are_aligned() -> None:
    pair = pairs(PLAIN, PairPlan(scale=4, patch=10), ground_truth())
    assert pair.lq.shape == (4, 3, 10, 10)
    assert pair.gt.shape == (4, 3, 40, 40)
    small = torch.nn.functional.avg_pool2d(pair.gt, 4)
    torch.testing.assert_close(pair.lq, (small * 255).round() / 255, atol=1e-6, rtol=0)


def corners(pair: Pair, gt: torch.Tensor) -> list[tuple[int, int]]:
    """Where each crop was cut from, by its first pixel."""
    found = []
    for crop, whole in zip(pair.gt, gt, strict=True):
        same = (whole == crop[:, :1, :1]).all(0).nonzero()
        found.append((int(same[0, 0]), int(same[0, 1])))
    return found


def test_places_lie_on_the_grid_and_differ() -> None:
    gt = ground_truth(8)
    found = corners(pairs(PLAIN, PairPlan(scale=4, patch=10), gt), gt)
    assert all(top % 4 == 0 and left % 4 == 0 for top, left in found)
    assert len(set(found)) > 4


def test_compatible_cuts_all_at_one_place() -> None:
    gt = ground_truth(8)
    config = replace(PLAIN, compatible=True)
    assert len(set(corners(pairs(config, PairPlan(scale=4, patch=10), gt), gt))) == 1


def test_no_crop() -> None:
    pair = pairs(PLAIN, PairPlan(scale=2, patch=None), ground_truth())
    assert pair.lq.shape == (4, 3, 48, 48)
    assert torch.equal(pair.gt, ground_truth())


def test_crop_as_large_as_the_image() -> None:
    pair = pairs(PLAIN, PairPlan(scale=4, patch=24), ground_truth())
    assert torch.equal(pair.gt, ground_truth())


def test_crop_that_does_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"25 .* 24x24"):
        pairs(PLAIN, PairPlan(scale=4, patch=25), ground_truth())


def test_low_quality_starts_from_the_sharpened_image() -> None:
    gt = ground_truth()
    pair = pairs(replace(PLAIN, usm=True), PairPlan(scale=4, patch=None), gt)
    sharp = usm_sharpen(gt)
    torch.testing.assert_close(pair.gt_usm, sharp, atol=1e-5, rtol=0)
    small = torch.nn.functional.avg_pool2d(sharp, 4)
    assert (pair.lq - small).abs().max() <= 0.51 / 255
    assert torch.equal(pair.gt, gt)


def test_sharpened_crop_is_cut_from_the_whole_image() -> None:
    gt = ground_truth()
    plan = PairPlan(scale=4, patch=10)
    ours = pairs(replace(PLAIN, usm=True), plan, gt)
    theirs = pairs(replace(PLAIN, usm=True, compatible=True), plan, gt)
    torch.testing.assert_close(theirs.gt_usm, usm_sharpen(theirs.gt), atol=1e-5, rtol=0)
    assert not torch.allclose(ours.gt_usm, usm_sharpen(ours.gt), atol=1e-3)


def test_sharpened_ground_truth_can_be_left_out() -> None:
    pair = pairs(PLAIN, PairPlan(scale=4, patch=10, sharpened_gt=False), ground_truth())
    assert pair.gt_usm is pair.gt


def test_same_generator_same_pairs() -> None:
    first = pairs(get_preset("realesrgan"), PairPlan(patch=16), ground_truth())
    again = pairs(get_preset("realesrgan"), PairPlan(patch=16), ground_truth())
    assert torch.equal(first.lq, again.lq)
    assert torch.equal(first.gt_usm, again.gt_usm)


def numbered(start: int, count: int) -> Pair:
    """Pairs that carry their number in every pixel."""
    ids = torch.arange(start, start + count, dtype=torch.float32).view(-1, 1, 1, 1)
    return Pair(ids.expand(-1, 3, 2, 2), ids.expand(-1, 3, 8, 8), ids.expand(-1, 3, 8, 8) + 0.5)


def test_pool_fills_first() -> None:
    pool, rng = Pool(180), np.random.default_rng(0)
    for step in range(15):
        fresh = numbered(step * 12, 12)
        assert pool.exchange(fresh, rng) is fresh
    sixteenth = pool.exchange(numbered(180, 12), rng)
    assert sixteenth.lq.max() < 180


def test_pool_loses_and_doubles_nothing_and_keeps_pairs_together() -> None:
    pool, rng = Pool(24), np.random.default_rng(1)
    given, returned = [], []
    for step in range(40):
        fresh = numbered(step * 6, 6)
        given += fresh.lq[:, 0, 0, 0].tolist()
        back = pool.exchange(fresh, rng)
        assert torch.equal(back.lq[:, 0, 0, 0], back.gt[:, 0, 0, 0])
        assert torch.equal(back.gt_usm, back.gt + 0.5)
        if step >= 4:
            returned += back.lq[:, 0, 0, 0].tolist()
    held = pool.state_dict()["lq"][:, 0, 0, 0].tolist()
    assert sorted(returned + held) == sorted(given)
    assert returned != sorted(returned)


def test_pool_goes_on_from_its_state() -> None:
    first, second = Pool(12), Pool(12)
    rng = np.random.default_rng(2)
    for step in range(5):
        first.exchange(numbered(step * 4, 4), rng)
    second.load_state_dict(first.state_dict())
    fresh = numbered(100, 4)
    ours = first.exchange(fresh, np.random.default_rng(7))
    again = second.exchange(fresh, np.random.default_rng(7))
    assert torch.equal(ours.gt, again.gt)


def test_empty_pool_has_an_empty_state() -> None:
    pool = Pool(4)
    assert pool.state_dict() == {}
    pool.load_state_dict({})
    fresh = numbered(0, 4)
    assert pool.exchange(fresh, np.random.default_rng(0)) is fresh


def test_pool_that_is_no_multiple_of_the_batch() -> None:
    with pytest.raises(ConfigError, match="such as 175 or 182"):
        check_pool_size(180, batch=7)
    with pytest.raises(ConfigError, match="multiple of the batch"):
        Pool(10).exchange(numbered(0, 4), np.random.default_rng(0))
    with pytest.raises(ConfigError, match="pool = 0"):
        Pool(0)
