"""`realesr train` as a user meets it: plan, run, signals, printed configuration, bad input."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import SETS, make_images

from realesr_cli.cli.main import run
from realesr_cli.cli.train_console import TrainConsole
from realesr_cli.train import loop
from realesr_cli.train.checkpoint import list_checkpoints, read_checkpoint
from realesr_cli.train.events import StepDone
from realesr_cli.train.recipes import load_config
from realesr_cli.train.step import StepResult


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with images in `photos`."""
    make_images(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    # More threads than one only wait for each other on networks this small.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def realesr(*args: str) -> int:
    with pytest.raises(SystemExit) as left:
        run(list(args))
    return int(left.value.code or 0)


def train(*args: str, tiny: bool = True) -> int:
    sets = [item for text in SETS for item in ("--set", text)] if tiny else []
    return realesr("train", "--device", "cpu", *sets, *args)


def test_the_plan_comes_first_and_the_run_is_a_model(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moving = ("--set", "ema.decay=0", "--lr", "0.01")
    assert train("--data", "photos", "--recipe", "realesrgan-x4", *moving) == 0
    out, err = capsys.readouterr()
    lines = err.splitlines()
    for start in ("recipe", "network", "images", "batch", "machine", "stage 1", "disk", "cost"):
        assert any(line.startswith(start) for line in lines[:9]), start
    first_step = next(i for i, line in enumerate(lines) if line.startswith("psnr 1/4"))
    assert first_step > 8
    assert "it/s  ETA" in lines[first_step]
    assert any("bicubic" in line and "since the start" in line for line in lines)
    assert any("since the start of the run" in line for line in lines)
    summary = json.loads(out)
    assert set(summary) == {"generator", "scores", "stage_start", "run_start"}
    assert summary["generator"] == "runs/realesrgan-x4/generator.safetensors"
    Image.fromarray(np.full((9, 10, 3), 99, np.uint8)).save("photo.png")
    assert realesr("upscale", "photo.png", "-m", "runs/realesrgan-x4", "-o", "big.png") == 0
    with Image.open("big.png") as big:
        assert big.size == (40, 36)


def test_a_second_run_gets_a_folder_of_its_own(work: Path) -> None:
    sets = ("--data", "photos", "--recipe", "realesrnet-x4", "-q", "--set", "iterations=1")
    assert train(*sets) == 0
    assert train(*sets) == 0
    assert (work / "runs" / "realesrnet-x4-2" / "generator.safetensors").is_file()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_resume_goes_on(
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: int,
) -> None:
    usual = TrainConsole.__call__

    def interrupting(self: TrainConsole, event: object) -> None:
        usual(self, event)  # type: ignore[arg-type]
        if isinstance(event, StepDone) and event.total == 3:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(TrainConsole, "__call__", interrupting)
        assert train("--data", "photos", "--out", "run") == code
    assert "--resume --out run" in capsys.readouterr().err
    assert [p.name for p in list_checkpoints(Path("run"))][-1] == "1-psnr-000000003.pt"
    assert realesr("train", "--resume", "--out", "run") == 0
    assert "from step 3" in capsys.readouterr().err
    # The settings came from the run, small as they were.
    assert [p.name for p in list_checkpoints(Path("run"))][-1] == "2-gan-000000004.pt"


def test_a_printed_configuration_is_a_recipe(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--data photos --val v --init x4plus --init-d d.pth --seed 7 --iters 10,20 --lr 1e-3"
    flags += " --batch-size 3 --precision fp32"
    assert realesr("train", *flags.split(), "--print-config") == 0
    text = capsys.readouterr().out
    Path("mine.toml").write_text(text)
    config = load_config("mine.toml")
    assert [s.iterations for s in config.stages] == [10, 20]
    assert [s.optimizer.lr for s in config.stages] == [1e-3, 1e-3]
    assert config.data.gt == (Path("photos"),)
    assert (config.validation.gt, config.generator.init, config.discriminator.init) == (
        "v", "x4plus", "d.pth",
    )  # fmt: skip
    assert (config.seed, config.data.batch, config.runtime.precision) == (7, 3, "fp32")
    assert realesr("train", "--recipe", "mine.toml", "--print-config") == 0
    assert capsys.readouterr().out == text


def test_the_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert realesr("train", "--list") == 0
    assert "compact-x4 " in capsys.readouterr().out


def test_a_missing_start_is_reported_before_the_plan(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag in ("--init", "--init-d"):
        assert train("--data", "photos", "--recipe", "realesrgan-x4", flag, "gone.pth") != 0
        err = capsys.readouterr().err
        assert "gone.pth" in err
        assert "cost " not in err


def test_the_start_brings_its_architecture_unless_it_is_set(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show = ("train", "--data", "photos", "--recipe", "finetune", "--init", "general-x4v3")
    assert realesr(*show, "--print-config") == 0
    out = capsys.readouterr().out
    assert 'kind = "compact"' in out
    assert "blocks = 32" in out
    assert realesr(*show, "--set", "generator.blocks=16", "--print-config") == 0
    assert "blocks = 16" in capsys.readouterr().out


def test_one_command_starts_and_continues_a_run(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the architecture of a start and a batch that was measured."""
    _save_start(work / "start.safetensors")
    monkeypatch.setattr(
        "realesr_cli.train.plan.memory_trial", lambda config, machine: _only_one_sample
    )
    command = ["train", "--data", "photos", "--recipe", "compact-x4", "--device", "cpu", "-q"]
    command += ["--init", "start.safetensors", "--batch-size", "auto", "--out", "run", "--resume"]
    for text in ("data.batch=2", "data.patch=8", "iterations=2", "validation.every=0"):
        command += ["--set", text]
    for _ in range(2):
        assert realesr(*command) == 0, capsys.readouterr().err
    config = read_checkpoint(list_checkpoints(Path("run"))[-1]).config
    assert (config.generator.blocks, config.generator.features) == (1, 4)
    assert (config.data.batch, config.data.accumulate) == (1, 2)


def test_a_distillation_needs_its_teacher(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data", "photos", "--recipe", "distill") == 2
    assert "--teacher" in capsys.readouterr().err
    assert train("--data", "photos", "--recipe", "distill", "--teacher", "x2plus") == 2
    assert "x2 network" in capsys.readouterr().err
    show = ("--data", "photos", "--recipe", "distill", "--teacher", "x4plus", "--print-config")
    assert realesr("train", *show) == 0
    assert 'teacher = "x4plus"' in capsys.readouterr().out


def test_a_dry_run_writes_nothing(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data", "photos", "--dry-run") == 0
    cost = next(s for s in capsys.readouterr().err.splitlines() if s.startswith("cost "))
    assert " to " in cost
    assert "core-hours" in cost
    assert [p.name for p in work.iterdir()] == ["photos"]


def test_a_dry_run_fetches_nothing_and_says_what_a_run_would(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("REALESR_OFFLINE", raising=False)
    lacking = ("--data", "photos", "--set", "perceptual.weight=1", "--dry-run")
    assert train(*lacking) == 0
    err = capsys.readouterr().err
    assert "download  vgg19, 548.1 MiB" in err
    assert "cost " in err
    # Where it cannot be fetched, that is said, after the plan.
    monkeypatch.setenv("REALESR_OFFLINE", "1")
    assert train(*lacking) == 3
    err = capsys.readouterr().err
    assert err.index("cost ") < err.index("perceptual.weights")


def test_an_automatic_batch_is_taken_as_found(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "realesr_cli.train.plan.memory_trial", lambda config, machine: _only_one_sample
    )
    assert train("--data", "photos", "--batch-size", "auto", "--dry-run") == 0
    assert "batch     2 crops of 8x8 LQ pixels, in 2 passes" in capsys.readouterr().err


def _only_one_sample(batch: int, patch: int) -> None:
    if batch > 1:
        raise MemoryError


def test_a_loss_that_is_not_finite_is_reported(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = loop.apply_gradients

    def broken(*args: object) -> StepResult:
        return replace(usual(*args), skipped=True)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "apply_gradients", broken)
    assert train("--data", "photos", "--recipe", "realesrnet-x4", "--set", "iterations=12") == 1
    err = capsys.readouterr().err
    assert "step 1 skipped" in err
    assert "error: the loss was not finite for 10 steps" in err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--data", "nowhere"), 1, "nowhere does not exist"),
        ((), 1, "--data"),
        (("--data", "empty"), 1, "contains no files"),
        (("--data", "texts"), 1, "a.txt"),
        (("--data", "photos", "--lq", "texts2"), 1, "--set data.lq_suffix=x4"),
        (("--data", "photos", "--recipe", "paired", "--set", "generator.init=''"), 1, "--lq"),
        (("--data", "photos", "--val", "photos"), 1, "training folder"),
        (("--data", "photos", "--init", "x2.safetensors"), 2, "x2 network, but the run's scale"),
        (("--data", "photos", "--set", "data.pach=3"), 2, "did you mean 'patch'"),
        (("--data", "photos", "--recipe", "realesrgan"), 2, "unknown recipe"),
        (("--data", "photos", "--iters", "1,2,3"), 2, "got 3"),
        (("--data", "photos", "--iters", "many"), 2, "'many'"),
        (("--data", "photos", "--device", "cuda:99"), 2, "cuda:99"),
        (("--data", "photos", "--set", "runtime.precision=fp16"), 2, "fp16 needs a GPU"),
        (("--resume",), 2, "--out"),
        (("--resume", "required", "--out", "photos"), 1, "no checkpoint"),
        (("--data", "photos", "--set", "perceptual.weight=1"), 3, "perceptual.weights"),
    ],
)
def test_bad_input_is_one_line_with_the_right_code(
    work: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.setenv("REALESR_OFFLINE", "1")
    (work / "empty").mkdir()
    (work / "texts").mkdir()
    (work / "texts" / "a.txt").write_text("x")
    make_images(work / "texts2", 2)
    if "x2.safetensors" in args:
        _save_x2(work / "x2.safetensors")
    before = sorted(p.name for p in work.iterdir())
    assert train(*args) == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert sorted(p.name for p in work.iterdir()) == before


def _save_x2(path: Path) -> None:
    _save_start(path, "compact-x2")


def _save_start(path: Path, recipe: str = "compact-x4") -> None:
    from realesr_cli.train.state import new_generator
    from realesr_cli.weights.model_files import model_metadata, save_safetensors

    config = load_config(recipe, ["generator.blocks=1", "generator.features=4"])
    net = new_generator(config)
    save_safetensors(path, net.state_dict(), model_metadata(config.architecture))
