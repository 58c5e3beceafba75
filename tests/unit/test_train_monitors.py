"""What a run says of itself, what fits in memory, and which machine it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from realesr_cli.errors import DeviceError, OutOfMemoryError
from realesr_cli.train import distributed, plan
from realesr_cli.train import machine as machines
from realesr_cli.train.config import StageConfig, TrainConfig
from realesr_cli.train.distributed import ALONE, World, join_world
from realesr_cli.train.events import Scores
from realesr_cli.train.machine import Machine, choose_machine
from realesr_cli.train.monitors import (
    LOGITS_AFTER,
    ValidationVerdict,
    assess_validation,
    best_by,
    watch_discriminator,
)
from realesr_cli.train.plan import (
    Fit,
    fit_batch,
    largest_fit,
    measure_step,
    propose_fit,
    smaller_patches,
)
from realesr_cli.train.recipes import load_config
from realesr_cli.train.settings import RuntimeConfig, ValidationConfig
from realesr_cli.train.state import TrainProgress

STAGE = load_config("realesrnet-x4").stages[0]
GAN = load_config("realesrgan-x4").stages[1]


def scored(
    progress: TrainProgress,
    psnr: float,
    config: ValidationConfig,
    stage: StageConfig = STAGE,
    color: float = 0.0,
    *,
    ssim: float = 0.5,
    perceptual: float | None = None,
    bicubic: float | None = None,
) -> ValidationVerdict:
    scores = Scores(psnr, ssim, color, perceptual)
    plain = None if bicubic is None else Scores(bicubic, 0.5, 0.0)
    return assess_validation(progress, scores, stage, config, plain)


def begun(psnr: float = 25.0, **more: float) -> TrainProgress:
    start = {"psnr": psnr, "ssim": 0.5, "color": 0.0, **more}
    return TrainProgress(stage_start=start, best=start)


def test_worse_than_the_start_is_reported_and_after_some_validations_stops() -> None:
    progress, config = begun(), ValidationConfig(best="psnr", patience=2, tolerance=0.3)
    assert scored(progress, 24.8, config).messages == ()
    first = scored(progress, 24.5, config)
    assert not first.stop
    assert "PSNR by 0.50 dB" in first.messages[0]
    second = scored(first.progress, 24.5, config)
    assert second.stop
    assert second.progress.worse == 2


@pytest.mark.parametrize(
    ("worse", "fact"),
    [
        ({"ssim": 0.45}, "SSIM by 0.0500"),
        ({"color": 3.5}, "off by 3.5"),
        ({"perceptual": 0.6}, "perceptual distance by 20%"),
    ],
)
def test_a_better_psnr_alone_is_not_the_best(worse: dict[str, float], fact: str) -> None:
    """An exploding run can raise the PSNR of its average while it loses all else."""
    stage = replace(STAGE, perceptual=replace(STAGE.perceptual, weight=1.0))
    progress = begun(20.0, perceptual=0.5)
    config = ValidationConfig(best="psnr", patience=2)
    good = scored(progress, 21.0, config, stage, perceptual=0.5)
    assert (good.best, good.messages) == (True, ())
    bad = scored(progress, 22.0, config, stage, **{"perceptual": 0.5, **worse})
    assert not bad.best
    assert fact in bad.messages[0]
    assert scored(bad.progress, 23.0, config, stage, **{"perceptual": 0.5, **worse}).stop


def test_a_run_below_bicubic_is_told_so() -> None:
    progress, config = begun(18.0), ValidationConfig(best="psnr")
    verdict = scored(progress, 20.0, config, bicubic=23.5)
    assert verdict.best
    assert "3.50 dB below bicubic" in verdict.messages[0]
    assert scored(progress, 23.5, config, bicubic=23.5).messages == ()
    # The start itself is no news, and a GAN lowers PSNR by design.
    assert scored(TrainProgress(), 18.0, config, bicubic=23.5).messages == ()
    assert scored(progress, 20.0, ValidationConfig(), GAN, bicubic=23.5).messages == ()


def test_the_best_perceptual_distance_is_the_lowest() -> None:
    progress = begun(perceptual=0.5)
    config = ValidationConfig(best="perceptual", perceptual="feat-squeeze")
    assert scored(progress, 25.0, config, perceptual=0.4).best
    assert not scored(progress, 25.0, config, perceptual=0.505).best


def test_a_better_validation_forgives_the_worse_ones() -> None:
    progress, config = begun(), ValidationConfig(best="psnr", patience=2)
    verdict = scored(scored(progress, 24.0, config).progress, 26.0, config)
    assert verdict.best
    assert (verdict.progress.worse, verdict.progress.best["psnr"]) == (0, 26.0)
    assert not scored(verdict.progress, 24.0, config).stop


def test_the_start_is_the_best_of_a_run_that_only_gets_worse() -> None:
    progress, config = begun(), ValidationConfig(best="psnr")
    verdict = scored(progress, 24.0, config)
    assert not verdict.best
    assert verdict.progress.best["psnr"] == 25.0


def test_psnr_does_not_select_the_best_of_an_adversarial_stage_unless_set() -> None:
    auto = ValidationConfig()
    assert (best_by(STAGE, auto), best_by(GAN, auto)) == ("psnr", "last")
    assert best_by(GAN, ValidationConfig(best="ssim")) == "ssim"
    progress = begun()
    verdict = scored(progress, 20.0, auto, GAN)
    assert verdict.best
    assert verdict.messages == ()
    assert not verdict.stop


def test_color_drift_is_reported_against_the_start() -> None:
    for stage in (STAGE, GAN):
        assert scored(begun(), 25.0, ValidationConfig(), stage, color=1.9).messages == ()
        verdict = scored(begun(), 25.0, ValidationConfig(), stage, color=3.5)
        assert "colors drift" in verdict.messages[0]


def logits(real: float, fake: float) -> dict[str, float]:
    return {"d_real": real, "d_fake": fake}


@pytest.mark.parametrize(
    ("real", "fake", "message"), [(9.0, -9.0, "has won"), (0.3, 0.3, "has collapsed")]
)
def test_a_discriminator_gone_wrong_is_reported_once(
    real: float, fake: float, message: str
) -> None:
    means: dict[str, float] = {}
    reported = {}
    for number in range(1, LOGITS_AFTER + 20):
        means, text = watch_discriminator(means, logits(real, fake))
        if text:
            reported[number] = text
    assert list(reported) == [LOGITS_AFTER]
    assert message in reported[LOGITS_AFTER]


def test_a_healthy_discriminator_is_left_alone() -> None:
    means: dict[str, float] = {}
    for _ in range(2 * LOGITS_AFTER):
        means, text = watch_discriminator(means, logits(0.7, -0.4))
        assert text == ""


def memory(limit: int, tried: list[tuple[int, int]] | None = None):
    """A trial that fails as a GPU does beyond so many pixels."""

    def trial(batch: int, patch: int) -> None:
        if tried is not None:
            tried.append((batch, patch))
        if batch * patch**2 > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return trial


def test_the_largest_divisor_of_the_batch_that_fits_is_taken() -> None:
    fit = largest_fit(memory(5 * 64**2), batch=12, accumulate=1, patches=(64,))
    assert fit == Fit(4, 3, 64)
    assert largest_fit(memory(10**9), batch=12, accumulate=2, patches=(64,)) == Fit(12, 2, 64)


def test_smaller_patches_are_tried_only_when_no_batch_fits() -> None:
    tried: list[tuple[int, int]] = []
    fit = largest_fit(memory(2 * 32**2, tried), batch=4, accumulate=1, patches=smaller_patches(64))
    assert fit == Fit(2, 2, 32)
    assert tried == [(4, 64), (2, 64), (1, 64), (4, 32), (2, 32)]
    assert largest_fit(memory(1), batch=4, accumulate=1, patches=smaller_patches(64)) is None
    assert smaller_patches(100) == (100, 48, 24)


def test_errors_other_than_memory_are_not_swallowed() -> None:
    def trial(batch: int, patch: int) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        largest_fit(trial, batch=4, accumulate=1, patches=(64,))


def config(*sets: str, recipe: str = "realesrgan-x4") -> TrainConfig:
    return load_config(recipe, list(sets))


def test_an_automatic_batch_keeps_the_effective_one() -> None:
    found = fit_batch(config(), Machine(torch.device("cpu")), memory(3 * 64**2))
    assert (found.data.batch, found.data.accumulate, found.data.patch) == (3, 4, 64)


def test_no_batch_that_fits_is_an_error_with_a_proposal() -> None:
    cpu = Machine(torch.device("cpu"))
    with pytest.raises(OutOfMemoryError, match=r"data\.patch=32"):
        fit_batch(config(), cpu, memory(32**2))
    with pytest.raises(OutOfMemoryError, match="smaller network"):
        fit_batch(config(), cpu, memory(1))
    # The VGG discriminator takes one size only.
    with pytest.raises(OutOfMemoryError, match="smaller network"):
        fit_batch(config(recipe="esrgan-x4"), cpu, memory(16**2))


def test_after_running_out_less_than_was_tried_is_proposed() -> None:
    text = propose_fit(config(), Machine(torch.device("cpu")), memory(10**9))
    assert "data.batch=6, data.accumulate=2" in text


def test_a_step_of_every_stage_can_be_measured() -> None:
    small = config(
        "generator.blocks=1", "generator.features=4", "generator.growth=2", "data.patch=8",
        "discriminator.features=2", "perceptual.weight=0",
    )  # fmt: skip
    cpu = Machine(torch.device("cpu"))
    costs = [measure_step(small, cpu, stage) for stage in (0, 1)]
    assert all(0 < cost.fastest <= cost.seconds <= cost.slowest for cost in costs)
    assert all(cost.peak_bytes is None for cost in costs)


def test_the_estimate_is_the_median_of_steps_with_their_degradation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not of the first step, which allocates, nor of the network alone."""
    small = config("generator.kind=compact", "generator.blocks=1", "generator.features=2",
                   "perceptual.weight=0", "data.patch=8", "data.batch=1")  # fmt: skip
    seconds = iter((2.0, 0.25, 1.0, 0.5, 0.75, 0.5))
    usual, clock = plan.degrade_crops, [0.0]

    def degrade(*args: object) -> object:
        clock[0] += next(seconds)
        return usual(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(plan, "degrade_crops", degrade)
    monkeypatch.setattr(plan.time, "perf_counter", lambda: clock[0])
    cost = measure_step(small, Machine(torch.device("cpu")), 0)
    assert (cost.seconds, cost.fastest, cost.slowest) == (0.5, 0.25, 1.0)


def test_the_machine_is_chosen_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, precision in ((frozenset({"avx2"}), "fp32"), (frozenset({"avx512_bf16"}), "bf16")):
        monkeypatch.setattr(machines, "cpu_flags", lambda found=flags: found)
        found = choose_machine(RuntimeConfig(device="cpu"))
        assert found == Machine(torch.device("cpu"), precision, channels_last=True)
    assert choose_machine(RuntimeConfig(device="cpu", precision="bf16")).dtype == torch.bfloat16
    with pytest.raises(DeviceError, match="fp16 needs a GPU"):
        choose_machine(RuntimeConfig(device="cpu", precision="fp16"))
    with pytest.raises(DeviceError, match="unknown device 'gpu'"):
        choose_machine(RuntimeConfig(device="gpu"))
    monkeypatch.setattr(machines.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match="cuda:3"):
        choose_machine(RuntimeConfig(device="cuda:3"))


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_gets_bf16_where_it_is_native(
    monkeypatch: pytest.MonkeyPatch, native: bool, precision: str
) -> None:
    monkeypatch.setattr(machines.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        machines.torch.cuda, "is_bf16_supported", lambda including_emulation=True: native
    )
    found = choose_machine(RuntimeConfig())
    assert (str(found.device), found.precision, found.channels_last) == ("cuda:0", precision, True)


def test_processes_share_the_streams_of_a_step() -> None:
    assert ALONE.streams(4) == (0, 1, 2, 3)
    assert [World(rank, 2).streams(2) for rank in (0, 1)] == [(0, 1), (2, 3)]
    values = torch.tensor([1.0, 2.0])
    assert ALONE.mean(values) is values
    assert ALONE.any(True)
    assert ALONE.share("here") == "here"
    with join_world("cpu") as (world, device):
        assert (world, device) == (ALONE, "cpu")


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_every_process_gets_its_own_gpu_and_waits_through_gloo(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, object]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda name: calls.append(("device", name)))
    dist = distributed.dist
    monkeypatch.setattr(
        dist, "init_process_group", lambda backend, **more: calls.append(("init", backend))
    )
    monkeypatch.setattr(dist, "new_group", lambda **more: more)
    monkeypatch.setattr(dist, "barrier", lambda group: calls.append(("wait", group["backend"])))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    with join_world(device) as (world, own):
        assert (world.rank, world.size, own) == (3, 4, "cuda:1")
        # Waiting for the first process is not subject to NCCL's ten minutes.
        assert world.control["timeout"].total_seconds() > 3600
    assert calls == [("device", "cuda:1"), ("init", "nccl"), ("wait", "gloo")]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(DeviceError, match="at most 2"), join_world(device):
        pass
