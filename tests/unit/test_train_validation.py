"""Validation images, scores and sheets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from realesr_cli.nets.compact import Compact, CompactArchitecture
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.events import Scores
from realesr_cli.train.files import TrainingImage
from realesr_cli.train.recipes import load_config
from realesr_cli.train.validation import (
    LABEL,
    ValidationSample,
    compute_scores,
    prepare_samples,
    save_sheet,
    upscale_bicubic,
    upscale_samples,
)


def image(
    path: Path, height: int = 70, width: int = 90, *, lq: Path | None = None
) -> TrainingImage:
    rng = np.random.default_rng(height)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return TrainingImage(path, height, width, lq)


def config(*sets: str) -> TrainConfig:
    return load_config("realesrgan-x4", list(sets))


def test_samples_are_cropped_to_the_grid_and_degraded_alike_every_time(tmp_path: Path) -> None:
    images = [image(tmp_path / "a.png"), image(tmp_path / "b.png", 75, 61)]
    samples = prepare_samples(images, config("validation.side=48", "validation.crops=1"))
    assert [(s.gt.shape, s.lq.shape) for s in samples] == [((48, 48, 3), (12, 12, 3))] * 2
    again = prepare_samples(images, config("validation.side=48", "validation.crops=1"))
    assert all(np.array_equal(a.lq, b.lq) for a, b in zip(samples, again, strict=True))
    other = prepare_samples(images, config("validation.side=48", "seed=1"))
    assert not np.array_equal(samples[0].lq, other[0].lq)
    uncropped = prepare_samples(images, config("validation.side=0", "validation.crops=1"))
    assert [s.gt.shape for s in uncropped] == [(68, 88, 3), (72, 60, 3)]


def test_paired_samples_keep_their_own_low_quality_version(tmp_path: Path) -> None:
    gt = image(tmp_path / "gt.png", 64, 80)
    small = Image.open(gt.gt).resize((20, 16), Image.Resampling.BOX)
    small.save(tmp_path / "lq.png")
    pair = TrainingImage(gt.gt, 64, 80, tmp_path / "lq.png")
    one = prepare_samples([pair], config("validation.side=32"))[0]
    assert np.array_equal(one.lq, np.asarray(small)[4:12, 6:14])
    assert np.array_equal(one.gt, np.asarray(Image.open(gt.gt))[16:48, 24:56])


def test_few_images_are_validated_on_several_crops_and_draws(tmp_path: Path) -> None:
    """Scores of a single crop with a single degradation would be mostly chance."""
    one, two = image(tmp_path / "a.png"), image(tmp_path / "b.png", 80, 96)
    alone = prepare_samples([one], config("validation.side=48"))
    assert len(alone) == 8
    assert len({s.gt.tobytes() for s in alone}) > 4
    assert len({s.lq.tobytes() for s in alone}) == 8
    # The first is the center, as if there were no others; images come in turn.
    centers = prepare_samples([one], config("validation.side=48", "validation.crops=1"))
    assert np.array_equal(alone[0].lq, centers[0].lq)
    both = prepare_samples([one, two], config("validation.side=48"))
    assert [s.name for s in both] == ["a", "b"] * 4
    # Of a whole image only the degradation differs; a real pair is not repeated.
    whole = prepare_samples([one], config("validation.side=0", "validation.crops=3"))
    assert len({s.gt.tobytes() for s in whole}) == 1
    assert len({s.lq.tobytes() for s in whole}) == 3
    Image.open(one.gt).crop((0, 0, 88, 68)).save(tmp_path / "gt.png")
    Image.open(one.gt).resize((22, 17)).save(tmp_path / "lq.png")
    pair = TrainingImage(tmp_path / "gt.png", 68, 88, tmp_path / "lq.png")
    assert len(prepare_samples([pair], config("validation.side=0"))) == 1


def sample(size: int = 64) -> ValidationSample:
    rng = np.random.default_rng(1)
    lq = rng.integers(60, 200, (size // 4, size // 4, 3), dtype=np.uint8)
    return ValidationSample("s", lq.repeat(4, 0).repeat(4, 1), lq)


def test_scores_are_means_and_color_is_the_largest_shift() -> None:
    one = sample()
    shifted = one.gt.copy()
    shifted[..., 2] += 5
    found = compute_scores([one, one], [one.gt, shifted], 4)
    assert found.psnr == pytest.approx((100 + 10 * np.log10(3 * 255**2 / 25)) / 2)
    assert found.color == pytest.approx(2.5)
    assert 0.99 < found.ssim < 1
    assert compute_scores([one], [one.gt], 4) == Scores(100.0, 1.0, 0.0)


def test_samples_are_upscaled_by_the_network_itself() -> None:
    net = Compact(CompactArchitecture(4, 1, 4))
    last = net.body[-1]
    assert isinstance(last, nn.Conv2d)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    threads = torch.get_num_threads()
    outputs = upscale_samples(net, [sample()], torch.device("cpu"))
    # Without its last layer the network is the nearest-neighbor enlargement.
    assert np.array_equal(outputs[0], sample().gt)
    assert torch.get_num_threads() == threads


def test_bicubic_has_the_size_of_the_ground_truth() -> None:
    output = upscale_bicubic([sample()], 4)[0]
    assert output.shape == sample().gt.shape
    assert compute_scores([sample()], [output], 4).psnr < 40


def test_a_sheet_has_a_labeled_row_for_each_of_the_first_images(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "sheet.png"
    samples = [sample(), sample(400), sample()]
    save_sheet(path, samples, [s.gt for s in samples], 2)
    sheet = np.asarray(Image.open(path))
    row = 256 + LABEL
    assert sheet.shape == (2 * row, 768, 3)
    # Above each image its name, in black on white.
    for top in (0, row):
        for left in (0, 256, 512):
            label = sheet[top : top + LABEL, left : left + 256]
            assert (label < 128).any()
            assert (label == 255).mean() > 0.5
    assert np.array_equal(sheet[LABEL : LABEL + 64, :64], sheet[LABEL : LABEL + 64, 256:320])
    assert np.array_equal(sheet[row + LABEL :, 512:], samples[1].gt[72:328, 72:328])


def test_a_sheet_of_small_images_is_small(tmp_path: Path) -> None:
    save_sheet(tmp_path / "sheet.png", [sample()], [sample().gt], 4)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (3 * 64, 64 + LABEL)
        short = np.asarray(sheet)
    # A long name does not run into the next label.
    one = dataclasses.replace(sample(), name="a-very-long-name" * 5)
    save_sheet(tmp_path / "long.png", [one], [one.gt], 4)
    with Image.open(tmp_path / "long.png") as sheet:
        assert np.array_equal(np.asarray(sheet)[:, 64:], short[:, 64:])


def test_small_images_are_scored_without_ssim() -> None:
    tiny = ValidationSample("t", np.full((8, 8, 3), 9, np.uint8), np.full((2, 2, 3), 9, np.uint8))
    assert compute_scores([tiny], [tiny.gt], 4).ssim == 0.0


def test_images_too_small_for_the_perceptual_distance_are_left_out() -> None:
    class Distance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            assert min(a.shape[-2:]) >= 32
            return torch.full((1,), 0.25)

    small, large = sample(16), sample(64)
    assert compute_scores([small], [small.gt], 4, Distance()).perceptual is None
    assert compute_scores([small, large], [small.gt, large.gt], 4, Distance()).perceptual == 0.25
