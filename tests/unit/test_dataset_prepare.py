"""Smaller versions and squares: sizes, names, edges, pairs, going on, and what cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from realesr_cli.dataset import crops as P
from realesr_cli.dataset.prepare import (
    SETTINGS_FILE,
    measure_detail,
    prepare,
    resize_pixels,
)
from realesr_cli.dataset.settings import PrepareSettings
from realesr_cli.errors import ConfigError, DatasetError, ImageWriteError

SMALL = PrepareSettings(scales=(0.5,), shortest_edge=24, crop_size=20, step=10, workers=1)
PAIRED = replace(SMALL, scales=(), shortest_edge=0, crop_size=20, step=12)


def save(path: Path, height: int, width: int) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_versions_are_the_published_ones() -> None:
    made = P.scaled_versions((1200, 2040), PrepareSettings())
    assert [(v.suffix, v.size) for v in made] == [
        ("", (1200, 2040)),
        ("_T0", (900, 1530)),
        ("_T1", (600, 1020)),
        ("_T2", (400, 680)),
        ("_T3", (400, 680)),
    ]


def test_nothing_is_enlarged() -> None:
    made = P.scaled_versions((300, 500), PrepareSettings())
    assert [version.suffix for version in made] == ["", "_T0", "_T1", "_T2"]


@pytest.mark.parametrize(
    ("length", "rest", "starts"),
    [
        (400, 0, [0]),
        (399, 0, []),
        (600, 0, [0, 200]),
        (650, 0, [0, 200, 250]),
        (650, 50, [0, 200]),
        (1000, 0, [0, 200, 400, 600]),
    ],
)
def test_crops_reach_the_edge(length: int, rest: int, starts: list[int]) -> None:
    settings = PrepareSettings(thresh_size=rest)
    assert [top for top, _ in P.crop_corners((length, 400), settings)] == starts
    for start in starts:
        assert start + settings.crop_size <= length


def test_files(tmp_path: Path) -> None:
    original = save(tmp_path / "in" / "sub" / "a.png", 30, 48)
    sources = P.find_source_images(tmp_path / "in", None, SMALL)
    done = prepare(sources, tmp_path / "out", SMALL)
    # 30x48: 2 rows of 4; 15x24 holds no square; 24x38: 2 rows of 3.
    found = names(tmp_path / "out")
    assert len(found) == 8 + 6 == done.written == P.count_crops(sources, SMALL)
    assert found[0] == "sub/a_T1_s001.png"
    assert found[-1] == "sub/a_s008.png"
    assert np.array_equal(pixels(tmp_path / "out/sub/a_s001.png"), original[:20, :20])
    assert np.array_equal(pixels(tmp_path / "out/sub/a_s008.png"), original[10:30, 28:48])


def test_smaller_versions_are_pillows_lanczos(tmp_path: Path) -> None:
    coarse = Image.fromarray(save(tmp_path / "a.png", 6, 9))
    original = np.array(coarse.resize((90, 60), Image.Resampling.BICUBIC))
    theirs = np.array(Image.fromarray(original).resize((45, 30), Image.Resampling.LANCZOS))
    difference = np.abs(resize_pixels(original, (30, 45)).astype(int) - theirs)
    assert difference.max() <= 1


def test_depth_is_kept() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (20, 20, 1), dtype=np.uint16)
    assert resize_pixels(deep, (10, 10)).dtype == np.uint16
    floats = np.random.default_rng(0).random((20, 20, 3), dtype=np.float32)
    made = resize_pixels(floats, (10, 10))
    assert made.dtype == np.float32
    assert made.min() >= 0
    assert made.max() <= 1


def test_whole_images(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", 40, 60)
    settings = replace(SMALL, crop_size=0)
    prepare(P.find_source_images(tmp_path / "in", None, settings), tmp_path / "out", settings)
    assert names(tmp_path / "out") == ["a.png", "a_T0.png", "a_T1.png"]
    assert P.count_crops(P.find_source_images(tmp_path / "in", None, settings), settings) == 3


def test_crops_without_detail_are_excluded(tmp_path: Path) -> None:
    textured = save(tmp_path / "in" / "a.png", 40, 80)
    textured[:, 40:] = 128
    textured[:, 60:] = 255  # one edge, however strong
    Image.fromarray(textured).save(tmp_path / "in" / "a.png")
    settings = replace(SMALL, scales=(), shortest_edge=0, crop_size=40, step=40, min_detail=2.5)
    sources = P.find_source_images(tmp_path / "in", None, settings)
    assert P.count_crops(sources, settings) == 2
    for _ in range(2):
        done = prepare(sources, tmp_path / "out", settings)
        assert names(tmp_path / "out") == ["a_s001.png"]
        assert done.low_detail == 1
    assert (done.written, done.existing) == (0, 1)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_detail_is_measured_in_codes_whatever_the_depth(kind: type) -> None:
    white = 1.0 if kind is np.float32 else np.iinfo(kind).max
    noise = np.random.default_rng(0).normal(0.5, 5 / 255, (64, 64, 1))
    found = measure_detail((noise * white).round(0 if white > 1 else 6).astype(kind))
    # Studio luma takes 219 of 255; a Gaussian of one pixel leaves all but 0.28 of white noise's
    # deviation out, 2 * 0.1592 - 0.0796 of its energy.
    energy = (5 * 219 / 255) ** 2 * (1 - 2 * 0.1592 + 0.0796)
    assert found == pytest.approx(np.sqrt(energy + 1), rel=0.06)
    assert measure_detail(np.full((64, 64, 3), white / 2).astype(kind)) == pytest.approx(1)


def test_pairs_stay_aligned(tmp_path: Path) -> None:
    small = save(tmp_path / "lq" / "ax4.png", 8, 11)
    big = small.repeat(4, axis=0).repeat(4, axis=1)
    (tmp_path / "gt").mkdir()
    Image.fromarray(big).save(tmp_path / "gt" / "a.png")
    settings = replace(PAIRED, lq_suffix="x4")
    sources = P.find_source_images(tmp_path / "gt", tmp_path / "lq", settings)
    done = prepare(sources, tmp_path / "out", settings)
    assert names(tmp_path / "out" / "gt") == names(tmp_path / "out" / "lq")
    assert done.written == len(names(tmp_path / "out" / "gt")) == 6
    for name in names(tmp_path / "out" / "gt"):
        low = pixels(tmp_path / "out" / "lq" / name)
        high = pixels(tmp_path / "out" / "gt" / name)
        assert high.shape[:2] == (20, 20)
        assert np.array_equal(low.repeat(4, axis=0).repeat(4, axis=1), high)


def test_goes_on_where_it_was(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", 30, 48)
    sources = P.find_source_images(tmp_path / "in", None, SMALL)
    prepare(sources, tmp_path / "out", SMALL)
    (tmp_path / "out" / "a_s002.png").unlink()
    kept = tmp_path / "out" / "a_s001.png"
    kept.write_bytes(b"mine")
    again = prepare(sources, tmp_path / "out", replace(SMALL, workers=2))
    assert (again.written, again.existing) == (1, 13)
    assert kept.read_bytes() == b"mine"
    assert prepare(sources, tmp_path / "out", SMALL, overwrite=True).written == 14
    assert kept.read_bytes() != b"mine"


def test_a_missing_partner_is_made_again(tmp_path: Path) -> None:
    save(tmp_path / "lq" / "a.png", 8, 8)
    save(tmp_path / "gt" / "a.png", 32, 32)
    sources = P.find_source_images(tmp_path / "gt", tmp_path / "lq", PAIRED)
    prepare(sources, tmp_path / "out", PAIRED)
    (tmp_path / "out" / "lq" / "a_s001.png").unlink()
    assert prepare(sources, tmp_path / "out", PAIRED).written == 1


def test_what_cannot_be_used_is_excluded(tmp_path: Path) -> None:
    save(tmp_path / "in" / "good.png", 30, 30)
    save(tmp_path / "in" / "tiny.png", 12, 30)
    whole = (tmp_path / "in" / "good.png").read_bytes()
    (tmp_path / "in" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "text.png").write_text("no image")
    sources = P.find_source_images(tmp_path / "in", None, SMALL)
    done = prepare(sources, tmp_path / "out", SMALL)
    assert [one.path.name for one in done.excluded] == ["cut.png", "text.png", "tiny.png"]
    assert done.excluded[2].reason == "30x12 is smaller than the crops of 20"
    assert done.written == 8
    assert {name.split("_")[0] for name in names(tmp_path / "out")} == {"good"}
    assert P.count_crops(sources, SMALL) >= 8


def test_a_pair_that_is_not_to_scale_is_excluded(tmp_path: Path) -> None:
    save(tmp_path / "lq" / "a.png", 9, 8)
    save(tmp_path / "gt" / "a.png", 32, 32)
    sources = P.find_source_images(tmp_path / "gt", tmp_path / "lq", PAIRED)
    (excluded,) = prepare(sources, tmp_path / "out", PAIRED).excluded
    assert "32x32 is not 4 times 8x9" in excluded.reason


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", 30, 48)
    sources = P.find_source_images(tmp_path / "in", None, SMALL)
    prepare(sources, tmp_path / "out", SMALL)
    with pytest.raises(ConfigError, match="made with other settings"):
        prepare(sources, tmp_path / "out", replace(SMALL, step=5))
    (tmp_path / "out" / SETTINGS_FILE).write_text("{")
    with pytest.raises(ConfigError, match="made with other settings"):
        prepare(sources, tmp_path / "out", SMALL)
    with pytest.raises(ConfigError, match="contains other files"):
        prepare(sources, tmp_path / "in", SMALL)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", 30, 48)
    sources = P.find_source_images(tmp_path / "in", None, SMALL)
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageWriteError, match="cannot be created"):
        prepare(sources, tmp_path / "file" / "out", SMALL)


def test_two_images_of_one_name(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", 30, 48)
    save(tmp_path / "in" / "a.bmp", 30, 48)
    with pytest.raises(DatasetError, match=r"a\.png and a\.bmp"):
        P.find_source_images(tmp_path / "in", None, SMALL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SMALL, "their own size"),
        (replace(PAIRED, crop_size=22), "step = "),
        (replace(PAIRED, step=10), "step = "),
    ],
)
def test_settings_that_do_not_suit_pairs(
    tmp_path: Path, settings: PrepareSettings, message: str
) -> None:
    save(tmp_path / "in" / "a.png", 30, 48)
    with pytest.raises(ConfigError, match=message):
        P.find_source_images(tmp_path / "in", tmp_path / "in", settings)


def test_settings_that_make_nothing_or_lose_pixels() -> None:
    with pytest.raises(ConfigError, match="no version"):
        PrepareSettings(scales=(), shortest_edge=0, original=False)
    with pytest.raises(ConfigError, match="step = 101"):
        PrepareSettings(crop_size=100, step=101)
