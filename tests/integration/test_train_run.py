"""Whole runs: both stages, exact resume, guards that stop, and every way a run cannot start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import CPU, Memory, make_images, run, tiny_config

from realesr_cli.errors import (
    CancelledError,
    CheckpointFormatError,
    ConfigError,
    DatasetError,
    DivergedError,
    ModelUnavailableError,
    OutOfMemoryError,
    RealesrWarning,
    ResumeMismatchError,
    TrainingError,
    WeightsWriteError,
)
from realesr_cli.metrics.perceptual import PerceptualDistance
from realesr_cli.nets.features import SqueezeNetFeatures
from realesr_cli.ops.quantize import from_8bit_levels
from realesr_cli.train import loop, validation
from realesr_cli.train.checkpoint import list_checkpoints, read_checkpoint
from realesr_cli.train.cropping import Crops
from realesr_cli.train.events import StageStarted
from realesr_cli.train.session import Resume, changed_settings, open_session
from realesr_cli.train.step import StepResult
from realesr_cli.weights.checkpoints import read_state
from realesr_cli.weights.load import open_model
from realesr_cli.weights.model_files import save_safetensors


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


def final_parts(out: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoint by dotted name."""
    found = read_checkpoint(list_checkpoints(out)[-1])
    flat: dict[str, torch.Tensor] = {"step": torch.tensor(found.progress.step)}

    def walk(value: object, name: str) -> None:
        if isinstance(value, torch.Tensor):
            flat[name] = value
        elif isinstance(value, dict):
            for key, item in value.items():
                walk(item, f"{name}.{key}")

    walk(dict(found.parts), "")
    return flat


def assert_same_end(a: Path, b: Path) -> None:
    one, other = final_parts(a), final_parts(b)
    assert one.keys() == other.keys()
    assert len(one) > 50
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert different == []


def test_both_stages_run_and_the_second_starts_from_the_first_ones_average(
    data: Path, tmp_path: Path
) -> None:
    memory = Memory()
    config = tiny_config(data, "validation.split=0.2", "ema.decay=0.5", "optimizer.lr=0.02")
    result = run(config, tmp_path / "run", memory)
    stages = [e for e in memory.events if isinstance(e, StageStarted)]
    assert [(s.stage, s.number, s.stages, s.iterations) for s in stages] == [
        ("psnr", 1, 2, 4),
        ("gan", 2, 2, 4),
    ]
    assert [s.total for s in memory.steps] == list(range(1, 9))
    assert result.steps == 8
    assert set(memory.steps[-1].seconds) == {"data", "degradation", "generator", "discriminator"}
    assert set(memory.steps[0].seconds) == {"data", "degradation", "generator"}
    # Scores: start and end of each stage; the second starts where the first one's average ended.
    assert [(s.stage, s.step) for s in memory.scores] == [
        ("psnr", 0), ("psnr", 4), ("gan", 0), ("gan", 4),
    ]  # fmt: skip
    assert memory.scores[1].scores == memory.scores[2].scores == memory.scores[3].stage_start
    assert memory.scores[0].scores != memory.scores[1].scores
    # The run's own start stays in sight of every later score.
    assert {s.run_start for s in memory.scores} == {memory.scores[0].scores}
    assert result.run_start == memory.scores[0].scores.plain()
    assert result.stage_start == memory.scores[1].scores.plain()
    assert all(s.sheet.is_file() for s in memory.scores)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert (kinds.count("step"), kinds.count("validation")) == (8, 4)


def test_scores_have_the_distance_that_the_perceptual_loss_takes(
    data: Path, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    net = SqueezeNetFeatures(["conv1", "fire3", "fire5", "fire7", "fire9"])
    file = tmp_path / "squeezenet.safetensors"
    save_safetensors(file, net.state_dict(), {})
    memory = Memory()
    config = tiny_config(
        data, "perceptual.backbone=squeezenet1_1", f"perceptual.weights={file}", "iterations=1",
        "perceptual.weight=1", "data.patch=16",
    )  # fmt: skip
    result = run(config, tmp_path / "run", memory)
    # In the first stage too, which has no such loss.
    assert [s.stage for s in memory.scores] == ["psnr", "psnr", "gan", "gan"]
    assert all(s.scores.perceptual and s.bicubic.perceptual for s in memory.scores)
    assert result.best["perceptual"] == memory.scores[-1].scores.perceptual
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["run_start_perceptual"] == memory.scores[0].scores.perceptual
    assert line["bicubic_perceptual"] == memory.scores[0].bicubic.perceptual


def test_the_perceptual_distance_may_be_that_of_evaluation(data: Path, tmp_path: Path) -> None:
    """A run without a perceptual loss is scored with feat-squeeze, and may be ranked by it."""
    torch.manual_seed(3)
    net = SqueezeNetFeatures(["conv1", "fire3", "fire5", "fire7", "fire9"])
    file = tmp_path / "squeezenet.safetensors"
    save_safetensors(file, net.state_dict(), {})
    config = tiny_config(
        data, "validation.perceptual=feat-squeeze", f"validation.feat_weights='{file}'",
        "iterations=1", "validation.best=perceptual", recipe="realesrnet-x4",
    )  # fmt: skip
    memory = Memory()
    result = run(config, tmp_path / "run", memory)
    distance = PerceptualDistance(net.state_dict())
    validator = validation.Validator(
        open_session(config, tmp_path / "other", CPU).images.validation, config, perceptual=None
    )
    wanted = [
        float(distance(from_8bit_levels(output), from_8bit_levels(item.gt)))
        for item, output in zip(
            validator.samples, validation.upscale_bicubic(validator.samples, 4), strict=True
        )
    ]
    assert memory.scores[0].bicubic.perceptual == pytest.approx(np.mean(wanted), rel=1e-4)
    assert result.best["perceptual"] == min(s.scores.perceptual or 9 for s in memory.scores)


def test_the_folder_of_a_run_is_a_model(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(tiny_config(data), out)
    opened = open_model(str(out))
    assert opened.architecture == tiny_config(data).architecture
    assert opened.net(torch.rand(1, 3, 5, 6)).shape == (1, 3, 20, 24)
    _, metadata = read_state(out / "generator.safetensors")
    assert (metadata["recipe"], metadata["stage"], metadata["step"]) == ("realesrgan-x4", "gan", 4)


@pytest.mark.parametrize(
    ("recipe", "sets"),
    [
        ("realesrgan-x2", ()),
        ("realesrgan-x1", ()),
        ("realesrgan-x4-unsharpened", ("degradation.preset=realesrgan-paper",)),
        ("esrgan-x4", ("degradation.preset=esrgan", "data.patch=32")),
        ("srgan-x4", ("degradation.preset=esrgan", "data.patch=32")),
        ("compact-x2", ("degradation.preset=medium",)),
    ],
)
def test_other_recipes_train_too(
    data: Path, tmp_path: Path, recipe: str, sets: tuple[str, ...]
) -> None:
    memory = Memory()
    config = tiny_config(data, *sets, "iterations=1", "validation.every=0", recipe=recipe)
    run(config, tmp_path / "run", memory)
    assert len(memory.steps) == len(config.stages)
    assert all(np.isfinite(list(s.losses.values())).all() for s in memory.steps)
    opened = open_model(str(tmp_path / "run"))
    scale = config.scale
    assert opened.architecture == config.architecture
    assert opened.net(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8 * scale, 8 * scale)


@pytest.mark.parametrize("stop_after", [2, 4, 5])
def test_stopping_and_resuming_ends_in_the_same_bits(
    data: Path, tmp_path: Path, stop_after: int
) -> None:
    """Within the first stage, at the boundary, and within the second."""
    config = tiny_config(data, "degradation.pool=4", "data.accumulate=2", "data.rotate=true")
    whole = Memory()
    run(config, tmp_path / "whole", whole)
    first, second = Memory(stop_after=stop_after), Memory()
    if stop_after == 4:
        # Stopped by the end of the stage itself: only its last checkpoint is there.
        run(config, tmp_path / "parts")
        for path in list_checkpoints(tmp_path / "parts"):
            if path.name.startswith("2-"):
                path.unlink()
    else:
        with pytest.raises(CancelledError, match="step"):
            run(config, tmp_path / "parts", first)
    run(config, tmp_path / "parts", second, resume=True)
    assert [s.total for s in second.steps] == list(range(stop_after + 1, 9))
    assert [s.losses for s in second.steps] == [s.losses for s in whole.steps[stop_after:]]
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    logs = [(tmp_path / n / "metrics.jsonl").read_text().splitlines() for n in ("whole", "parts")]
    steps = [
        [json.loads(line)["total"] for line in log if '"kind": "step"' in line] for log in logs
    ]
    assert steps[0] == steps[1] == list(range(1, 9))


def test_a_killed_run_goes_on_from_its_last_checkpoint(data: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    memory = Memory()

    def kill() -> None:
        if len(memory.steps) == 7:
            raise Killed

    config = tiny_config(data, "checkpoints.every=3")
    with pytest.raises(Killed):
        run(config, tmp_path / "killed", memory, after_step=kill)
    run(config, tmp_path / "killed", resume=True)
    run(config, tmp_path / "whole")
    assert_same_end(tmp_path / "whole", tmp_path / "killed")


def test_a_finished_run_has_nothing_to_resume(data: Path, tmp_path: Path) -> None:
    config = tiny_config(data)
    run(config, tmp_path / "run")
    memory = Memory()
    run(config, tmp_path / "run", memory, resume=True)
    assert memory.steps == []


def test_the_last_stage_may_be_made_longer(data: Path, tmp_path: Path) -> None:
    run(tiny_config(data), tmp_path / "run")
    memory = Memory()
    longer = tiny_config(data, "stages.gan.iterations=6", "checkpoints.keep=1")
    run(longer, tmp_path / "run", memory, resume=True)
    assert [s.total for s in memory.steps] == [9, 10]


@pytest.fixture(scope="module")
def start(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings that start from the networks of a short run.

    A compact network, because it enlarges like nearest neighbor untrained: a start worth guarding.
    """
    out = tmp_path_factory.mktemp("start") / "run"
    kind = "generator.kind=compact"
    run(tiny_config(data, kind, "iterations=1", "validation.every=0"), out)
    parts = read_checkpoint(list_checkpoints(out)[-1]).parts
    file = out / "netD.pth"
    torch.save({"params": parts["discriminator"]}, file)
    return kind, f"generator.init='{out}'", f"discriminator.init='{file}'"


def test_finetuning_starts_from_both_networks_and_is_guarded(
    data: Path, tmp_path: Path, start: tuple[str, ...]
) -> None:
    memory = Memory()
    sets = (*start, "gan.warmup=1", "validation.every=1", "optimizer.lr=1e-6")
    run(tiny_config(data, *sets, recipe="finetune"), tmp_path / "run", memory)
    assert [s.stage for s in memory.steps] == ["gan"] * 4
    assert ["gan" in s.losses for s in memory.steps] == [False, True, True, True]
    assert [s.step for s in memory.scores] == [0, 1, 2, 3, 4]
    begun = open_model(start[1].partition("=")[2].strip("'")).net
    ended = open_model(str(tmp_path / "run")).net
    x = torch.rand(1, 3, 6, 6)
    torch.testing.assert_close(ended(x), begun(x), atol=1e-3, rtol=0)


def test_finetuning_that_harms_stops_with_its_start_kept(
    data: Path, tmp_path: Path, start: tuple[str, ...]
) -> None:
    sets = (*start, "gan.warmup=0", "optimizer.lr=0.1", "schedule.warmup=0")
    config = tiny_config(
        data, *sets, "validation.every=1", "iterations=60", "ema.decay=0", recipe="finetune"
    )
    memory = Memory()
    with pytest.raises(DivergedError, match="5 validations in a row"):
        run(config, tmp_path / "run", memory)
    _, metadata = read_state(tmp_path / "run" / "generator.safetensors")
    best = max(memory.scores, key=lambda s: s.scores.psnr)
    assert metadata["step"] == best.step


def test_real_pairs_are_learned_from_without_degradation(
    data: Path, tmp_path: Path, start: tuple[str, ...]
) -> None:
    lq = tmp_path / "lq"
    lq.mkdir()
    for path in data.iterdir():
        Image.open(path).resize((22, 18), Image.Resampling.BOX).save(lq / f"{path.stem}x4.png")
    memory = Memory()
    pairs = (f"data.lq=['{lq}']", "data.lq_suffix=x4")
    config = tiny_config(data, *start, *pairs, "gan.warmup=1", recipe="paired")
    run(config, tmp_path / "run", memory)
    assert len(memory.steps) == 4
    assert all(np.isfinite(s.losses["pixel"]) for s in memory.steps[1:])
    assert memory.scores[0].bicubic.psnr > 30


def test_real_pairs_and_degraded_images_are_mixed_in_one_run(data: Path, tmp_path: Path) -> None:
    good, lq = make_images(tmp_path / "good", 2), tmp_path / "lq"
    lq.mkdir()
    for path in good.iterdir():
        Image.open(path).resize((22, 18), Image.Resampling.BOX).save(lq / path.name)
    config = tiny_config(
        data, f"data.gt=['{good}', '{data}']", f"data.lq=['{lq}', 'none']", "data.batch=8",
        "data.weights=[1, 1]", "iterations=1", "validation.every=0", recipe="realesrnet-x4",
    )  # fmt: skip
    session = open_session(config, tmp_path / "run", CPU)
    crops = Crops(session.images.train, config.data, scale=4, seed=0)
    batch = crops.batch(0, 0)
    crops.close()
    assert batch.gt is not None
    assert batch.paired_lq is not None
    assert len(batch.gt) + len(batch.paired_lq) == 8
    memory = Memory()
    run(config, tmp_path / "run", memory)
    assert np.isfinite(memory.steps[0].losses["pixel"])


def test_the_discriminator_may_be_warmed_up_alone(data: Path, tmp_path: Path) -> None:
    memory = Memory()
    run(tiny_config(data, "gan.warmup=2"), tmp_path / "run", memory)
    gan = [s for s in memory.steps if s.stage == "gan"]
    assert ["generator" in s.stats for s in gan] == [False, False, True, True]
    assert all("discriminator" in s.losses for s in gan)


def test_a_start_is_scored_before_the_first_step(data: Path, tmp_path: Path) -> None:
    run(tiny_config(data), tmp_path / "first")
    start = tmp_path / "first" / "generator.safetensors"
    memory = Memory()
    config = tiny_config(data, f"generator.init='{start}'", recipe="realesrnet-x4")
    run(config, tmp_path / "second", memory)
    assert memory.scores[0].step == 0
    assert memory.events.index(memory.scores[0]) < memory.events.index(memory.steps[0])
    assert all(s.stage_start == memory.scores[0].scores for s in memory.scores)


def test_a_run_that_only_gets_worse_stops_and_keeps_its_start(data: Path, tmp_path: Path) -> None:
    # An untrained compact network enlarges like nearest neighbor: a start that can be spoilt.
    sets = ("generator.kind=compact", "iterations=1", "optimizer.lr=1e-9")
    run(tiny_config(data, *sets, recipe="realesrnet-x4"), tmp_path / "good")
    start = tmp_path / "good" / "generator.safetensors"
    sabotaged = tiny_config(
        data, "generator.kind=compact", f"generator.init='{start}'", "optimizer.lr=0.1",
        "ema.decay=0.0", "iterations=50", "validation.every=1", "validation.patience=3",
        recipe="realesrnet-x4",
    )  # fmt: skip
    memory = Memory()
    with pytest.raises(DivergedError, match=r"3 validations in a row.*of step 0"):
        run(sabotaged, tmp_path / "bad", memory)
    assert len(memory.steps) < 10
    assert any("PSNR by" in text for text in memory.notices)
    a = read_state(start)[0]
    b = read_state(tmp_path / "bad" / "generator.safetensors")[0]
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_ten_steps_without_a_finite_loss_end_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = loop.apply_gradients
    memory = Memory()

    def sometimes(*args: object) -> StepResult:
        result = usual(*args)  # type: ignore[arg-type]
        return replace(result, skipped=len(memory.steps) >= 4)

    monkeypatch.setattr(loop, "apply_gradients", sometimes)
    config = tiny_config(data, "iterations=40", "checkpoints.every=3", recipe="realesrnet-x4")
    with pytest.raises(DivergedError, match=r"10 steps in a row.*1-psnr-000000003\.pt"):
        run(config, tmp_path / "run", memory)
    assert [s.skipped for s in memory.steps] == [False] * 4 + [True] * 10
    assert [p.name for p in list_checkpoints(tmp_path / "run")] == ["1-psnr-000000003.pt"]


def test_one_bad_step_is_skipped_and_forgotten(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = loop.apply_gradients
    memory = Memory()

    def once(*args: object) -> StepResult:
        return replace(usual(*args), skipped=len(memory.steps) == 1)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "apply_gradients", once)
    run(tiny_config(data, recipe="realesrnet-x4"), tmp_path / "run", memory)
    assert [s.skipped for s in memory.steps] == [False, True, False, False]
    assert "skipped" in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_full_disk_ends_the_run_with_the_previous_checkpoint_whole(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, memory = torch.save, Memory()

    def full(held: object, file: object) -> None:
        if len(memory.steps) > 2:
            raise OSError(28, "No space left on device")
        usual(held, file)

    monkeypatch.setattr(torch, "save", full)
    config = tiny_config(data)
    with pytest.raises(WeightsWriteError, match=r"1-psnr-000000002\.pt"):
        run(config, tmp_path / "run", memory)
    monkeypatch.setattr(torch, "save", usual)
    run(config, tmp_path / "run", resume=True)
    run(config, tmp_path / "whole")
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def test_running_out_of_memory_names_what_fits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(loop, "compute_gradients", out_of_memory)
    with pytest.raises(OutOfMemoryError, match=r"Tried to allocate.*data\.batch=1, data\.accum"):
        run(tiny_config(data), tmp_path / "run")


def test_settings_changed_on_resume_are_listed(data: Path, tmp_path: Path) -> None:
    run(tiny_config(data), tmp_path / "run")
    other = tiny_config(data, "seed=3", "data.batch=4", "validation.every=2")
    with pytest.raises(ResumeMismatchError, match=r"data\.batch: 2 -> 4; seed: 0 -> 3$"):
        run(other, tmp_path / "run", resume=True)
    unlike = tiny_config(data, "validation.split=0.5", "validation.every=0")
    with pytest.raises(ResumeMismatchError, match=r"validation\.every: 4 -> 0; validation\.split"):
        run(unlike, tmp_path / "run", resume=True)


def test_changed_settings_may_be_accepted(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CancelledError):
        run(tiny_config(data), tmp_path / "run", Memory(stop_after=2))
    memory = Memory()
    changed = tiny_config(data, "optimizer.lr=1e-5")
    found = read_checkpoint(list_checkpoints(tmp_path / "run")[-1])
    assert "stages.gan.optimizer.lr: 0.0001 -> 1e-05" in changed_settings(found, changed)
    accepted = replace(found, config=changed)
    session = open_session(changed, tmp_path / "run", CPU, resume=Resume(accepted))
    loop.train(session, listener=memory)
    assert memory.steps[0].stats["lr"] == 1e-5


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(data: Path, tmp_path: Path) -> None:
    config = tiny_config(data)
    run(config, tmp_path / "run")
    last = list_checkpoints(tmp_path / "run")[-1]
    last.write_bytes(last.read_bytes()[:-500])
    memory = Memory()
    with pytest.warns(RealesrWarning, match=last.name):
        run(config, tmp_path / "run", memory, resume=True)
    assert [s.total for s in memory.steps] == [7, 8]
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(CheckpointFormatError, match=r"000000004\.pt"):
        run(config, tmp_path / "run", resume=True)


def test_a_run_is_not_started_over_another_nor_resumed_from_nothing(
    data: Path, tmp_path: Path
) -> None:
    config = tiny_config(data)
    run(config, tmp_path / "run")
    with pytest.raises(TrainingError, match="already contains a run"):
        run(config, tmp_path / "run")
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        run(config, file)


def test_nothing_is_written_by_a_run_that_cannot_start(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALESR_OFFLINE", "1")
    out = tmp_path / "run"
    with pytest.raises(ModelUnavailableError, match="perceptual loss"):
        run(tiny_config(data, "perceptual.weight=1", "stages.gan.perceptual.weight=1"), out)
    with pytest.raises(DatasetError, match="training folder"):
        run(tiny_config(data, f"validation.gt='{data}'"), out)
    with pytest.raises(DatasetError, match="does not exist"):
        run(tiny_config(tmp_path / "none"), out)
    assert not out.exists()


def test_files_left_out_and_missing_validation_are_reported(tmp_path: Path) -> None:
    images = make_images(tmp_path / "few", 3)
    (images / "broken.png").write_bytes(b"no image")
    memory = Memory()
    run(tiny_config(images, "iterations=1"), tmp_path / "run", memory)
    assert any("broken.png" in text for text in memory.notices)
    assert any("no validation" in text for text in memory.notices)
    assert memory.scores == []
    assert (tmp_path / "run" / "generator.safetensors").is_file()


def test_scores_decide_what_the_run_leaves_behind(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is that of the best validation, the newest only where nothing is scored."""
    usual = validation.compute_scores
    psnr = iter([1.0, 9.0, 8.0, 30.0, 7.0, 6.0])

    def planned(*args: object):
        return replace(usual(*args), psnr=next(psnr))  # type: ignore[arg-type]

    monkeypatch.setattr(validation, "compute_scores", planned)
    config = tiny_config(data, "validation.every=1", "checkpoints.keep=1", recipe="realesrnet-x4")
    result = run(config, tmp_path / "run")
    assert result.best["psnr"] == 30.0
    _, metadata = read_state(tmp_path / "run" / "generator.safetensors")
    assert metadata["step"] == 2
    names = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["1-psnr-000000004.pt", "best.pt"]
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt").progress.step == 2
