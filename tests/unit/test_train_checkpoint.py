"""Checkpoints hold everything, land whole, are pruned, and say what is wrong with them."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch

from realesr_cli.errors import (
    CheckpointFormatError,
    ConfigError,
    ModelUnavailableError,
    WeightsWriteError,
)
from realesr_cli.nets.detection import architecture_from_plain
from realesr_cli.nets.discriminators import UNetDiscriminator
from realesr_cli.nets.features import SqueezeNetFeatures
from realesr_cli.train import checkpoint
from realesr_cli.train.checkpoint import (
    BEST,
    checkpoints,
    mark_best,
    prune,
    read_checkpoint,
    restore,
    save_checkpoint,
    save_generator,
    state_hash,
)
from realesr_cli.train.config import PerceptualConfig, TrainConfig
from realesr_cli.train.initialization import (
    starting_discriminator,
    starting_generator,
    starting_perceptual,
    to_fetch,
)
from realesr_cli.train.log import FILE, Log
from realesr_cli.train.machine import Machine
from realesr_cli.train.recipes import load_config
from realesr_cli.train.state import TrainState, new_generator, new_stage
from realesr_cli.weights.load import open_model
from realesr_cli.weights.model_files import load_model, read_state, save_safetensors

CPU = Machine(torch.device("cpu"))

TINY = (
    "generator.kind=compact", "generator.blocks=1", "generator.features=4", "data.patch=4",
    "discriminator.features=2", "perceptual.weight=0", "data.batch=2",
)  # fmt: skip


def tiny(*more: str) -> TrainConfig:
    return load_config("realesrgan-x4", [*TINY, *more])


def state_at(config: TrainConfig, step: int, stage: int = 1) -> TrainState:
    state = new_stage(config, CPU, stage=stage, generator=new_generator(config))
    state.progress.step = step
    return state


def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    config = tiny("degradation.pool=4")
    state = state_at(config, 7)
    state.progress.baseline = {"psnr": 1 / 3}
    for optimizer in (state.optimizer, state.d_optimizer):
        assert optimizer is not None
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.randn_like(p)
        optimizer.step()
    path = save_checkpoint(tmp_path, state, config)
    assert path.name == "2-gan-000000007.pt"
    found, progress, parts = read_checkpoint(path)
    assert found == config
    fresh = state_at(tiny("seed=9", "degradation.pool=4"), 0)
    restore(fresh, progress, parts, path)
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
    ("init", "told"),
    [
        ("x4plus", "x4plus"),
        ("a/b/mine.pth", "mine.pth"),
        ("C:\\a\\mine.pth", "mine.pth"),
        ("a/one.pth:b/two@2x.pth@0.5", "one.pth:two@2x.pth@0.5"),
        ("C:\\a\\one.pth:D:/two.pth@0.5", "one.pth:two.pth@0.5"),
        ("", ""),
    ],
)
def test_a_model_does_not_tell_the_folders_of_its_start(
    tmp_path: Path, init: str, told: str
) -> None:
    config = tiny(f"generator.init='{init}'")
    path = save_generator(tmp_path, state_at(tiny(), 1), config)
    assert read_state(path)[1]["training"]["generator"]["init"] == told


def test_only_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    config = tiny()
    for step in (1, 2, 30, 4):
        path = save_checkpoint(tmp_path, state_at(config, step), config)
        if step == 2:
            mark_best(path)
    early = save_checkpoint(tmp_path, state_at(config, 99, stage=0), config)
    assert early.name == "1-psnr-000000099.pt"
    prune(tmp_path, 2)
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["2-gan-000000004.pt", "2-gan-000000030.pt", BEST]
    assert read_checkpoint(tmp_path / "checkpoints" / BEST)[1].step == 2


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
    with pytest.raises(WeightsWriteError, match="make room"):
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
    with pytest.raises(WeightsWriteError, match=r"1\.pt is kept as it was.*--resume"):
        save_checkpoint(tmp_path, state_at(config, 2), config)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [old.name]
    assert old.read_bytes() == held
    with pytest.raises(WeightsWriteError, match="there is no older one"):
        save_checkpoint(tmp_path / "new", state_at(config, 2), config)


def test_a_damaged_checkpoint_is_refused_and_the_others_named(tmp_path: Path) -> None:
    config = tiny()
    paths = [save_checkpoint(tmp_path, state_at(config, step), config) for step in (1, 2)]
    mark_best(paths[0])
    paths[1].write_bytes(paths[1].read_bytes()[:2000])
    with pytest.raises(CheckpointFormatError, match=r"damaged.*1\.pt, best\.pt"):
        read_checkpoint(paths[1])
    alone = tmp_path / "other" / "checkpoints" / "1-psnr-000000001.pt"
    alone.parent.mkdir(parents=True)
    alone.write_bytes(b"")
    with pytest.raises(CheckpointFormatError, match="no other checkpoint"):
        read_checkpoint(alone)
    torch.save({"format": 99}, alone)
    with pytest.raises(CheckpointFormatError, match="no checkpoint that this version"):
        read_checkpoint(alone)


def test_a_checkpoint_of_another_make_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state_at(tiny(), 1), tiny())
    _, progress, parts = read_checkpoint(path)
    with pytest.raises(CheckpointFormatError, match=r"differ in .*pool"):
        restore(state_at(tiny("degradation.pool=4"), 0), progress, parts, path)
    with pytest.raises(CheckpointFormatError, match="does not fit this run"):
        restore(state_at(tiny("generator.features=8"), 0), progress, parts, path)


def test_the_generator_describes_itself(tmp_path: Path) -> None:
    config = tiny("checkpoints.pth=true", "data.gt=['/home/me/photos']")
    state = state_at(config, 5)
    path = save_generator(tmp_path, state, config)
    weights, told = read_state(path)
    assert architecture_from_plain(told["architecture"]) == config.architecture
    assert (told["scale"], told["recipe"], told["stage"], told["step"]) == (
        4, "realesrgan-x4", "gan", 5,
    )  # fmt: skip
    assert len(told["hash"]) == 64
    other = state_at(tiny("seed=1"), 5).ema.state_dict()
    assert told["hash"] == state_hash(weights) != state_hash(other)
    assert "/home/me" not in json.dumps(told)
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
    a, b = load_model(path).state_dict(), starting_generator(same).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(ConfigError, match="x4 network, but the run's scale is 2"):
        starting_generator(tiny(f"generator.init='{path}'", "scale=2"))
    with pytest.raises(ConfigError, match=r"set generator\.kind"):
        starting_generator(tiny(f"generator.init='{path}'", "generator.blocks=2"))


def test_a_start_of_another_scale_is_taken_but_for_its_first_layer(tmp_path: Path) -> None:
    sets = ("generator.kind=rrdb", "generator.growth=4", "data.patch=16")
    x4 = tiny(*sets, "seed=5")
    path = save_generator(tmp_path, state_at(x4, 5), x4)
    with pytest.raises(ConfigError, match=r"generator\.init_partial=true"):
        starting_generator(tiny(*sets, "scale=2", f"generator.init='{path}'"))
    adapting = (*sets, "scale=2", f"generator.init='{path}'", "generator.init_partial=true")
    config = tiny(*adapting)
    net = starting_generator(config)
    assert net.architecture == config.architecture
    given, own = load_model(path).state_dict(), net.state_dict()
    assert [k for k in own if not torch.equal(own[k], given[k])] == ["conv_first.weight"]
    # Network and average begin alike, first layer and all.
    state = new_stage(config, CPU, stage=0, generator=net)
    a, b = state.generator.state_dict(), state.ema.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(ConfigError, match="no tensor"):
        starting_generator(tiny("generator.kind=compact", *adapting[2:], "generator.features=8"))


def test_what_a_run_has_to_fetch_is_known_before(tmp_path: Path) -> None:
    def names(*sets: str, resumed: bool = False) -> list[str]:
        config = load_config("finetune", list(sets))
        return [entry.name for entry in to_fetch(config, resumed=resumed)]

    assert names() == ["RealESRGAN_x4plus", "vgg19"]
    assert names(resumed=True) == ["vgg19"]
    (tmp_path / "own.pth").touch()
    assert names("perceptual.weight=0", f"generator.init='{tmp_path / 'own.pth'}'") == []
    assert names("perceptual.weights=v.pth", "generator.init=''") == []


def test_a_discriminator_starts_from_its_file(tmp_path: Path) -> None:
    net = UNetDiscriminator(features=2)
    path = tmp_path / "netD.pth"
    torch.save({"params": net.state_dict()}, path)
    found = starting_discriminator(tiny(f"discriminator.init='{path}'"), 1)
    a, b = net.state_dict(), found.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(CheckpointFormatError, match="another shape"):
        starting_discriminator(tiny(f"discriminator.init='{path}'", "discriminator.features=4"), 1)


def test_no_vgg_is_told_with_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALESR_OFFLINE", "1")
    assert starting_perceptual(PerceptualConfig()) is None
    with pytest.raises(ModelUnavailableError) as caught:
        starting_perceptual(PerceptualConfig(weight=1.0))
    for way in ("models pull vgg19", "squeezenet1_1", "perceptual.weight=0"):
        assert way in str(caught.value)


def test_features_come_from_a_file_by_path(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = SqueezeNetFeatures(["conv1", "fire3", "fire5", "fire7", "fire9"])
    path = tmp_path / "squeezenet.safetensors"
    save_safetensors(path, net.state_dict(), {})
    config = PerceptualConfig(weight=1.0, backbone="squeezenet1_1", weights=str(path))
    loss = starting_perceptual(config)
    assert loss is not None
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(loss.features(x)["fire9"], net(x)["fire9"])
    vgg = PerceptualConfig(weight=1.0, weights=str(path))
    with pytest.raises(ModelUnavailableError, match="not the weights of VGG19Features"):
        starting_perceptual(vgg)
    with pytest.raises(ConfigError, match=r"perceptual\.weights"):
        starting_perceptual(PerceptualConfig(weight=1.0, backbone="squeezenet1_1"))


def test_the_log_of_a_resumed_run_has_no_step_twice(tmp_path: Path) -> None:
    log = Log(tmp_path, resumed_at=0, tensorboard=False)
    for total in (1, 2, 3):
        log.write("step", total, {"loss": total / 2})
    log.close()
    with (tmp_path / FILE).open("a") as file:
        file.write('{"kind": "step", "tot')
    log = Log(tmp_path, resumed_at=2, tensorboard=False)
    log.write("step", 3, {"loss": 9})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert [(line["total"], line["loss"]) for line in lines] == [(1, 0.5), (2, 1.0), (3, 9)]


def test_tensorboard_gets_the_numbers_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points: list[tuple[str, float, int]] = []

    class Writer:
        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            points.append((tag, scalar_value, global_step))

        def close(self) -> None:
            points.append(("closed", 0, 0))

    monkeypatch.setattr("realesr_cli.train.log._tensorboard", lambda *a: Writer())
    log = Log(tmp_path, resumed_at=0, tensorboard=True)
    log.write("step", 4, {"pixel": 0.5, "stage": "gan"})
    log.close()
    assert points == [("step/pixel", 0.5, 4), ("closed", 0, 0)]


def test_checkpoints_are_listed_oldest_first(tmp_path: Path) -> None:
    assert checkpoints(tmp_path) == []
