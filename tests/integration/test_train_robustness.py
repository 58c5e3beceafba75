"""Runs that diverge, are killed or lose a process leave a checkpoint that is good to go on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_training import Memory, make_images, run, tiny_config

from realesr_cli.errors import DatasetError, DivergedError, TrainingError
from realesr_cli.train import checkpoint_manager, loop, state
from realesr_cli.train.checkpoint import find_checkpoint, list_checkpoints, read_checkpoint
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.data import Batches
from realesr_cli.train.distributed import World


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


def names(out: Path) -> list[str]:
    return [path.name for path in list_checkpoints(out)]


def exploding(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the learning rate explode after so many steps."""
    usual = state.learning_rate

    def rate(schedule: object, base: float, *, step: int, iterations: int) -> float:
        found = usual(schedule, base, step=step, iterations=iterations)  # type: ignore[arg-type]
        return found if step < after else 1e18

    monkeypatch.setattr(state, "learning_rate", rate)


def single_stage(data: Path, *sets: str) -> TrainConfig:
    return tiny_config(data, *sets, recipe="realesrnet-x4")


def test_weights_that_explode_are_never_saved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update that breaks the weights is followed by a due checkpoint and a validation."""
    exploding(monkeypatch, after=4)
    config = single_stage(data, "iterations=40", "checkpoints.every=1", "validation.every=1")
    out = tmp_path / "run"
    memory = Memory()
    with pytest.raises(DivergedError, match=r"1-psnr-000000004\.pt"):
        run(config, out, memory)
    assert [s.skipped for s in memory.steps] == [False] * 5 + [True] * 10
    assert names(out) == ["1-psnr-000000002.pt", "1-psnr-000000003.pt", "1-psnr-000000004.pt"]
    for path in (out / "checkpoints").iterdir():
        weights = read_checkpoint(path).parts["generator"].values()
        assert all(float(tensor.abs().max()) < 1e3 for tensor in weights)
    found = find_checkpoint(out)
    assert found is not None
    assert found.progress.step == 4


def test_a_checkpoint_whose_next_steps_fail_is_set_aside(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that look healthy, but whose gradients are never finite."""
    usual = loop.compute_gradients

    def failing(current: state.TrainState, *args: object) -> object:
        if current.progress.step >= 3:
            with torch.no_grad():
                next(iter(current.generator.parameters())).fill_(float("inf"))
        return usual(current, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "compute_gradients", failing)
    config = single_stage(data, "iterations=40", "checkpoints.every=1", "validation.every=0")
    with pytest.raises(DivergedError, match=r"healthy checkpoint is .*1-psnr-000000002\.pt"):
        run(config, tmp_path / "run")
    assert names(tmp_path / "run") == ["1-psnr-000000001.pt", "1-psnr-000000002.pt"]
    aside = tmp_path / "run" / "checkpoints" / "diverged-1-psnr-000000003.pt"
    assert aside.is_file()


def test_a_run_that_ends_while_steps_are_skipped_does_not_pass_for_good(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exploding(monkeypatch, after=2)
    config = single_stage(data, "iterations=5", "checkpoints.every=1", "ema.decay=0")
    with pytest.raises(DivergedError, match=r"1-psnr-000000002\.pt"):
        run(config, tmp_path / "run")


def final_weights(out: Path) -> dict[str, torch.Tensor]:
    parts = read_checkpoint(list_checkpoints(out)[-1]).parts
    return {
        f"{part}.{key}": tensor
        for part in ("generator", "ema", "discriminator")
        for key, tensor in parts[part].items()
    }


@pytest.mark.parametrize("where", ["generator", "discriminator", "data"])
def test_an_error_within_a_step_saves_the_state_of_the_last_whole_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Saved bit-exactly: the rest of the run ends as if nothing had happened."""
    config = tiny_config(data, "checkpoints.every=100", "degradation.pool=4", "iterations=6")
    memory = Memory()
    name = {
        "generator": "generator_losses",
        "discriminator": "discriminator_gan_loss",
        "data": "degrade_crops",
    }[where]
    module = "realesr_cli.train.data" if where == "data" else "realesr_cli.train.step"
    usual = getattr(__import__(module, fromlist=[name]), name)

    def failing(*args: object, **more: object) -> object:
        result = usual(*args, **more)
        if len(memory.steps) == 9:  # in the second stage
            raise RuntimeError("planned")
        return result

    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.{name}", failing)
        with pytest.raises(RuntimeError, match="planned"):
            run(config, tmp_path / "broken", memory)
    assert names(tmp_path / "broken") == ["1-psnr-000000006.pt", "2-gan-000000003.pt"]
    run(config, tmp_path / "broken", resume=True)
    run(config, tmp_path / "whole")
    a, b = final_weights(tmp_path / "whole"), final_weights(tmp_path / "broken")
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


def test_an_error_amid_an_update_is_not_saved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory()
    usual = torch.optim.Adam.step

    def failing(self: torch.optim.Adam, *args: object) -> object:
        result = usual(self, *args)  # type: ignore[arg-type]
        if len(memory.steps) == 3:
            raise RuntimeError("planned")
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", failing)
    with pytest.raises(RuntimeError, match="planned"):
        run(single_stage(data, "checkpoints.every=2"), tmp_path / "run", memory)
    assert names(tmp_path / "run") == ["1-psnr-000000002.pt"]


def test_checkpoints_are_also_saved_by_time(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 50))  # fifty seconds between two looks at the clock
    monkeypatch.setattr(checkpoint_manager.time, "monotonic", lambda: float(next(clock)))
    sets = ("iterations=12", "checkpoints.every=1000", "validation.every=0", "checkpoints.keep=99")
    run(single_stage(data, *sets, "checkpoints.minutes=3"), tmp_path / "timed")
    assert names(tmp_path / "timed") == [f"1-psnr-{n:09d}.pt" for n in (4, 8, 12)]
    run(single_stage(data, *sets, "checkpoints.minutes=0"), tmp_path / "untimed")
    assert names(tmp_path / "untimed") == ["1-psnr-000000012.pt"]


def test_what_a_killed_run_left_half_written_is_removed(data: Path, tmp_path: Path) -> None:
    config, out = single_stage(data), tmp_path / "run"
    run(config, out)
    stale = [out / folder / ".realesr-0123456789abcdef.part" for folder in ("", "checkpoints")]
    for path in stale:
        path.write_bytes(b"half a checkpoint")
    run(config, out, resume=True)
    assert not any(path.exists() for path in stale)


def test_the_loss_of_another_process_is_one_sentence(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory()

    def closed(self: World, values: torch.Tensor) -> torch.Tensor:
        if len(memory.steps) == 3:
            raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")
        return values

    plain: Callable[..., object] = lambda self, flag=False: flag  # noqa: E731
    monkeypatch.setattr(World, "mean", closed)
    monkeypatch.setattr(World, "any", plain)
    monkeypatch.setattr(World, "share", lambda self, value: value)
    monkeypatch.setattr(World, "wait", lambda self: None)
    monkeypatch.setattr(World, "wrap", lambda self, net, device: net)
    with pytest.raises(TrainingError, match=r"connection.*step 3 is saved") as caught:
        run(single_stage(data), tmp_path / "run", memory, world=World(0, 2))
    assert caught.value.advice == "resume"
    assert names(tmp_path / "run")[-1] == "1-psnr-000000003.pt"


def test_damaged_images_end_a_run_with_its_steps_saved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, usual = Memory(), Batches.take

    def unreadable(self: Batches, step: int, watch: object) -> object:
        if step == 3:
            raise DatasetError("20 images in a row cannot be decoded")
        return usual(self, step, watch)  # type: ignore[arg-type]

    monkeypatch.setattr(Batches, "take", unreadable)
    with pytest.raises(DatasetError):
        run(single_stage(data, "checkpoints.every=100"), tmp_path / "run", memory)
    assert names(tmp_path / "run") == ["1-psnr-000000003.pt"]
