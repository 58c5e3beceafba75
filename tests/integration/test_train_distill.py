"""Distillation: a small network learns the images of another one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import CPU, Memory, make_images, run, tiny_config
from torch import nn

from realesr_cli.degrade.pairs import Pair
from realesr_cli.errors import ConfigError, ModelUnavailableError, UnknownModelError
from realesr_cli.nets.compact import Compact, CompactArchitecture
from realesr_cli.ops.resize import imresize
from realesr_cli.train.checkpoint import list_checkpoints, read_checkpoint
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.cropping import CropBatch
from realesr_cli.train.data import PinnedCrops, degrade_crops
from realesr_cli.train.machine import Stopwatch
from realesr_cli.train.networks import find_downloads
from realesr_cli.train.recipes import load_config
from realesr_cli.train.session import open_session
from realesr_cli.train.state import init_compact, new_generator, new_stage
from realesr_cli.train.step import compute_gradients, make_setup
from realesr_cli.train.teacher import Teacher, load_teacher
from realesr_cli.weights.load import load_model
from realesr_cli.weights.model_files import model_metadata, save_safetensors
from realesr_cli.weights.registry import find

FAST = (
    "distill.precision=fp32", "generator.kind=compact", "generator.blocks=2", "validation.every=0",
    "generator.features=8", "optimizer.lr=5e-3", "schedule.warmup=0", "data.margin=1.0",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


def make_teacher(scale: int = 4, seed: int = 5, noise: float = 0.3) -> Compact:
    """A network that adds something of its own to the nearest-neighbor image."""
    torch.manual_seed(seed)
    net = CompactArchitecture(scale, 2, 8).build()
    init_compact(net)
    last = net.body[-1]
    assert isinstance(last, nn.Conv2d)
    with torch.no_grad():
        last.weight.normal_(0, noise)
    return net


def save(net: Compact, path: Path) -> Path:
    save_safetensors(path, net.state_dict(), model_metadata(net.architecture))
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(make_teacher(), tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


def distill(data: Path, teacher: Path | str, *sets: str) -> TrainConfig:
    return tiny_config(data, *FAST, f"distill.teacher='{teacher}'", *sets, recipe="distill")


def psnr_to(teacher: nn.Module, student: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        error = (teacher(x).clamp(0, 1) - student(x).clamp(0, 1)).square().mean()
    return float(-10 * torch.log10(error))


def photo(data: Path) -> torch.Tensor:
    from PIL import Image

    pixels = np.asarray(Image.open(next(iter(sorted(data.iterdir())))))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def test_a_student_approaches_its_teacher(data: Path, teacher: Path, tmp_path: Path) -> None:
    sets = (
        "iterations=150",
        "pixel.weight=0",
        "ema.decay=0",
        "data.inputs=['undegraded']",
        "data.input_shares=[]",
    )
    config = distill(data, teacher, *sets)
    x, master = photo(data), load_model(teacher)
    before = psnr_to(master, new_generator(config), x)
    run(config, tmp_path / "run")
    after = psnr_to(master, load_model(tmp_path / "run"), x)
    assert after > before + 6


def test_stopping_and_resuming_a_distillation_changes_nothing(
    data: Path, teacher: Path, tmp_path: Path
) -> None:
    config = distill(data, teacher, "iterations=4")
    run(config, tmp_path / "whole")
    with pytest.raises(Exception, match="stopped after step 2"):
        run(config, tmp_path / "parts", Memory(stop_after=2))
    run(config, tmp_path / "parts", resume=True)
    one, other = (
        read_checkpoint(list_checkpoints(tmp_path / name)[-1]).parts["generator"]
        for name in ("whole", "parts")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_teachers_that_do_not_fit_are_refused(data: Path, teacher: Path, tmp_path: Path) -> None:
    x2 = save(make_teacher(2), tmp_path / "x2.safetensors")
    for name, error, message in (
        (x2, ConfigError, r"x2\.safetensors is a x2 network.*scale is 4"),
        ("", ConfigError, r"distill\.teacher"),
        ("x4pluss", UnknownModelError, r"distill\.teacher.*x4pluss"),
        (tmp_path / "gone.pth", UnknownModelError, r"gone\.pth"),
    ):
        with pytest.raises(error, match=message):
            open_session(distill(data, name), tmp_path / "run", CPU)
    with pytest.raises(ConfigError, match=r"distill\.weight is 0"):
        load_config("compact-x4", [f"distill.teacher='{teacher}'"])
    with pytest.raises(ConfigError, match=r"undegraded.*teacher"):
        load_config("compact-x4", ["data.inputs=['undegraded']", "data.input_shares=[]"])
    with pytest.raises(ConfigError, match="no teacher"):
        load_config("compact-x4", ["pixel.teacher_target=true"])


def test_a_teacher_that_cannot_be_downloaded_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALESR_OFFLINE", "1")
    config = distill(data, "x4plus")
    assert find_downloads(config) == (find("x4plus"),)
    assert len(find_downloads(distill(data, "x4plus:RealESRNet_x4plus@0.5"))) == 2
    with pytest.raises(ModelUnavailableError, match=r"distill\.teacher.*RealESRGAN_x4plus"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_may_be_a_mixture_or_blended_with_its_input(
    teacher: Path, tmp_path: Path
) -> None:
    other = save(make_teacher(seed=6), tmp_path / "b.safetensors")
    x = torch.rand(2, 3, 8, 8)
    mixture = f"{teacher}:{other}@0.25"
    image = load_teacher(mixture, precision="fp32", strength=1.0)(x)
    with torch.no_grad():
        wanted = load_model(mixture)(x).clamp(0, 1)
    torch.testing.assert_close(image, wanted, atol=1e-5, rtol=0)
    half = load_teacher(mixture, precision="fp32", strength=0.5)(x)
    blend = (wanted + imresize(x, 4).clamp(0, 1)) / 2
    torch.testing.assert_close(half, blend, atol=1e-5, rtol=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_teacher_has_nothing_to_train(precision: str) -> None:
    net = make_teacher(noise=0.05)
    guide = Teacher(net, precision=precision, strength=1.0)  # type: ignore[arg-type]
    assert not list(guide.parameters())
    assert not guide.state_dict()
    x = torch.rand(1, 3, 16, 16)
    image = guide(x)
    assert not image.requires_grad
    assert not image.is_inference()
    assert image.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(image, net(x).clamp(0, 1), atol=1e-2, rtol=0)


def crops(config: TrainConfig, count: int, seed: int = 0) -> PinnedCrops:
    rng = np.random.default_rng(seed)
    side = config.data.crop(config.scale, paired=False)
    gt = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return PinnedCrops.of(CropBatch(gt, None, None, rng), CPU)


def test_inputs_are_mixed_in_their_shares(data: Path, teacher: Path) -> None:
    config = distill(
        data, teacher, "data.inputs=['undegraded','light','esrgan']", "data.patch=4",
        "data.input_shares=[2,1,1]",
    )  # fmt: skip
    batch = crops(config, 60)
    pair = degrade_crops(batch, config, CPU)
    assert (pair.lq.shape, pair.gt.shape) == ((60, 3, 4, 4), (60, 3, 16, 16))
    assert pair.without_gt is not None
    count = int(pair.without_gt.sum())
    assert 20 <= count <= 40
    # Undegraded inputs are cut out of the image as they are.
    assert batch.gt is not None
    windows = batch.gt.numpy().astype(np.float32) / 255
    cut = pair.lq[pair.without_gt][0].permute(1, 2, 0).numpy()
    views = np.lib.stride_tricks.sliding_window_view(windows, (4, 4), axis=(1, 2))
    assert (np.abs(views.transpose(0, 1, 2, 4, 5, 3) - cut).max((3, 4, 5)) < 1e-6).any()
    again = degrade_crops(crops(config, 60), config, CPU)
    assert torch.equal(pair.lq, again.lq)
    # Without these settings nothing else is drawn.
    plain = dataclasses.replace(config, data=dataclasses.replace(config.data, inputs=("degraded",),
                                                                 input_shares=()))  # fmt: skip
    assert degrade_crops(crops(plain, 2), plain, CPU).without_gt is None


def test_the_teachers_image_is_the_target_where_there_is_no_other(
    data: Path, teacher: Path
) -> None:
    config = distill(
        data, teacher, "data.inputs=['undegraded']", "data.input_shares=[]", "distill.weight=0.5"
    )
    guide = load_teacher(str(teacher), precision="fp32", strength=1.0)
    state = new_stage(config, CPU, stage=0, generator=new_generator(config))
    setup = make_setup(config, CPU, state, networks={"distill": guide})
    pair = degrade_crops(crops(config, 2), config, CPU)
    losses = compute_gradients(state, setup, [pair], Stopwatch(CPU)).generator.losses  # type: ignore[union-attr]
    assert losses["distill"] == pytest.approx(0.5 / 0.25 * losses["pixel"])
    # With a ground truth the two differ, unless the loss is told to take the teacher's image.
    full = Pair(pair.lq, torch.rand_like(pair.gt), torch.rand_like(pair.gt))
    losses = compute_gradients(state, setup, [full], Stopwatch(CPU)).generator.losses  # type: ignore[union-attr]
    assert losses["distill"] != pytest.approx(2 * losses["pixel"], rel=1e-3)
    taught = distill(data, teacher, "pixel.teacher_target=true", "distill.weight=0.5")
    setup = make_setup(taught, CPU, state, networks={"distill": guide})
    losses = compute_gradients(state, setup, [full], Stopwatch(CPU)).generator.losses  # type: ignore[union-attr]
    assert losses["distill"] == pytest.approx(2 * losses["pixel"])


def test_the_model_names_its_teacher_without_its_folder(
    data: Path, teacher: Path, tmp_path: Path
) -> None:
    from realesr_cli.weights.checkpoints import read_state

    run(distill(data, teacher, "iterations=1"), tmp_path / "run")
    _, metadata = read_state(tmp_path / "run" / "generator.safetensors")
    assert metadata["training"]["stages"][0]["distill"]["teacher"] == "teacher.safetensors"
