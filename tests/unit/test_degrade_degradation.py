"""Recipes applied to images: determinism, independence, small images, the reference's ways."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from realesr_cli.degrade import degradation
from realesr_cli.degrade.config import DegradationConfig
from realesr_cli.degrade.kernels import Kernel, build_kernel
from realesr_cli.degrade.presets import PRESETS, get_preset
from realesr_cli.degrade.recipe import (
    Compress,
    Filter,
    GaussianNoise,
    PoissonNoise,
    Recipe,
    Round,
    Scale,
    Sharpen,
    recipes_from_plain,
    recipes_to_plain,
)
from realesr_cli.errors import ConfigError
from realesr_cli.ops.filters import filter2d, usm_sharpen
from realesr_cli.ops.jpeg import REFERENCE_STYLE, jpeg
from realesr_cli.ops.resize import resize


def images(count: int = 1, height: int = 64, width: int = 72) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(9))


def recipes(name: str, count: int, size: tuple[int, int], scale: int = 4) -> tuple[Recipe, ...]:
    rng = np.random.default_rng(31)
    return degradation.sample_batch(get_preset(name), rng, count, scale=scale, size=size)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_result(name: str, scale: int) -> None:
    made = degradation.apply(recipes(name, 6, (64, 72), scale), images(6))
    assert made.shape == (6, 3, 64 // scale, 72 // scale)
    codes = made * 255
    assert torch.equal(codes.round(), codes.round().clamp(0, 255))
    torch.testing.assert_close(codes, codes.round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", PRESETS)
def test_replay_from_json_is_bit_equal(name: str) -> None:
    drawn = recipes(name, 5, (64, 72))
    first = degradation.apply(drawn, images(5))
    again = degradation.apply(
        recipes_from_plain(json.loads(json.dumps(recipes_to_plain(drawn)))), images(5)
    )
    assert torch.equal(first, again)


def test_neighbors_do_not_matter() -> None:
    drawn, gt = recipes("realesrgan", 8, (64, 72)), images(8)
    together = degradation.apply(drawn, gt)
    for index in range(8):
        alone = degradation.apply(drawn[index], gt[index : index + 1])
        assert torch.equal(together[index], alone[0])


def test_grouped_work_equals_work_alone() -> None:
    drawn = (*recipes("realesrgan", 6, (64, 72)), *recipes("bsrgan", 6, (64, 72)))
    gt = images(12)
    alone = degradation.apply(drawn, gt)
    grouped = degradation._run(drawn, list(torch.split(gt, 1)), torch.device("cpu"))
    # The sums may be taken in another order; after 8-bit rounding a code may differ by one.
    difference = ((torch.cat(grouped) - alone) * 255).abs()
    assert difference.max() < 1.01
    assert (difference > 0.5).float().mean() < 0.01


def test_the_same_generator_state_draws_the_same() -> None:
    first, again = recipes("realesrgan", 3, (64, 72)), recipes("realesrgan", 3, (64, 72))
    assert first == again
    rng = np.random.default_rng(31)
    assert degradation.sample(get_preset("realesrgan"), rng, scale=4, size=(64, 72)) == first[0]


def test_input_is_left_alone() -> None:
    gt = images(2)
    kept = gt.clone()
    degradation.apply(recipes("realesrgan", 2, (64, 72)), gt)
    assert torch.equal(gt, kept)


def test_operations_are_those_of_the_recipe() -> None:
    kernel = Kernel("aniso", 9, 2.0, 1.0, 0.3)
    recipe = Recipe(
        2,
        40,
        48,
        (Sharpen(), Filter(kernel), Scale(20, 24, "bicubic"), Compress(60.0), Round()),
    )
    gt = images(1, 40, 48)
    blurred = filter2d(usm_sharpen(gt), torch.from_numpy(build_kernel(kernel))[None])
    expected = jpeg(resize(blurred, (20, 24), "bicubic"), 60.0)
    expected = (expected * 255).round().clamp(0, 255) / 255
    assert torch.equal(degradation.apply(recipe, gt), expected)


def test_noise_is_clamped() -> None:
    recipe = Recipe(1, 64, 72, (GaussianNoise(120.0, False, 1),))
    made = degradation.apply(recipe, images())
    assert made.min() == 0
    assert made.max() == 1


@pytest.mark.parametrize("size", [(4, 4), (4, 23), (9, 6)])
@pytest.mark.parametrize("name", ["realesrgan", "bsrgan", "mmagic", "esrgan"])
def test_images_smaller_than_the_kernels(name: str, size: tuple[int, int]) -> None:
    made = degradation.apply(recipes(name, 10, size), images(10, *size))
    assert made.shape[-2:] == (size[0] // 4, size[1] // 4)
    assert torch.isfinite(made).all()


def test_size_that_is_no_multiple() -> None:
    made = degradation.apply(recipes("realesrgan", 2, (67, 53)), images(2, 67, 53))
    assert made.shape[-2:] == (16, 13)


def test_too_small_for_the_scale() -> None:
    with pytest.raises(ConfigError, match="too small for scale 4"):
        recipes("light", 1, (3, 40))


@pytest.mark.parametrize(
    ("gt", "count", "message"),
    [
        (torch.rand(1, 3, 64, 70), 1, "for an image of 64x72"),
        (torch.rand(2, 3, 64, 72), 3, "got 3 for 2"),
        (torch.rand(1, 1, 64, 72), 1, "expected images"),
    ],
)
def test_recipes_that_do_not_fit(gt: torch.Tensor, count: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        degradation.apply(recipes("esrgan", count, (64, 72)), gt)


def test_mixed_scales() -> None:
    mixed = (recipes("esrgan", 1, (64, 72))[0], recipes("esrgan", 1, (64, 72), 2)[0])
    with pytest.raises(ConfigError, match="different scales"):
        degradation.apply(mixed, images(2))


def test_recipe_that_ends_at_another_size() -> None:
    with pytest.raises(ConfigError, match=r"64x72 .* 16x18"):
        degradation.apply(Recipe(4, 64, 72, (Round(),)), images())


COMPATIBLE = replace(get_preset("realesrgan"), compatible=True)


def batches(config: DegradationConfig, count: int) -> list[tuple[Recipe, ...]]:
    rng = np.random.default_rng(3)
    return [
        degradation.sample_batch(config, rng, 6, scale=4, size=(400, 400)) for _ in range(count)
    ]


def shapes(batch: Sequence[Recipe]) -> set[tuple[object, ...]]:
    """What the reference decides once per batch, of each recipe."""
    found = set()
    for recipe in batch:
        marks: list[object] = []
        for index, op in enumerate(recipe.operations):
            skipped = isinstance(op, Filter) and op.kernel.kind == "none" and index == 5
            marks.append(op if isinstance(op, Scale) else (type(op), skipped))
        found.add(tuple(marks))
    return found


def test_compatible_shares_what_the_reference_shares() -> None:
    drawn = batches(COMPATIBLE, 30)
    assert all(len(shapes(batch)) == 1 for batch in drawn)
    assert len({next(iter(shapes(batch))) for batch in drawn}) == 30
    assert all(len(shapes(batch)) == 6 for batch in batches(get_preset("realesrgan"), 30))


def test_compatible_draws_the_rest_per_sample() -> None:
    for batch in batches(COMPATIBLE, 10):
        assert len({recipe.operations[1] for recipe in batch}) == 6
        assert len({recipe.operations[4] for recipe in batch}) == 6
        amounts = {
            op.sigma if isinstance(op, GaussianNoise) else op.scale
            for recipe in batch
            for op in recipe.operations
            if isinstance(op, GaussianNoise | PoissonNoise)
        }
        assert len(amounts) == 12


def test_compatible_marks_the_defects() -> None:
    operations = [op for batch in batches(COMPATIBLE, 30) for r in batch for op in r.operations]
    assert all(op.reference for op in operations if isinstance(op, Compress))
    assert {op.levels for op in operations if isinstance(op, PoissonNoise)} == {0}
    corrected = [
        op for batch in batches(get_preset("realesrgan"), 5) for r in batch for op in r.operations
    ]
    assert not any(op.reference for op in corrected if isinstance(op, Compress))


def test_compatible_shares_the_pattern_of_gray_noise() -> None:
    for batch in batches(COMPATIBLE, 40):
        for index in (3, 7):
            noises = [r.operations[index] for r in batch]
            gray = {op.seed for op in noises if isinstance(op, GaussianNoise) and op.gray}
            colored = [op.seed for op in noises if isinstance(op, GaussianNoise) and not op.gray]
            assert len(gray) <= 1
            assert len(set(colored)) == len(colored)


def test_corrected_gray_noise_differs_between_samples() -> None:
    flat = torch.full((2, 3, 40, 40), 0.5)
    pair = [Recipe(1, 40, 40, (GaussianNoise(10.0, True, seed),)) for seed in (1, 2)]
    made = degradation.apply(pair, flat) - flat
    correlation = torch.corrcoef(made[:, 0].flatten(1))[0, 1]
    assert abs(correlation) < 0.1


def test_reference_jpeg_is_reachable() -> None:
    gt = images(1, 40, 40)
    made = degradation.apply(Recipe(1, 40, 40, (Compress(30.0, reference=True),)), gt)
    assert torch.equal(made, jpeg(gt, 30.0, style=REFERENCE_STYLE))
    assert not torch.allclose(made, jpeg(gt, 30.0))


def test_reference_resize_samples_by_its_factor() -> None:
    gt = images(1, 40, 40)
    stepped = degradation.apply(Recipe(2, 40, 40, (Scale(20, 20, "bilinear", 0.51),)), gt)
    plain = degradation.apply(Recipe(2, 40, 40, (Scale(20, 20, "bilinear"),)), gt)
    expected = torch.nn.functional.interpolate(
        gt, scale_factor=0.51, mode="bilinear", align_corners=False
    )
    assert torch.equal(stepped, expected)
    assert not torch.allclose(stepped, plain)


def test_stride_takes_the_middle_of_each_cell() -> None:
    ramp = torch.arange(64.0).view(1, 1, 1, 64).expand(1, 3, 64, 64) / 64
    kernel = Kernel("iso", 25, 0.6, 0.6, shift=1.5)
    recipe = Recipe(4, 64, 64, (Filter(kernel), Scale(16, 16, "stride")))
    made = degradation.apply(recipe, ramp)[0, 0, 8, 4:12] * 64
    expected = torch.arange(4.0, 12.0) * 4 + 1.5
    torch.testing.assert_close(made, expected, atol=0.02, rtol=0)
