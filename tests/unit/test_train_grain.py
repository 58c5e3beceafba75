"""Training a network that has grain: its strength is learned, and fidelity does not put it out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from realesr_cli.degrade.pairs import Pair
from realesr_cli.errors import ConfigError
from realesr_cli.nets.compact import Compact
from realesr_cli.nets.grain import UNIT, has_grain, parts, with_parts
from realesr_cli.ops.color import luma_studio
from realesr_cli.ops.detail import detail_energy
from realesr_cli.ops.filters import gaussian_taps, separable_filter
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.distributed import ALONE
from realesr_cli.train.losses import (
    CONTRAST_SHARE,
    GRAIN_FLOOR,
    grain_loss,
    pixel_loss,
    structure_loss,
)
from realesr_cli.train.machine import choose_machine
from realesr_cli.train.recipes import load_config
from realesr_cli.train.starting import starting_generator
from realesr_cli.train.state import TrainState, new_generator, new_stage
from realesr_cli.train.step import Setup, generate, generator_terms, update_generator
from realesr_cli.weights.files import model_metadata, save_safetensors

SMALL = ("generator.blocks=6", "generator.features=32", "runtime.precision=fp32")


def config(*more: str) -> TrainConfig:
    return load_config("compact-x4", [*SMALL, *more])


def started(settings: TrainConfig) -> tuple[TrainState, Setup]:
    machine = choose_machine(settings.runtime, device="cpu")
    state = new_stage(settings, machine, stage=0, generator=new_generator(settings))
    net = with_parts(state.generator)
    return state, Setup(settings.stages[0], machine, ALONE, net, None, None, 0.9, grain=True)


def pair(seed: int, *, texture: float = 0.1, side: int = 24) -> Pair:
    """A soft low-quality picture whose ground truth has as much fine noise as asked for."""
    rng = torch.Generator().manual_seed(seed)
    lq = (torch.rand(2, 3, side, side, generator=rng) * 8).round() / 255 + 0.5
    gt = torch.nn.functional.interpolate(lq, scale_factor=4, mode="bilinear")
    gt = gt + texture * torch.randn(gt.shape, generator=rng)
    return Pair(lq, gt, gt)


def best_strength(clean: torch.Tensor, gt: torch.Tensor) -> float:
    """The even strength that the loss likes best."""
    strengths = torch.linspace(0, 1.5, 151)
    size = (gt.shape[0], 1, gt.shape[2] // 4, gt.shape[3] // 4)
    losses = [float(grain_loss(s.expand(size), clean, gt, unit=UNIT)) for s in strengths]
    return float(strengths[losses.index(min(losses))])


def fine_deviation(pictures: torch.Tensor) -> float:
    luma = luma_studio(pictures)
    fine = luma - separable_filter(luma, gaussian_taps(7, 1.0))
    return float(fine.square().mean().sqrt())


@pytest.mark.parametrize("texture", [0.05, 0.1])
def test_the_loss_is_nought_where_the_strength_is_that_of_the_detail(texture: float) -> None:
    gt = pair(0, texture=texture).gt
    smooth = torch.full_like(gt, 0.5)
    right = torch.full((2, 1, 24, 24), (fine_deviation(gt) - GRAIN_FLOOR) / UNIT)
    factors = (0.25, 0.5, 1.0, 2.0, 4.0)
    losses = [float(grain_loss(k * right, smooth, gt, unit=UNIT)) for k in factors]
    assert losses[2] < 0.05
    assert losses[0] > losses[1] > losses[2] < losses[3] < losses[4]


def test_flat_ground_truth_asks_for_none() -> None:
    flat = torch.full((1, 3, 96, 96), 0.5)
    none, some = torch.zeros(1, 1, 24, 24), torch.full((1, 1, 24, 24), 0.3)
    assert float(grain_loss(none, flat, flat, unit=UNIT)) == pytest.approx(0, abs=1e-4)
    assert float(grain_loss(some, flat, flat, unit=UNIT)) > 1


def test_an_edge_in_a_smooth_place_asks_for_hardly_any() -> None:
    edge = torch.full((1, 3, 96, 96), 0.3)
    edge[..., 48:] = 0.7
    noisy = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    noisy = 0.5 + noisy * fine_deviation(edge) / fine_deviation(noisy)
    smooth = torch.full_like(edge, 0.5)
    assert best_strength(smooth, edge) < best_strength(smooth, noisy) / 4


def test_grain_and_contrast_of_the_clean_picture_make_up_the_detail_together() -> None:
    gt = pair(0, texture=0.04).gt
    alone = best_strength(torch.full_like(gt, 0.5), gt)
    assert alone * UNIT == pytest.approx(fine_deviation(gt) - GRAIN_FLOOR, rel=0.1)
    contrast = CONTRAST_SHARE * float(detail_energy(gt, 4, 4.0).mean()) / (alone * UNIT) ** 2
    shares = torch.linspace(0, 2, 9)
    found = [best_strength(0.5 + share * (gt - 0.5), gt) / alone for share in shares]
    for share, one in zip(shares.tolist(), found, strict=True):
        assert one**2 == pytest.approx(max(0, 1 - contrast * share**2), abs=0.06)
    assert found[-1] == 0


def test_there_is_no_grain_beside_an_edge_and_all_of_it_further_off() -> None:
    gt = pair(0, texture=0.04).gt
    edge = torch.full_like(gt, 0.5)
    edge[..., 48:] = 0.9
    strength = torch.full((2, 1, 24, 24), 0.5, requires_grad=True)
    optimiser = torch.optim.Adam([strength], lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        grain_loss(strength, edge, gt, unit=UNIT).backward()
        optimiser.step()
    columns = strength.detach().mean((0, 1, 2)) * UNIT / (fine_deviation(gt) - GRAIN_FLOOR)
    assert float(columns[11:13].max()) < 0.2
    assert float(columns[:4].min()) > 0.9


def test_the_strength_asks_nothing_of_the_clean_picture() -> None:
    gt = pair(0).gt
    clean = (gt * 0.5).requires_grad_(True)
    strength = torch.ones(2, 1, 24, 24, requires_grad=True)
    grain_loss(strength, clean, gt, unit=UNIT).backward()
    assert clean.grad is None
    assert strength.grad is not None


def test_losses_of_fidelity_see_the_picture_without_grain() -> None:
    settings = config("generator.grain=1", "structure.weight=0.5", "grain.weight=0.1")
    state, setup = started(settings)
    assert isinstance(state.generator, Compact)
    batch = pair(1)
    with torch.no_grad():
        found = parts(state.generator, batch.lq)
    terms = generator_terms(setup, None, found.picture, batch, found)
    assert set(terms) == {"pixel", "structure", "grain"}
    assert float(terms["pixel"]) == pytest.approx(float(pixel_loss(found.clean, batch.gt)))
    structure = 0.5 * structure_loss(found.clean, batch.gt)
    assert float(terms["structure"]) == pytest.approx(float(structure))
    assert float(terms["grain"]) > 0


def test_the_strength_follows_the_ground_truth_and_the_rest_stays_fixed() -> None:
    settings = config("generator.grain=1", "grain.weight=0.2")
    strengths = {}
    for texture in (0.005, 0.1):
        state, setup = started(settings)
        assert isinstance(state.generator, Compact)
        fixed = state.generator.body[0].weight.detach()[-4:].clone()
        for group in state.optimiser.param_groups:
            group["lr"] = 5e-3
        for step in range(30):
            update_generator(state, setup, [pair(step, texture=texture)])
        with torch.no_grad():
            strengths[texture] = float(parts(state.generator, pair(99).lq).strength.mean())
        assert torch.equal(state.generator.body[0].weight.detach()[-4:], fixed)
        assert has_grain(state.ema)
    assert strengths[0.1] > 2 * max(strengths[0.005], 0.01)


def test_pictures_of_a_step_have_the_grain_that_is_judged() -> None:
    state, setup = started(config("generator.grain=1"))
    batch = pair(2)
    with torch.no_grad():
        whole = state.generator(batch.lq)
    assert torch.allclose(generate(setup, [batch])[0], whole, atol=1e-5)
    assert torch.allclose(update_generator(state, setup, [batch]).fakes[0], whole, atol=1e-5)


def test_a_file_without_grain_gets_it_and_one_with_it_keeps_what_it_learned(
    tmp_path: Path,
) -> None:
    plain = new_generator(config())
    path = tmp_path / "plain.safetensors"
    save_safetensors(path, plain.state_dict(), model_metadata(plain.architecture))
    net = starting_generator(config("generator.grain=0.5", f"generator.init={path}"))
    assert has_grain(net)
    again = tmp_path / "grained.safetensors"
    save_safetensors(again, net.state_dict(), model_metadata(plain.architecture))
    kept = starting_generator(config(f"generator.init={again}"))
    for key, value in net.state_dict().items():
        assert torch.equal(kept.state_dict()[key], value)


@pytest.mark.parametrize("setting", ["generator.kind=srresnet", "generator.blocks=4"])
def test_networks_that_cannot_have_grain_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="grain needs a Compact network"):
        new_generator(config("generator.grain=0.5", setting))
