"""What the presets draw: probabilities and ranges of every choice, over many recipes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import numpy as np
import pytest

from realesr_cli.degrade.degradation import sample_batch
from realesr_cli.degrade.presets import PRESETS, get_preset
from realesr_cli.degrade.recipe import (
    STRIDE,
    Compress,
    Filter,
    GaussianNoise,
    Operation,
    PoissonNoise,
    Recipe,
    Round,
    Scale,
    Sharpen,
)

COUNT = 4000

Kind = TypeVar("Kind")


@cache
def drawn(name: str, scale: int = 4) -> tuple[Recipe, ...]:
    rng = np.random.default_rng(20240)
    return sample_batch(get_preset(name), rng, COUNT, scale=scale, size=(400, 400))


def near(found: float, expected: float, count: int = COUNT) -> bool:
    """Within four standard deviations of a share."""
    return abs(found - expected) <= 4 * math.sqrt(expected * (1 - expected) / count) + 1e-9


def share(flags: Sequence[bool], expected: float) -> None:
    assert near(sum(flags) / len(flags), expected, len(flags)), (sum(flags) / len(flags), expected)


def spread(values: Sequence[float], low: float, high: float) -> None:
    """Uniform between two numbers: within them, near both, and halved by the middle."""
    assert low <= min(values)
    assert max(values) <= high
    assert min(values) < low + 0.03 * (high - low)
    assert max(values) > high - 0.03 * (high - low)
    share([value < (low + high) / 2 for value in values], 0.5)


def only(operations: Sequence[Operation], kind: type[Kind]) -> Kind:
    """The one operation of a kind."""
    (found,) = [operation for operation in operations if isinstance(operation, kind)]
    return found


def column(name: str, index: int) -> list[Operation]:
    """The operation at one place of all recipes."""
    return [recipe.operations[index] for recipe in drawn(name)]


# Places in recipes of realesrgan: sharpen, then four of each stage, then the end.
BLUR = {1: 1, 2: 5}
RESIZE = {1: 2, 2: 6}
NOISE = {1: 3, 2: 7}
JPEG = 4


def test_realesrgan_has_the_operations_in_order() -> None:
    for recipe in drawn("realesrgan"):
        kinds = [type(operation) for operation in recipe.operations]
        noise = (GaussianNoise, PoissonNoise)
        assert kinds[:3] == [Sharpen, Filter, Scale]
        assert kinds[3] in noise
        assert kinds[4:7] == [Compress, Filter, Scale]
        assert kinds[7] in noise
        assert kinds[8:] in (
            [Scale, Filter, Compress, Round],
            [Compress, Scale, Filter, Round],
        )


def test_realesrgan_kernels() -> None:
    filters = [op.kernel for op in column("realesrgan", BLUR[1]) if isinstance(op, Filter)]
    kinds = Counter(kernel.kind for kernel in filters)
    expected = {
        "iso": 0.405,
        "aniso": 0.225,
        "generalized_iso": 0.108,
        "generalized_aniso": 0.027,
        "plateau_iso": 0.108,
        "plateau_aniso": 0.027,
        "sinc": 0.1,
    }
    for kind, probability in expected.items():
        assert near(kinds[kind] / COUNT, probability), kind
    for size in range(7, 22, 2):
        share([kernel.size == size for kernel in filters], 1 / 8)
    spread([k.sigma_x for k in filters if k.kind != "sinc"], 0.2, 3.0)
    spread([k.theta for k in filters if k.kind.endswith("aniso")], -math.pi, math.pi)
    spread([k.cutoff for k in filters if k.kind == "sinc" and k.size < 13], math.pi / 3, math.pi)
    spread([k.cutoff for k in filters if k.kind == "sinc" and k.size >= 13], math.pi / 5, math.pi)
    assert min(k.cutoff for k in filters if k.kind == "sinc" and k.size == 13) < math.pi / 3


def test_realesrgan_shapes_are_split_at_one() -> None:
    filters = [op.kernel for op in column("realesrgan", BLUR[1]) if isinstance(op, Filter)]
    generalized = [k.beta for k in filters if k.kind.startswith("generalized")]
    spread([beta for beta in generalized if beta < 1], 0.5, 1.0)
    spread([beta for beta in generalized if beta > 1], 1.0, 4.0)
    share([beta < 1 for beta in generalized], 0.5)
    plateau = [k.beta for k in filters if k.kind.startswith("plateau")]
    share([beta == 1 for beta in plateau], 0.5)
    spread([beta for beta in plateau if beta > 1], 1.0, 2.0)


def test_shapes_of_the_paper_and_of_mmagic() -> None:
    paper = [r.operations[0] for r in drawn("realesrgan-paper")]
    betas = [
        op.kernel.beta
        for op in paper
        if isinstance(op, Filter) and op.kernel.kind.startswith("generalized")
    ]
    spread(betas, 0.5, 4.0)
    nested = [
        op.kernel.beta
        for op in column("mmagic", BLUR[1])
        if isinstance(op, Filter) and op.kernel.kind.startswith("plateau")
    ]
    # Uniform up to a uniform end: dense near 1, with the mean at a quarter of the range.
    assert min(nested) >= 1
    assert max(nested) <= 2
    assert np.mean(nested) == pytest.approx(1.25, abs=0.04)


def test_realesrgan_second_blur() -> None:
    filters = [op.kernel for op in column("realesrgan", BLUR[2]) if isinstance(op, Filter)]
    share([kernel.kind == "none" for kernel in filters], 0.2)
    spread([k.sigma_x for k in filters if k.kind not in ("none", "sinc")], 0.2, 1.5)


def factors(stage: int, base: float) -> list[float]:
    scales = [op for op in column("realesrgan", RESIZE[stage]) if isinstance(op, Scale)]
    for mode in ("area", "bilinear", "bicubic"):
        share([scale.mode == mode for scale in scales], 1 / 3)
    return [scale.height / base for scale in scales]


def test_realesrgan_resizing() -> None:
    first = factors(1, 400)
    share([factor == 1 for factor in first], 0.1)
    spread([factor for factor in first if factor > 1], 1.0, 1.5)
    spread([factor for factor in first if factor < 1], 0.15, 1.0)
    share([factor < 1 for factor in first], 0.7)
    second = factors(2, 100)
    # Sizes are whole pixels: enlarging by less than one pixel in a hundred is keeping.
    assert near(sum(factor < 1 for factor in second) / COUNT, 0.4)
    assert near(sum(factor > 1 for factor in second) / COUNT, 0.3 * 0.95)
    assert min(second) >= 0.3
    assert max(second) < 1.2


def test_sizes_follow_the_scale() -> None:
    for recipe in drawn("realesrgan", 2):
        second = recipe.operations[RESIZE[2]]
        assert isinstance(second, Scale)
        assert 60 <= second.height <= 240
        assert recipe.lq_size == (200, 200)


@pytest.mark.parametrize(
    ("stage", "sigma", "poisson"), [(1, (1, 30), (0.05, 3)), (2, (1, 25), (0.05, 2.5))]
)
def test_realesrgan_noise(
    stage: int, sigma: tuple[float, float], poisson: tuple[float, float]
) -> None:
    noises = column("realesrgan", NOISE[stage])
    gaussian = [op for op in noises if isinstance(op, GaussianNoise)]
    shot = [op for op in noises if isinstance(op, PoissonNoise)]
    share([isinstance(op, GaussianNoise) for op in noises], 0.5)
    share([op.gray for op in gaussian], 0.4)
    share([op.gray for op in shot], 0.4)
    spread([op.sigma for op in gaussian], *sigma)
    spread([op.scale for op in shot], *poisson)
    assert {op.levels for op in shot} == {256}
    assert len({op.seed for op in gaussian + shot}) == COUNT


def test_realesrgan_jpeg_and_end() -> None:
    first = [op.quality for op in column("realesrgan", JPEG) if isinstance(op, Compress)]
    spread(first, 30, 95)
    recipes = drawn("realesrgan")
    share([isinstance(recipe.operations[8], Scale) for recipe in recipes], 0.5)
    last = [only(recipe.operations[8:], Compress) for recipe in recipes]
    spread([op.quality for op in last], 30, 95)
    ringing = [only(recipe.operations[8:], Filter).kernel for recipe in recipes]
    share([kernel.kind == "sinc" for kernel in ringing], 0.8)
    spread([k.cutoff for k in ringing if k.kind == "sinc"], math.pi / 3, math.pi)


def test_mmagic_differs_where_it_should() -> None:
    for recipe in drawn("mmagic")[:500]:
        jpegs = [op for op in recipe.operations if isinstance(op, Compress)]
        assert [op.encoder for op in jpegs] == ["libjpeg", "libjpeg"]
        assert all(op.quality == int(op.quality) for op in jpegs)
        assert 30 <= jpegs[0].quality <= 95
        assert 5 <= jpegs[1].quality <= 50
        shot = [op for op in recipe.operations if isinstance(op, PoissonNoise)]
        assert all(op.levels == 256 * 255 for op in shot)
    sizes = [op.height for op in column("mmagic", RESIZE[2]) if isinstance(op, Scale)]
    # The second factor is of the current image, which may still be six times as large.
    assert max(sizes) > 400


def test_esrgan_is_bicubic_only() -> None:
    for recipe in drawn("esrgan")[:50]:
        scale, nothing, rounding = recipe.operations
        assert scale == Scale(100, 100, "matlab")
        assert isinstance(nothing, Filter)
        assert nothing.kernel.kind == "none"
        assert rounding == Round()


def test_first_order_has_one_stage() -> None:
    for recipe in drawn("first-order")[:50]:
        assert sum(isinstance(op, GaussianNoise | PoissonNoise) for op in recipe.operations) == 1
        assert sum(isinstance(op, Scale) for op in recipe.operations) == 2


def hardness(name: str) -> tuple[float, float, float]:
    """Means over recipes: Gaussian noise, JPEG quality, blur where there is any."""
    operations = [op for recipe in drawn(name) for op in recipe.operations]
    sigma = [op.sigma for op in operations if isinstance(op, GaussianNoise)]
    quality = [op.quality for op in operations if isinstance(op, Compress)]
    blur = [op.kernel.sigma_x for op in operations
            if isinstance(op, Filter) and op.kernel.kind not in ("none", "sinc")]  # fmt: skip
    return float(np.mean(sigma)), float(np.mean(quality)), float(np.mean(blur))


def test_light_is_lighter_than_medium_than_realesrgan() -> None:
    light, medium, full = hardness("light"), hardness("medium"), hardness("realesrgan")
    assert light[0] < medium[0] < full[0]
    assert light[1] > medium[1] > full[1]
    assert light[2] < medium[2] < full[2]


def test_light() -> None:
    recipes = drawn("light")
    operations = [op for recipe in recipes for op in recipe.operations]
    noises = [op for op in operations if isinstance(op, GaussianNoise)]
    shot = [op for op in operations if isinstance(op, PoissonNoise)]
    spread([op.sigma for op in noises], 1, 6)
    spread([op.scale for op in shot], 0.05, 0.6)
    assert near((len(noises) + len(shot)) / COUNT, 0.5)
    jpegs = [sum(isinstance(op, Compress) for op in recipe.operations) for recipe in recipes]
    for count, probability in ((0, 0.7 * 0.3), (1, 0.7 * 0.7 + 0.3 * 0.3), (2, 0.3 * 0.7)):
        share([found == count for found in jpegs], probability)
    spread([op.quality for op in operations if isinstance(op, Compress)], 75, 95)
    blurs = [recipe.operations[0] for recipe in recipes]
    kernels = [op.kernel for op in blurs if isinstance(op, Filter)]
    share([kernel.kind == "none" for kernel in kernels], 0.5)
    spread([k.sigma_x for k in kernels if k.kind not in ("none", "sinc")], 0.2, 1.0)
    first = [op.height / 400 for op in column("light", 1) if isinstance(op, Scale)]
    share([factor == 1 for factor in first], 0.5)
    spread([factor for factor in first if factor < 1], 0.5, 1.0)


def test_medium() -> None:
    recipes = drawn("medium")
    operations = [op for recipe in recipes for op in recipe.operations]
    noises = [op for op in operations if isinstance(op, GaussianNoise | PoissonNoise)]
    assert len(noises) / COUNT == pytest.approx(0.8 + 0.5, abs=0.05)
    jpegs = [op for op in operations if isinstance(op, Compress)]
    assert len(jpegs) / COUNT == pytest.approx(0.8 + 1, abs=0.03)
    spread([op.quality for op in jpegs], 50, 95)
    assert max(op.sigma for op in noises if isinstance(op, GaussianNoise)) <= 15
    first = [op.kernel for op in column("medium", 0) if isinstance(op, Filter)]
    share([kernel.kind == "none" for kernel in first], 0.2)
    spread([k.sigma_x for k in first if k.kind not in ("none", "sinc")], 0.2, 2.0)
    scales = [op.height / 400 for op in column("medium", 1) if isinstance(op, Scale)]
    share([factor == 1 for factor in scales], 0.3)
    spread([factor for factor in scales if factor < 1], 0.3, 1.0)


def test_bsrgan_shuffles() -> None:
    first = Counter()
    for recipe in drawn("bsrgan"):
        kinds = [type(op) for op in recipe.operations]
        assert kinds[-2:] == [Compress, Round]
        assert kinds.count(Filter) in (2, 3)
        assert sum(kind is GaussianNoise for kind in kinds) == 1
        first[kinds[0]] += 1
    # Two of six steps blur; the first shrinking may be taken for the halving before.
    assert set(first) == {Filter, Scale, GaussianNoise, Compress}
    jpegs = [sum(isinstance(op, Compress) for op in r.operations) for r in drawn("bsrgan")]
    share([count == 2 for count in jpegs], 0.9)


def test_bsrgan_ranges() -> None:
    operations = [op for recipe in drawn("bsrgan") for op in recipe.operations]
    noises = [op for op in operations if isinstance(op, GaussianNoise)]
    share([op.gray for op in noises], 0.4)
    share([len(op.mix) == 9 for op in noises], 0.2)
    sigmas = {op.sigma for op in noises if not op.mix}
    assert sigmas == set(range(2, 26))
    qualities = {op.quality for op in operations if isinstance(op, Compress)}
    assert qualities == set(range(30, 96))
    blurs = [op.kernel for op in operations if isinstance(op, Filter) and not op.kernel.shift]
    assert {kernel.size for kernel in blurs} == set(range(7, 26, 2))
    share([kernel.kind == "aniso" for kernel in blurs], 0.5)
    assert max(k.sigma_x for k in blurs if k.kind == "iso") <= 2.8
    assert max(k.sigma_x for k in blurs) <= math.sqrt(8)
    strided = [any(isinstance(op, Scale) and op.mode == STRIDE for op in r.operations)
               for r in drawn("bsrgan")]  # fmt: skip
    share(strided, 0.25)
    shifts = {op.kernel.shift for op in operations if isinstance(op, Filter)}
    assert shifts == {0.0, 0.5, 1.5}
    firsts = [recipe.operations[0] for recipe in drawn("bsrgan")]
    halved = [isinstance(op, Scale) and (op.height, op.width) == (200, 200) for op in firsts]
    # Shrinking by exactly two as the first step is possible too, but rare.
    share(halved, 0.25)


@pytest.mark.parametrize("name", PRESETS)
def test_every_choice_is_drawn_per_sample(name: str) -> None:
    recipes = drawn(name)[:12]
    different = len({recipe.operations for recipe in recipes})
    assert different == (1 if name == "esrgan" else 12)
