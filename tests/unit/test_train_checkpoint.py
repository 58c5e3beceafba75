"""Checkpoints hold everything, are written atomically and pruned, and name what is wrong."""

from __future__ import annotations

import errno
import importlib.machinery
import json
import re
import sys
import types
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from realesr_cli.errors import (
    CheckpointFormatError,
    ConfigError,
    MissingDependencyError,
    ModelUnavailableError,
    UnknownModelError,
    WeightsWriteError,
)
from realesr_cli.nets.detection import architecture_from_plain
from realesr_cli.nets.discriminators import UNetDiscriminator
from realesr_cli.nets.features import SqueezeNetFeatures
from realesr_cli.train import checkpoint
from realesr_cli.train.checkpoint import (
    BEST,
    hash_state,
    list_checkpoints,
    mark_best,
    prune_checkpoints,
    read_checkpoint,
    restore,
    save_checkpoint,
    save_generator,
)
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.loggers import FILE, MetricsLog, check_trackers
from realesr_cli.train.losses import PerceptualConfig, load_perceptual
from realesr_cli.train.machine import Machine
from realesr_cli.train.networks import (
    adopt_architecture,
    check_models,
    find_downloads,
    load_start_discriminator,
    load_start_generator,
)
from realesr_cli.train.recipes import load_config
from realesr_cli.train.settings import RuntimeConfig
from realesr_cli.train.state import TrainState, new_generator, new_stage
from realesr_cli.weights.checkpoints import read_state
from realesr_cli.weights.load import load_model, open_model
from realesr_cli.weights.model_files import save_safetensors

CPU = Machine(torch.device("cpu"))

TINY = (
    "generator.kind=compact", "generator.blocks=1", "generator.features=4", "data.patch=4",
    "discriminator.features=2", "perceptual.weight=0", "data.batch=2",
)  # fmt: skip


def tiny(*more: str) -> TrainConfig:
    return load_config("realesrgan-x4", [*TINY, *more])


def state_at(config: TrainConfig, step: int, stage: int = 1) -> TrainState:
    state = new_stage(config, CPU, stage=stage, generator=new_generator(config))
    state.progress = replace(state.progress, step=step)
    return state


def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    config = tiny("degradation.pool=4")
    state = state_at(config, 7)
    state.progress = replace(state.progress, stage_start={"psnr": 1 / 3})
    for optimizer in (state.optimizer, state.d_optimizer):
        assert optimizer is not None
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.randn_like(p)
        optimizer.step()
    path = save_checkpoint(tmp_path, state, config)
    assert path.name == "2-gan-000000007.pt"
    found = read_checkpoint(path)
    assert found.config == config
    fresh = state_at(tiny("seed=9", "degradation.pool=4"), 0)
    restore(fresh, found)
    assert fresh.progress == state.progress
    for part in ("generator", "ema", "discriminator"):
        a, b = getattr(state, part).state_dict(), getattr(fresh, part).state_dict()
        assert all(torch.equal(a[k], b[k]) for k in a)
    moments = [s["exp_avg_sq"] for s in state.optimizer.state_dict()["state"].values()]
    again = [s["exp_avg_sq"] for s in fresh.optimizer.state_dict()["state"].values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, again, strict=True))


def test_a_checkpoint_loads_without_running_anything(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state_at(tiny(), 1), tiny())
    data = torch.load(path, weights_only=True)
    assert json.loads(data["config"])["scale"] == 4


@pytest.mark.parametrize(
    ("init", "recorded"),
    [
        ("x4plus", "x4plus"),
        ("a/b/mine.pth", "mine.pth"),
        ("C:\\a\\mine.pth", "mine.pth"),
        ("a/one.pth:b/two@2x.pth@0.5", "one.pth:two@2x.pth@0.5"),
        ("C:\\a\\one.pth:D:/two.pth@0.5", "one.pth:two.pth@0.5"),
        ("", ""),
    ],
)
def test_a_model_does_not_contain_the_folders_of_its_start(
    tmp_path: Path, init: str, recorded: str
) -> None:
    config = tiny(f"generator.init='{init}'")
    path = save_generator(tmp_path, state_at(tiny(), 1), config)
    assert read_state(path)[1]["training"]["generator"]["init"] == recorded


def test_only_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    config = tiny()
    for step in (1, 2, 30, 4):
        path = save_checkpoint(tmp_path, state_at(config, step), config)
        if step == 2:
            mark_best(path)
    early = save_checkpoint(tmp_path, state_at(config, 99, stage=0), config)
    assert early.name == "1-psnr-000000099.pt"
    prune_checkpoints(tmp_path, 2)
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["2-gan-000000004.pt", "2-gan-000000030.pt", BEST]
    assert read_checkpoint(tmp_path / "checkpoints" / BEST).progress.step == 2


def test_the_best_is_copied_where_links_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    path = save_checkpoint(tmp_path, state_at(tiny(), 3), tiny())
    monkeypatch.setattr(checkpoint.os, "link", refuse)
    mark_best(path)
    assert path.with_name(BEST).read_bytes() == path.read_bytes()
    monkeypatch.setattr(checkpoint.shutil, "copyfile", refuse)
    with pytest.raises(WeightsWriteError, match="choose another folder"):
        mark_best(path)


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_a_full_disk_keeps_the_previous_checkpoint_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    config = tiny()
    old = save_checkpoint(tmp_path, state_at(config, 1), config)
    held = old.read_bytes()

    def full(data: object, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise kind("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WeightsWriteError, match=r"1\.pt is unchanged"):
        save_checkpoint(tmp_path, state_at(config, 2), config)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [old.name]
    assert old.read_bytes() == held
    with pytest.raises(WeightsWriteError, match="there is no older one"):
        save_checkpoint(tmp_path / "new", state_at(config, 2), config)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    config = tiny()
    paths = [save_checkpoint(tmp_path, state_at(config, step), config) for step in (1, 2)]
    mark_best(paths[0])
    paths[1].write_bytes(paths[1].read_bytes()[:2000])
    with pytest.raises(CheckpointFormatError, match=r"2\.pt.*damaged"):
        read_checkpoint(paths[1])
    alone = tmp_path / "other" / "checkpoints" / "1-psnr-000000001.pt"
    alone.parent.mkdir(parents=True)
    alone.write_bytes(b"")
    with pytest.raises(CheckpointFormatError, match="damaged"):
        read_checkpoint(alone)
    torch.save({"format": 99}, alone)
    with pytest.raises(CheckpointFormatError, match="not a checkpoint"):
        read_checkpoint(alone)


def test_a_checkpoint_of_another_make_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state_at(tiny(), 1), tiny())
    found = read_checkpoint(path)
    with pytest.raises(CheckpointFormatError, match=r"differs in .*pool"):
        restore(state_at(tiny("degradation.pool=4"), 0), found)
    with pytest.raises(CheckpointFormatError, match="does not fit this run"):
        restore(state_at(tiny("generator.features=8"), 0), found)


def test_hostile_checkpoints_are_refused_in_a_line(tmp_path: Path) -> None:
    config = tiny()
    path = save_checkpoint(tmp_path, state_at(config, 2), config)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    bomb = next(name for name in records if name.endswith("/data/0"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in records.items():
            archive.writestr(name, bytes(2**26) if name == bomb else body)
    with pytest.raises(CheckpointFormatError, match="unpack to 64"):
        read_checkpoint(path)
    for parts in (
        {"generator": 3},
        {"generator": {"x" * 5000: torch.zeros(1)}},
        {"optimizer": {"state": [], "param_groups": 1}},
    ):
        state = state_at(config, 2)
        found = {name: getattr(state, name).state_dict() for name in checkpoint._PARTS
                 if getattr(state, name) is not None}  # fmt: skip
        with pytest.raises(CheckpointFormatError) as caught:
            restore(state, checkpoint.Checkpoint(path, config, state.progress, found | parts))
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000


def test_the_generator_describes_itself(tmp_path: Path) -> None:
    config = tiny("checkpoints.pth=true", "data.gt=['/home/me/photos']")
    state = state_at(config, 5)
    path = save_generator(tmp_path, state, config)
    weights, metadata = read_state(path)
    assert architecture_from_plain(metadata["architecture"]) == config.architecture
    assert (metadata["scale"], metadata["recipe"], metadata["stage"], metadata["step"]) == (
        4, "realesrgan-x4", "gan", 5,
    )  # fmt: skip
    assert len(metadata["hash"]) == 64
    other = state_at(tiny("seed=1"), 5).ema.state_dict()
    assert metadata["hash"] == hash_state(weights) != hash_state(other)
    assert "/home/me" not in json.dumps(metadata)
    averaged = state.ema.state_dict()
    assert all(torch.equal(weights[k], averaged[k]) for k in averaged)
    for model in (tmp_path, path, path.with_suffix(".pth")):
        net = open_model(str(model)).net
        assert net.scale == 4
    both = torch.load(path.with_suffix(".pth"), weights_only=True)
    assert set(both) == {"params", "params_ema"}


def test_a_start_must_be_of_the_runs_scale_and_size(tmp_path: Path) -> None:
    config = tiny()
    path = save_generator(tmp_path, state_at(config, 5), config)
    same = tiny(f"generator.init='{path}'")
    a, b = load_model(path).state_dict(), load_start_generator(same).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(ConfigError, match="x4 network, but the run's scale is 2"):
        load_start_generator(tiny(f"generator.init='{path}'", "scale=2"))
    with pytest.raises(ConfigError, match=r"generator\.kind"):
        load_start_generator(tiny(f"generator.init='{path}'", "generator.blocks=2"))


def test_a_start_of_another_scale_is_taken_but_for_its_first_layer(tmp_path: Path) -> None:
    sets = ("generator.kind=rrdb", "generator.growth=4", "data.patch=16")
    x4 = tiny(*sets, "seed=5")
    path = save_generator(tmp_path, state_at(x4, 5), x4)
    with pytest.raises(ConfigError, match="the run's scale is 2"):
        load_start_generator(tiny(*sets, "scale=2", f"generator.init='{path}'"))
    adapting = (*sets, "scale=2", f"generator.init='{path}'", "generator.init_partial=true")
    config = tiny(*adapting)
    net = load_start_generator(config)
    assert net.architecture == config.architecture
    given, own = load_model(path).state_dict(), net.state_dict()
    assert [k for k in own if not torch.equal(own[k], given[k])] == ["conv_first.weight"]
    # Network and average begin alike, first layer and all.
    state = new_stage(config, CPU, stage=0, generator=net)
    a, b = state.generator.state_dict(), state.ema.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(ConfigError, match="no tensor"):
        load_start_generator(tiny("generator.kind=compact", *adapting[2:], "generator.features=8"))


def test_a_start_brings_its_architecture(tmp_path: Path) -> None:
    """Of a file, of a run, and of a registered model that is not even cached."""
    small = tiny("generator.kind=compact", "generator.blocks=3", "generator.features=6")
    path = save_generator(tmp_path, state_at(small, 5), small)
    for start in (path, tmp_path):
        found = adopt_architecture(load_config("finetune", [f"generator.init='{start}'"]))
        assert found.architecture == small.architecture
        load_start_generator(found)
    for name, blocks in (("general-x4v3", 32), ("animevideo", 16)):
        found = adopt_architecture(load_config("finetune", [f"generator.init='{name}'"]))
        assert (found.generator.kind, found.generator.blocks) == ("compact", blocks)
        check_models(found)
    partial = tiny(f"generator.init='{path}'", "generator.init_partial=true")
    assert adopt_architecture(partial) == partial
    assert adopt_architecture(small) == small


@pytest.mark.parametrize(
    "text",
    [
        "generator.init='{}/gone.pth'",
        "generator.init='x4pluss'",
        "discriminator.init='{}/gone.pth'",
        "perceptual.weights='{}/gone.pth'",
        "validation.feat_weights='{}/gone.pth'",
    ],
)
def test_a_start_that_does_not_exist_is_found_before_anything_is_computed(
    text: str, tmp_path: Path
) -> None:
    name = text.partition("=")[2].strip("'").format(tmp_path)
    with pytest.raises(UnknownModelError, match=re.escape(Path(name).name)):
        check_models(load_config("realesrgan-x4", [text.format(tmp_path)]))


def test_what_a_run_has_to_fetch_is_known_before(tmp_path: Path) -> None:
    def names(*sets: str, resumed: bool = False) -> list[str]:
        config = load_config("finetune", list(sets))
        return [entry.name for entry in find_downloads(config, resumed=resumed)]

    assert names() == ["RealESRGAN_x4plus", "vgg19"]
    assert names(resumed=True) == ["vgg19"]
    (tmp_path / "own.pth").touch()
    assert names("perceptual.weight=0", f"generator.init='{tmp_path / 'own.pth'}'") == []
    assert names("perceptual.weights=v.pth", "generator.init=''") == []
    features = ("perceptual.weight=0", "generator.init=''", "validation.perceptual=feat-squeeze")
    assert names(*features) == ["feat-squeeze"]
    assert names(*features, "validation.feat_weights=f.safetensors") == []


def test_a_discriminator_starts_from_its_file(tmp_path: Path) -> None:
    net = UNetDiscriminator(features=2)
    path = tmp_path / "netD.pth"
    torch.save({"params": net.state_dict()}, path)
    found = load_start_discriminator(tiny(f"discriminator.init='{path}'"), 1)
    a, b = net.state_dict(), found.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    wider = tiny(f"discriminator.init='{path}'", "discriminator.features=4")
    with pytest.raises(CheckpointFormatError, match="4x3x3x3"):
        load_start_discriminator(wider, 1)


def test_missing_perceptual_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALESR_OFFLINE", "1")
    with pytest.raises(ModelUnavailableError, match="vgg19") as caught:
        load_perceptual(PerceptualConfig(weight=1.0))
    assert caught.value.advice == "perceptual-weights"


def test_features_come_from_a_file_by_path(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = SqueezeNetFeatures(["conv1", "fire3", "fire5", "fire7", "fire9"])
    path = tmp_path / "squeezenet.safetensors"
    save_safetensors(path, net.state_dict(), {})
    config = PerceptualConfig(weight=1.0, backbone="squeezenet1_1", weights=str(path))
    loss = load_perceptual(config)
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(loss.features(x)["fire9"], net(x)["fire9"])
    vgg = PerceptualConfig(weight=1.0, weights=str(path))
    with pytest.raises(ModelUnavailableError, match="not the weights of VGG19Features"):
        load_perceptual(vgg)
    with pytest.raises(ConfigError, match=r"perceptual\.weights"):
        load_perceptual(PerceptualConfig(weight=1.0, backbone="squeezenet1_1"))


def test_the_log_of_a_resumed_run_has_no_step_twice(tmp_path: Path) -> None:
    quiet = tiny("runtime.tensorboard=false")
    with MetricsLog(tmp_path, quiet, resumed_at=0) as log:
        for total in (1, 2, 3):
            log.write("step", total, {"loss": total / 2})
    with (tmp_path / FILE).open("a") as file:
        file.write('{"kind": "step", "tot')
    with MetricsLog(tmp_path, quiet, resumed_at=2) as log:
        log.write("step", 3, {"loss": 9})
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert [(line["total"], line["loss"]) for line in lines] == [(1, 0.5), (2, 1.0), (3, 9)]


class FakeTracker(types.ModuleType):
    """Stands for wandb, mlflow and TensorBoard's module; keeps what it is called with."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.calls: list[tuple[Any, ...]] = []
        self.info = types.SimpleNamespace(run_id="abc")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **more: Any) -> FakeTracker:
            self.calls.append((name, *args, more))
            return self

        return call


def called(module: FakeTracker, name: str) -> list[tuple[Any, ...]]:
    return [call[1:] for call in module.calls if call[0] == name]


@pytest.fixture
def trackers(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeTracker]:
    names = ("wandb", "mlflow", "tensorboard", "torch.utils.tensorboard")
    found = {name: FakeTracker(name) for name in names}
    for name, module in found.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_trackers_get_the_numbers_and_a_resumed_run_continues_them(
    tmp_path: Path, trackers: dict[str, FakeTracker]
) -> None:
    config = tiny("runtime.wandb=true", "runtime.mlflow=true", "runtime.tensorboard=true")
    out = tmp_path / "mine"
    out.mkdir()
    for start in (0, 4):
        with MetricsLog(out, config, resumed_at=start) as log:
            log.write("step", start + 4, {"pixel": 0.5, "stage": "gan"})
    wandb, mlflow, board = (trackers[n] for n in ("wandb", "mlflow", "torch.utils.tensorboard"))
    first, second = (call[-1] for call in called(wandb, "init"))
    assert (first["project"], first["name"], first["resume"]) == ("realesr", "mine", "allow")
    assert first["config"]["recipe"] == config.recipe
    assert first["id"] == second["id"]
    assert called(wandb, "log") == [({"step/pixel": 0.5}, {"step": n}) for n in (4, 8)]
    assert len(called(wandb, "finish")) == 2
    assert [call[-1]["run_id"] for call in called(mlflow, "start_run")] == [None, "abc"]
    assert called(mlflow, "log_metrics") == [({"step/pixel": 0.5}, {"step": n}) for n in (4, 8)]
    assert len(called(mlflow, "log_dict")) == 1
    assert called(board, "add_scalar") == [("step/pixel", 0.5, n, {}) for n in (4, 8)]
    assert [call[-1]["purge_step"] for call in called(board, "SummaryWriter")] == [1, 5]


def test_nothing_is_logged_by_the_other_processes(
    tmp_path: Path, trackers: dict[str, FakeTracker]
) -> None:
    config = tiny("runtime.wandb=true")
    with MetricsLog(tmp_path, config, resumed_at=0, enabled=False) as log:
        log.write("step", 1, {"pixel": 0.5})
    assert list(tmp_path.iterdir()) == []
    assert trackers["wandb"].calls == []


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None)
    with pytest.raises(MissingDependencyError, match=rf"realesr-cli\[{name}\]"):
        check_trackers(RuntimeConfig(**{name: True}))


def test_checkpoints_are_listed_oldest_first(tmp_path: Path) -> None:
    assert list_checkpoints(tmp_path) == []
