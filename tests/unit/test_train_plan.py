"""The plan printed before a run is true."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from realesr_cli.cli.train_console import TrainConsole, plan_lines, scores_text
from realesr_cli.train.checkpoint import save_checkpoint
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.events import StageBegun, StepDone
from realesr_cli.train.files import TrainingImage, TrainingImages
from realesr_cli.train.machine import Machine
from realesr_cli.train.plan import checkpoint_bytes, disk_bytes, make_plan, stage_text
from realesr_cli.train.recipes import load_config
from realesr_cli.train.state import new_generator, new_stage
from realesr_cli.train.validation import Scores

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
    judge = plan.discriminator_parameters
    assert plan.checkpoint == checkpoint_bytes(small, plan.parameters, judge)


def test_the_plan_of_the_published_run(tmp_path: Path) -> None:
    plan = make_plan(config(), IMAGES, tmp_path / "not" / "there")
    assert (plan.parameters, plan.discriminator_parameters) == (16_697_987, 4_376_897)
    assert (plan.images, plan.held_out, plan.megapixels) == (3, 1, 6.0)
    assert (plan.steps, plan.batch) == (1_400_000, 12)
    assert plan.free > 0
    # Three checkpoints, the best, and one being written.
    assert plan.disk > 5 * plan.checkpoint
    without = disk_bytes(config("validation.every=0"), 100, 1000, scenes=4)
    assert without == 5 * 1000 + 400


def test_too_small_a_disk_is_told(tmp_path: Path) -> None:
    from dataclasses import replace

    plan = replace(make_plan(config(), IMAGES, tmp_path), free=10)
    lines = plan_lines(config(), plan, CPU, "runs/x")
    assert any("MORE THAN THERE IS" in line for line in lines)
    assert sum(line.startswith("stage") for line in lines) == 2


def test_a_stage_is_told_in_a_line() -> None:
    net, gan = config().stages
    assert stage_text(net) == "1,000,000 steps, L1 x 1, lr 0.0002, multistep"
    assert "perceptual (vgg19) x 1 + vanilla GAN x 0.1" in stage_text(gan)


def test_scores_are_told_with_what_they_are_held_against() -> None:
    start, bicubic = Scores(24.5, 0.7, 0.0, 0.3), Scores(24.0, 0.6, 0.0, 0.35)
    assert scores_text(Scores(24.25, 0.75, 0.0, 0.25), start, bicubic) == (
        "PSNR 24.250 dB (-0.250 since its start, bicubic 24.000), SSIM 0.7500 (+0.0500, bicubic "
        "0.6000), perceptual 0.2500 (-0.0500, bicubic 0.3500; less is better)"
    )
    assert "perceptual" not in scores_text(Scores(1, 1, 0), Scores(1, 1, 0), Scores(1, 1, 0))


def test_a_step_is_told_with_pace_and_rest(capsys: pytest.CaptureFixture[str]) -> None:
    console = TrainConsole()
    console(StageBegun("gan", 2, 2, 0, 100))
    losses = {"pixel": 0.25, "discriminator": 1.5, "lr": 1e-4}
    seconds = {"data": 0.1, "generator": 0.4}
    event = StepDone("gan", 10, 100, 60, 150, losses, seconds)
    console(event)
    assert console.step_line(event) == (
        "gan 10/100  pixel 0.2500 discriminator 1.5000  lr 1.00e-04  2.00 it/s  ETA 45 s  "
        "data 20% generator 80%"
    )
    assert "stage 2 of 2: gan, 100 steps" in capsys.readouterr().err
    quiet = TrainConsole(quiet=True)
    quiet(event)
    assert capsys.readouterr().err == ""
