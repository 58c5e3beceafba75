"""The plan printed before a run is true."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from realesr_cli.cli.train_console import TrainConsole, format_scores, plan_lines
from realesr_cli.train.checkpoint import save_checkpoint
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.events import Scores, StageStarted, StepDone
from realesr_cli.train.files import TrainingImage, TrainingImages
from realesr_cli.train.machine import Machine
from realesr_cli.train.plan import checkpoint_bytes, describe_stage, disk_bytes, make_plan
from realesr_cli.train.recipes import load_config
from realesr_cli.train.state import new_generator, new_stage

CPU = Machine(torch.device("cpu"))
IMAGES = TrainingImages(
    (TrainingImage(Path("a"), 1000, 2000),) * 3, (TrainingImage(Path("b"), 10, 10),), ()
)


def config(*sets: str) -> TrainConfig:
    return load_config("realesrgan-x4", list(sets))


@pytest.mark.parametrize("pool", [0, 24])
def test_a_checkpoint_is_as_large_as_planned(tmp_path: Path, pool: int) -> None:
    small = config(
        "generator.kind=compact", "generator.blocks=4", "discriminator.features=8",
        "perceptual.weight=0", f"degradation.pool={pool}", "data.patch=16",
    )  # fmt: skip
    state = new_stage(small, CPU, stage=1, generator=new_generator(small))
    assert state.d_optimizer is not None
    for optimizer in (state.optimizer, state.d_optimizer):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.zeros_like(p)
        optimizer.step()
    if state.pool is not None:
        lq, gt = torch.rand(24, 3, 16, 16), torch.rand(24, 3, 64, 64)
        state.pool.load_state_dict({"lq": lq, "gt": gt, "gt_usm": gt})
    plan = make_plan(small, IMAGES, tmp_path)
    written = save_checkpoint(tmp_path, state, small).stat().st_size
    assert written == pytest.approx(plan.checkpoint, rel=0.1)
    count = plan.discriminator_parameters
    assert plan.checkpoint == checkpoint_bytes(small, plan.parameters, count)


def test_the_plan_of_the_published_run(tmp_path: Path) -> None:
    plan = make_plan(config(), IMAGES, tmp_path / "not" / "there")
    assert (plan.parameters, plan.discriminator_parameters) == (16_697_987, 4_376_897)
    assert (plan.images, plan.held_out, plan.megapixels) == (3, 1, 6.0)
    assert (plan.steps, plan.batch) == (1_400_000, 12)
    assert plan.free > 0
    # Three checkpoints, the best, and one being written.
    assert plan.disk > 5 * plan.checkpoint
    without = disk_bytes(config("validation.every=0"), 100, 1000, samples=4)
    assert without == 5 * 1000 + 400


def test_too_small_a_disk_is_reported(tmp_path: Path) -> None:
    from dataclasses import replace

    plan = replace(make_plan(config(), IMAGES, tmp_path), free=10)
    lines = plan_lines(config(), plan, CPU, "runs/x")
    assert any("NOT ENOUGH" in line for line in lines)
    assert sum(line.startswith("stage") for line in lines) == 2


def test_a_stage_is_described_in_a_line() -> None:
    net, gan = config().stages
    assert describe_stage(net) == "1,000,000 steps, L1 x 1, lr 0.0002, multistep"
    assert "perceptual (vgg19) x 1 + vanilla GAN x 0.1" in describe_stage(gan)


def test_scores_are_shown_with_what_they_are_compared_with() -> None:
    start, bicubic = Scores(24.5, 0.7, 0.0, 0.3), Scores(24.0, 0.6, 0.0, 0.35)
    text = format_scores(Scores(24.25, 0.75, 0.0, 0.25), start, bicubic)
    for part in ("24.250 dB (-0.250 ", "bicubic 24.000", "0.7500 (+0.0500, bicubic 0.6000)"):
        assert part in text
    assert "perceptual 0.2500 (-0.0500, bicubic 0.3500" in text
    assert "perceptual" not in format_scores(Scores(1, 1, 0), Scores(1, 1, 0), Scores(1, 1, 0))


def test_a_step_is_shown_with_pace_and_remaining_time(capsys: pytest.CaptureFixture[str]) -> None:
    console = TrainConsole()
    console(StageStarted("gan", 2, 2, 0, 100))
    losses, stats = {"pixel": 0.25, "discriminator": 1.5}, {"lr": 1e-4}
    seconds = {"data": 0.1, "generator": 0.4}
    event = StepDone("gan", 10, 100, 60, 150, losses, stats, seconds, 0.5)
    console(event)
    assert console.step_line(event) == (
        "gan 10/100  pixel 0.2500 discriminator 1.5000  lr 1.00e-04  2.00 it/s  ETA 45 s  "
        "data 20% generator 80%"
    )
    assert "stage 2 of 2: gan, 100 steps" in capsys.readouterr().err
    quiet = TrainConsole(quiet=True)
    quiet(event)
    assert capsys.readouterr().err == ""
