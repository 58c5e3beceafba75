"""Updates: averages, schedules, accumulation, clipping, and steps that must not happen."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from realesr_cli.degrade.pairs import Pair
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.machine import Machine, Stopwatch
from realesr_cli.train.recipes import load_config
from realesr_cli.train.settings import ScheduleConfig
from realesr_cli.train.state import (
    TrainState,
    learning_rate,
    new_discriminator,
    new_generator,
    new_stage,
    set_learning_rates,
    update_ema,
)
from realesr_cli.train.step import (
    Gradients,
    StageSetup,
    StepGradients,
    StepResult,
    apply_gradients,
    discriminator_gradients,
    generate,
    generator_gradients,
    generator_losses,
    make_setup,
    train_step,
)

CPU = Machine(torch.device("cpu"))

TINY = (
    "generator.kind=compact", "generator.blocks=1", "generator.features=4", "data.patch=4",
    "discriminator.features=2", "perceptual.weight=0", "data.batch=2",
)  # fmt: skip


def tiny(*more: str, recipe: str = "realesrgan-x4") -> TrainConfig:
    return load_config(recipe, [*TINY, *more])


def started(
    config: TrainConfig, stage: int = 1, machine: Machine = CPU
) -> tuple[TrainState, StageSetup]:
    state = new_stage(config, machine, stage=stage, generator=new_generator(config))
    return state, make_setup(config, machine, state, networks={})


def one_step(state: TrainState, setup: StageSetup, *pairs: Pair) -> StepResult:
    return train_step(state, setup, pairs, Stopwatch(setup.machine))


def step_generator(state: TrainState, setup: StageSetup, *pairs: Pair) -> Gradients:
    gradients = generator_gradients(state, setup, pairs)
    apply_gradients(state, setup, StepGradients(gradients, None))
    return gradients


def step_discriminator(
    state: TrainState, setup: StageSetup, pairs: tuple[Pair, ...], fakes: tuple[Tensor, ...]
) -> Gradients:
    gradients = discriminator_gradients(state, setup, pairs, fakes)
    apply_gradients(state, setup, StepGradients(None, gradients))
    return gradients


def pair(batch: int = 2, seed: int = 0) -> Pair:
    rng = torch.Generator().manual_seed(seed)
    lq = torch.rand(batch, 3, 4, 4, generator=rng)
    gt, sharp = (torch.rand(batch, 3, 16, 16, generator=rng) for _ in range(2))
    return Pair(lq, gt, sharp)


def weights(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def rates(schedule: ScheduleConfig, base: float, *steps: int) -> list[float]:
    return [learning_rate(schedule, base, step=step, iterations=1000) for step in steps]


def test_multistep_halves_after_each_milestone() -> None:
    schedule = load_config("esrgan-x4").stages[1].schedule
    found = rates(schedule, 1e-4, 0, 49_999, 50_000, 100_000, 299_999, 300_000, 399_999)
    assert found == pytest.approx([1e-4, 1e-4, 5e-5, 2.5e-5, 1.25e-5, 6.25e-6, 6.25e-6])


def test_cosine_falls_and_starts_again() -> None:
    schedule = ScheduleConfig("cosine", period=250_000, min_lr=1e-7)
    found = rates(schedule, 2e-4, 0, 62_500, 125_000, 250_000)
    assert found == pytest.approx([2e-4, 1.7072532e-4, 1.0005e-4, 2e-4], rel=1e-7)
    whole_stage = ScheduleConfig("cosine", min_lr=0)
    assert rates(whole_stage, 1.0, 500) == pytest.approx([0.5])


def test_warmup_rises_from_nothing() -> None:
    schedule = ScheduleConfig("constant", warmup=4)
    assert rates(schedule, 1.0, 0, 1, 3, 4, 50) == [0.25, 0.5, 1.0, 1.0, 1.0]


def test_both_networks_get_their_rates() -> None:
    config = tiny("optimizer.discriminator_lr=3e-4", "schedule.kind=constant")
    state, setup = started(config)
    assert set_learning_rates(state, setup.stage) == {"lr": 1e-4, "d_lr": 3e-4}
    assert state.optimizer.param_groups[0]["lr"] == 1e-4
    assert state.d_optimizer is not None
    assert state.d_optimizer.param_groups[0]["lr"] == 3e-4


@pytest.mark.parametrize(("steps", "wanted"), [(1, 0.001), (693, 0.5000998), (5000, 0.9932789)])
def test_the_average_of_a_unit_step(steps: int, wanted: float) -> None:
    averaged, net = nn.Linear(1, 1, bias=False).double(), nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(averaged.weight)
    nn.init.ones_(net.weight)
    for _ in range(steps):
        update_ema(averaged, net, 0.999)
    assert float(averaged.weight.detach()) == pytest.approx(wanted, abs=1e-6)


def test_without_averaging_the_average_is_the_network() -> None:
    averaged, net = nn.Linear(3, 3), nn.Linear(3, 3)
    update_ema(averaged, net, 0.0)
    assert same(weights(averaged), weights(net))


def test_random_starts_depend_on_seed_and_stage_alone() -> None:
    a, b = tiny(), tiny("seed=1")
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    assert same(weights(new_generator(a)), weights(new_generator(a)))
    assert not same(weights(new_generator(a)), weights(new_generator(b)))
    assert same(weights(new_discriminator(a, 1)), weights(new_discriminator(a, 1)))
    assert not same(weights(new_discriminator(a, 1)), weights(new_discriminator(a, 0)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_compact_network_starts_as_its_skip_with_its_features_alive() -> None:
    config = load_config("compact-x4", ["generator.features=16"])
    net = new_generator(config)
    x = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = net.body[:-1](x)  # type: ignore[index]
        nearest = torch.nn.functional.interpolate(x, scale_factor=4, mode="nearest")
        assert float((net(x) - nearest).abs().max()) < 0.1
        # Pixels differ at the end as they do at the start; torch's own start leaves them alike.
        assert float(features.std(dim=(2, 3)).mean()) > 0.05
        tired = config.architecture.build()
        assert float(tired.body[:-1](x).std(dim=(2, 3)).mean()) < 0.01  # type: ignore[index]


def test_accumulated_batches_make_the_step_of_one_large_batch() -> None:
    config = tiny()
    parts = [pair(2, seed) for seed in (1, 2, 3)]
    joined = Pair(*(torch.cat([getattr(p, n) for p in parts]) for n in ("lq", "gt", "gt_usm")))
    outcomes = []
    for batches in (parts, [joined]):
        state, setup = started(config)
        assert state.discriminator is not None
        result = one_step(state, setup, *batches)
        changed = [*weights(state.generator), *state.discriminator.state_dict().values()]
        stats = {k: v for k, v in result.stats.items() if "lr" not in k}
        outcomes.append((result.losses | stats, changed))
    (losses_a, weights_a), (losses_b, weights_b) = outcomes
    assert losses_a == pytest.approx(losses_b, rel=1e-4)
    for a, b in zip(weights_a, weights_b, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-6)


def test_an_update_moves_the_generator_its_average_and_the_discriminator() -> None:
    state, setup = started(tiny())
    assert state.discriminator is not None
    before = [weights(net) for net in (state.generator, state.ema, state.discriminator)]
    gradients = step_generator(state, setup, pair())
    assert gradients.finite
    assert set(gradients.losses) == {"pixel", "gan"}
    assert set(gradients.stats) == {"generator", "norm"}
    assert not same(before[0], weights(state.generator))
    assert not same(before[1], weights(state.ema))
    assert same(before[2], weights(state.discriminator))
    assert all(p.grad is None for p in state.discriminator.parameters())
    step_discriminator(state, setup, (pair(),), gradients.fakes)
    assert not same(before[2], weights(state.discriminator))


def test_the_discriminator_sees_fakes_made_before_the_update() -> None:
    state, setup = started(tiny())
    batch = pair()
    before = generate(setup, [batch])[0]
    gradients = step_generator(state, setup, batch)
    assert torch.equal(gradients.fakes[0], before)
    assert not gradients.fakes[0].requires_grad
    assert not torch.equal(generate(setup, [batch])[0], before)


def test_each_loss_compares_with_the_ground_truth_it_asks_for() -> None:
    batch = pair()
    for sharpened in (True, False):
        state, setup = started(tiny(f"pixel.sharpened={str(sharpened).lower()}"), stage=0)
        fake = torch.zeros_like(batch.gt)
        terms = generator_losses(setup, fake, batch)
        real = batch.gt_usm if sharpened else batch.gt
        assert float(terms["pixel"]) == pytest.approx(float(real.mean()))
        assert state.discriminator is None


def test_only_the_generators_term_has_the_adversarial_weight() -> None:
    results = []
    for weight in (0.1, 0.2):
        state, setup = started(tiny(f"gan.weight={weight}"))
        losses = one_step(state, setup, pair()).losses
        results.append((losses["gan"], losses["discriminator"]))
    assert results[1][0] == pytest.approx(2 * results[0][0])
    assert results[1][1] == pytest.approx(results[0][1], rel=1e-5)


def broken(number: float) -> Pair:
    batch = pair()
    return dataclasses.replace(batch, gt_usm=torch.full_like(batch.gt, number))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_changes_nothing(number: float) -> None:
    state, setup = started(tiny())
    step_generator(state, setup, pair())
    before = [weights(state.generator), weights(state.ema)]
    moments = copy.deepcopy(state.optimizer.state_dict()["state"])
    assert one_step(state, setup, pair(), broken(number)).skipped
    assert same(before[0], weights(state.generator))
    assert same(before[1], weights(state.ema))
    after = state.optimizer.state_dict()["state"]
    assert all(torch.equal(after[k]["exp_avg"], moments[k]["exp_avg"]) for k in moments)
    assert all(p.grad is None for p in state.generator.parameters())


def test_a_broken_discriminator_step_changes_nothing_either() -> None:
    state, setup = started(tiny())
    assert state.discriminator is not None
    before = weights(state.discriminator)
    nan = (torch.full((2, 3, 16, 16), math.nan),)
    assert not step_discriminator(state, setup, (pair(),), nan).finite
    assert same(before, weights(state.discriminator))


def test_a_stage_without_discriminator_has_no_discriminator_step() -> None:
    state, setup = started(tiny(), stage=0)
    with pytest.raises(ValueError, match="no discriminator"):
        discriminator_gradients(state, setup, (pair(),), ())


def test_gradients_are_clipped_to_their_norm() -> None:
    for clip in (0.0, 1e-3):
        config = tiny(f"optimizer.clip={clip}")
        state, setup = started(config, stage=0)
        norm = generator_gradients(state, setup, (pair(),)).stats["norm"]
        found = [p.grad for p in state.generator.parameters() if p.grad is not None]
        length = math.sqrt(sum(float((g**2).sum()) for g in found))
        assert length == pytest.approx(clip or norm, rel=1e-3)
        assert norm > 1e-3


def scaled(state: TrainState) -> TrainState:
    """A state as a GPU without bf16 has it, with loss scalers."""
    state.scaler = GradScaler("cpu", init_scale=1024.0)
    state.d_scaler = GradScaler("cpu", init_scale=1024.0)
    return state


def test_scaling_the_loss_changes_neither_update_nor_clipping() -> None:
    ends = []
    for prepare in (scaled, lambda state: state):
        state, setup = started(tiny("optimizer.clip=0.01"))
        prepare(state)
        result = one_step(state, setup, pair(2, 1), pair(2, 2))
        ends.append((result.losses | result.stats, weights(state.generator)))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-5)
    for a, b in zip(ends[0][1], ends[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_loss_that_is_not_finite_is_skipped_and_too_large_a_scale_lowered() -> None:
    state, setup = started(tiny("pixel.weight=1e6"))
    scaled(state)
    before = weights(state.generator)
    assert state.scaler is not None
    assert one_step(state, setup, broken(math.nan)).skipped
    assert same(before, weights(state.generator))
    # Gradients too large for the scale alone are the scaler's own affair, not a failed step.
    state.scaler = GradScaler("cpu", init_scale=2.0**127)
    assert not one_step(state, setup, pair()).skipped
    assert same(before, weights(state.generator))
    assert state.scaler.get_scale() < 2.0**127


def test_mixed_precision_keeps_single_precision_weights_and_losses() -> None:
    state, setup = started(tiny(), machine=Machine(torch.device("cpu"), "bf16"))
    gradients = step_generator(state, setup, pair())
    assert gradients.finite
    assert step_discriminator(state, setup, (pair(),), gradients.fakes).finite
    assert all(p.dtype == torch.float32 for p in state.generator.parameters())
    assert gradients.fakes[0].dtype == torch.float32
    wanted = step_generator(*started(tiny()), pair()).losses
    assert gradients.losses == pytest.approx(wanted, rel=0.05)


def test_training_lowers_the_loss() -> None:
    state, setup = started(tiny("optimizer.lr=3e-3"), stage=0)
    losses = [one_step(state, setup, pair()).losses["pixel"] for _ in range(60)]
    assert losses[-1] < 0.8 * losses[0]


def test_the_generator_is_compiled_if_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only as it is called: the weights that are saved keep their names."""
    compiled: list[nn.Module] = []

    def compile_network(net: nn.Module) -> nn.Module:
        compiled.append(net)
        return nn.Sequential(net)

    monkeypatch.setattr(torch, "compile", compile_network)
    config = tiny()
    machine = Machine(torch.device("cpu"), compile=True)
    state = new_stage(config, machine, stage=0, generator=new_generator(config))
    setup = make_setup(config, machine, state, networks={})
    assert compiled == [state.generator]
    assert isinstance(setup.generator, nn.Sequential)
    assert not isinstance(state.generator, nn.Sequential)
    assert make_setup(config, CPU, state, networks={}).generator is state.generator


def test_both_optimizers_can_be_chosen() -> None:
    for kind, wanted in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        state, _ = started(tiny(f"optimizer.kind={kind}", "optimizer.weight_decay=0.1"))
        assert type(state.optimizer) is wanted
        assert type(state.d_optimizer) is wanted
        assert state.optimizer.param_groups[0]["weight_decay"] == 0.1
