"""What `compare` gives: which versions, which scores, and what it refuses."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from comparison_samples import save_net, save_photo
from PIL import Image as pillow

from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import CancelledError, ConfigError, DatasetError, UnreadableImageError
from realesr_cli.evaluate.comparison import Comparison, PhotoVersion, best_of, printable, score_text
from realesr_cli.evaluate.settings import CompareSettings
from realesr_cli.evaluate.side_by_side import CompareCallbacks, compare, upscale_bicubic
from realesr_cli.image.read import read_image
from realesr_cli.image.types import Image
from realesr_cli.metrics.niqe import niqe
from realesr_cli.metrics.reference import psnr, ssim
from realesr_cli.ops.resize import imresize
from realesr_cli.weights.load import load_model

CPU = EngineSettings(device="cpu", precision="fp32", threads=1, backend="torch")


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return save_net(tmp_path / "net.pth")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return save_photo(tmp_path / "photo.png")


def made(*photos: Path, models: list[Path], **given: Any) -> Comparison:
    return compare(photos, models, engine=CPU, **given)


def tensor(image: Image) -> torch.Tensor:
    return torch.from_numpy(image.pixels.astype(np.float64) / 255).permute(2, 0, 1)


def test_versions_and_their_pixels(net: Path, small: Path) -> None:
    result = made(small, models=[net])
    (photo,) = result.photos
    assert result.scale == 4
    assert (photo.name, photo.height, photo.width) == ("photo.png", 80, 120)
    assert [v.kind for v in photo.versions] == ["input", "bicubic", "model"]
    source, plain, enlarged = (v.image for v in photo.versions)
    image = read_image(small)
    assert np.array_equal(source.pixels, image.pixels)
    expected = imresize(tensor(image)[None], 4)[0].clamp(0, 1) * 255
    assert np.abs(plain.pixels - expected.permute(1, 2, 0).numpy()).max() <= 0.5 + 1e-9
    assert np.array_equal(enlarged.pixels, Upscaler(load_model(net), CPU)(image).pixels)
    assert photo.versions[2].seconds is not None
    assert photo.versions[1].seconds is None


def test_summaries_of_models(net: Path, small: Path) -> None:
    (summary,) = made(small, models=[net]).models
    (file,) = summary.files
    assert (summary.name, summary.scale, file.name) == ("net", 4, "net.pth")
    assert file.sha256 == hashlib.sha256(net.read_bytes()).hexdigest()
    assert (summary.device, summary.precision, summary.backend) == ("cpu", "fp32", "torch")
    assert "Compact" in summary.network


@pytest.mark.parametrize("channel", ["y", "rgb"])
def test_scores_against_an_original(
    net: Path, small: Path, tmp_path: Path, channel: Literal["y", "rgb"]
) -> None:
    truth = save_photo(tmp_path / "gt.png", 120, 80)
    settings = CompareSettings(channel=channel)
    (photo,) = made(small, models=[net], originals=[truth], settings=settings).photos
    assert [v.kind for v in photo.versions] == ["input", "bicubic", "model", "original"]
    target = tensor(read_image(truth))
    for version in photo.versions[1:3]:
        img = tensor(version.image)
        luma = channel == "y"
        assert version.scores == {
            f"psnr-{channel}": psnr(img, target, crop=4, luma=luma),
            f"ssim-{channel}": ssim(img, target, crop=4, luma=luma),
        }
    assert not photo.versions[0].scores
    assert not photo.versions[3].scores


def test_niqe_without_an_original(net: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "photo.png"
    pillow.fromarray(rng.integers(0, 256, (52, 50, 3), dtype=np.uint8)).save(path)
    (photo,) = made(path, models=[net]).photos
    for version in photo.versions[1:]:
        assert version.scores == {"niqe": niqe(tensor(version.image), crop=4)}
    assert not photo.versions[0].scores


def test_too_small_for_a_score_is_said(net: Path, small: Path) -> None:
    (photo,) = made(small, models=[net]).photos
    assert not any(version.scores for version in photo.versions)
    assert len(photo.notes) == 1
    assert photo.notes[0].startswith("not scored: NIQE needs")
    (quiet,) = made(small, models=[net], settings=CompareSettings(scores=False)).photos
    assert quiet.notes == ()


def test_gray_stays_gray(net: Path, tmp_path: Path) -> None:
    path = save_photo(tmp_path / "gray.png", mode="L")
    (photo,) = made(path, models=[net]).photos
    assert [v.image.channels for v in photo.versions] == [1, 1, 1]


def test_alpha_is_kept_and_color_does_not_bleed(net: Path, tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 4), np.uint8)
    pixels[:, :15] = (200, 40, 40, 255)
    path = tmp_path / "cut.png"
    pillow.fromarray(pixels).save(path)
    (photo,) = made(path, models=[net]).photos
    assert all(version.image.has_alpha for version in photo.versions)
    plain = photo.versions[1].image
    assert plain.alpha is not None
    visible = plain.pixels[plain.alpha > 0]
    assert np.abs(visible.astype(int) - (200, 40, 40)).max() <= 1
    assert any("over white" in note for note in photo.notes)


def test_transparent_pixels_are_scored_over_white(net: Path, tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 4), np.uint8)
    path, truth = tmp_path / "clear.png", tmp_path / "gt.png"
    pillow.fromarray(pixels).save(path)
    pillow.new("RGB", (120, 80), "white").save(truth)
    (photo,) = made(path, models=[net], originals=[truth]).photos
    assert photo.versions[1].scores["psnr-rgb"] == float("inf")


def test_sixteen_bits_become_eight_at_the_end(net: Path, tmp_path: Path) -> None:
    ramp = np.linspace(20000, 20514, 30).astype(np.uint16)
    pixels = np.repeat(np.tile(ramp, (20, 1))[..., None], 3, axis=2)
    path = tmp_path / "deep.png"
    Image(pixels).save(path)
    (photo,) = made(path, models=[net]).photos
    assert all(version.image.bits == 8 for version in photo.versions)
    assert any("16 bits" in note for note in photo.notes)
    enlarged = imresize(torch.from_numpy(pixels / 65535.0).permute(2, 0, 1)[None], 4)[0] * 255
    error = photo.versions[1].image.pixels - enlarged.permute(1, 2, 0).numpy()
    assert np.abs(error).max() <= 0.5 + 1e-9, "rounded to 8 bits before it was enlarged"


def test_orientation_is_applied(net: Path, tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    image = pillow.radial_gradient("L").resize((30, 20)).convert("RGB")
    exif = pillow.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    (photo,) = made(path, models=[net]).photos
    assert (photo.width, photo.height) == (80, 120)
    assert all(version.image.exif is None for version in photo.versions)


def test_bicubic_keeps_the_profile() -> None:
    image = Image(np.zeros((4, 4, 3), np.uint8), icc=b"profile")
    assert upscale_bicubic(image, 2).icc == b"profile"


def test_models_of_different_scale_are_refused(net: Path, small: Path, tmp_path: Path) -> None:
    other = save_net(tmp_path / "double.pth", scale=2)
    with pytest.raises(ConfigError, match="net x4, double x2"):
        made(small, models=[net, other])


def test_nothing_to_compare(net: Path, small: Path) -> None:
    with pytest.raises(ConfigError, match="photo"):
        made(models=[net])
    with pytest.raises(ConfigError, match="model"):
        made(small, models=[])


def test_the_same_twice_is_refused(net: Path, small: Path) -> None:
    with pytest.raises(ConfigError, match=r"two rows would be named .*net\.pth"):
        made(small, models=[net, net])
    with pytest.raises(ConfigError, match=r"photo .*photo\.png is given twice"):
        made(small, small, models=[net])


def test_equal_names_are_shown_with_their_folders(net: Path, small: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    other = save_net(tmp_path / "b" / "net.pth", seed=8)
    again = save_photo(tmp_path / "b" / "photo.png")
    result = made(small, again, models=[net, other])
    assert [model.name for model in result.models] == [str(net), str(other)]
    assert [photo.name for photo in result.photos] == [str(small), str(again)]


def test_a_mixture_names_both_files(net: Path, small: Path, tmp_path: Path) -> None:
    save_net(tmp_path / "other.pth", seed=8)
    (summary,) = compare([small], [f"{net}:{tmp_path / 'other.pth'}@0.25"], engine=CPU).models
    assert [(f.name, f.share) for f in summary.files] == [("net.pth", 0.75), ("other.pth", 0.25)]


def test_number_of_originals(net: Path, small: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 originals for 1 photos"):
        made(small, models=[net], originals=[small, small])


def test_original_of_another_size(net: Path, small: Path, tmp_path: Path) -> None:
    truth = save_photo(tmp_path / "gt.png", 119, 80)
    with pytest.raises(DatasetError, match=r"gt.png has 119x80 .*photo.png upscaled x4 has 120x80"):
        made(small, models=[net], originals=[truth])


def test_unreadable_photo_among_many(net: Path, small: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    result = made(bad, small, models=[net])
    assert [photo.name for photo in result.photos] == ["photo.png"]
    (failure,) = result.failures
    assert failure.name == "bad.png"
    assert str(bad) in failure.error


def test_only_unreadable_photos(net: Path, tmp_path: Path) -> None:
    bad, missing = tmp_path / "bad.png", tmp_path / "missing.png"
    bad.write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=r"bad\.png"):
        made(bad, models=[net])
    with pytest.raises(DatasetError, match=r"(?s)none of the 2 photos.*bad.png.*missing.png"):
        made(bad, missing, models=[net])


def test_cancelled(net: Path, small: Path) -> None:
    with pytest.raises(CancelledError):
        made(small, models=[net], callbacks=CompareCallbacks(stop_requested=lambda: True))


def test_steps_are_reported(net: Path, small: Path) -> None:
    steps: list[str] = []
    made(small, models=[net], callbacks=CompareCallbacks(step=steps.append))
    assert steps == ["photo.png, net", "photo.png, scores"]


def test_names_are_made_printable() -> None:
    assert printable("plain é.png") == "plain é.png"
    assert printable("two\nlines") == "two\N{REPLACEMENT CHARACTER}lines"
    assert printable(os.fsdecode(b"\xff.png")) == "\N{REPLACEMENT CHARACTER}.png"


def test_score_text() -> None:
    assert score_text("psnr-y", 28.42001) == "28.420"
    assert score_text("psnr-y", float("inf")) == "∞"


def test_best_of() -> None:
    img = Image(np.zeros((1, 1, 1), np.uint8))
    a, b, c = (
        PhotoVersion(name, "model", img, scores={"psnr-y": p, "niqe": n})
        for name, p, n in (("a", 30.0001, 4.0), ("b", 30.0002, 5.0), ("c", 29.0, 6.0))
    )
    none = PhotoVersion("d", "input", img)
    assert best_of("psnr-y", [a, b, c, none]) == (a, b), "equal as far as is shown"
    assert best_of("niqe", [a, b, c, none]) == (a,)
    assert best_of("ssim-y", [none]) == ()
