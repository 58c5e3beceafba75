"""Sets of images: folders matched by name, sizes compared, and what does not fit refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from upscale_cli import make_image

from realesr_cli.errors import ConfigError, DatasetError
from realesr_cli.evaluate.sets import find_items, measure_items
from realesr_cli.evaluate.settings import ImageSetSettings


def folder(path: Path, names: Mapping[str, tuple[int, int]]) -> Path:
    """A folder of images by name, each (width, height)."""
    for name, (width, height) in names.items():
        make_image(path / f"{name}.png", width, height)
    return path


@pytest.fixture
def gt(tmp_path: Path) -> Path:
    return folder(tmp_path / "gt", {"baby": (48, 32), "bird": (32, 32)})


@pytest.fixture
def lq(tmp_path: Path) -> Path:
    return folder(tmp_path / "lq", {"babyx4": (12, 8), "birdx4": (8, 8)})


def test_folders_are_matched_by_name(gt: Path, lq: Path, tmp_path: Path) -> None:
    other = folder(tmp_path / "other", {"baby_out": (48, 32), "bird_out": (32, 32)})
    items, notes = find_items(ImageSetSettings(gt=gt, lq=lq), {"other": other})
    assert [item.name for item in items] == ["baby", "bird"]
    assert items[0].gt == gt / "baby.png"
    assert items[0].lq == lq / "babyx4.png"
    assert items[1].outputs == (other / "bird_out.png",)
    assert notes == []
    found = measure_items(items, None)
    assert found.scale == 4
    assert [p.gt_size for p in found.images] == [(32, 48), (32, 32)]
    assert [p.lq_size for p in found.images] == [(8, 12), (8, 8)]


def test_one_folder_of_both_is_split_by_its_marks(tmp_path: Path) -> None:
    both = folder(tmp_path / "set", {"1_HR": (16, 16), "1_LR": (4, 4)})
    for settings in (
        ImageSetSettings(gt=both, lq=both),
        ImageSetSettings(gt=both, degrade="bicubic"),
    ):
        items, notes = find_items(settings, {})
        assert [item.name for item in items] == ["1_HR"]
        assert items[0].lq == (both / "1_LR.png" if settings.lq else None)
        assert "NAME_HR" in notes[0]


def test_one_folder_of_both_is_split_by_given_suffixes(tmp_path: Path) -> None:
    both = folder(tmp_path / "set", {"a-big": (16, 16), "a-small": (4, 4)})
    with pytest.raises(DatasetError, match="1_HR"):
        find_items(ImageSetSettings(gt=both, lq=both), {})
    items, _ = find_items(
        ImageSetSettings(gt=both, lq=both, gt_suffix="-big", lq_suffix="-small"), {}
    )
    assert (items[0].gt, items[0].lq) == (both / "a-big.png", both / "a-small.png")


def test_a_given_suffix_passes_other_files_over(gt: Path, tmp_path: Path) -> None:
    lq = folder(tmp_path / "lq2", dict.fromkeys(("babyx2", "birdx2", "babyx4", "birdx4"), (8, 8)))
    with pytest.raises(DatasetError, match="without a partner"):
        find_items(ImageSetSettings(gt=gt, lq=lq), {})
    items, _ = find_items(ImageSetSettings(gt=gt, lq=lq, lq_suffix="x2"), {})
    assert [item.lq for item in items] == [lq / "babyx2.png", lq / "birdx2.png"]
    with pytest.raises(DatasetError, match="NAMEx3"):
        find_items(ImageSetSettings(gt=gt, lq=lq, lq_suffix="x3"), {})


def test_files_without_a_counterpart_are_named(gt: Path, lq: Path) -> None:
    (lq / "birdx4.png").rename(lq / "dogx4.png")
    with pytest.raises(DatasetError, match=r"bird\.png in .*gt; dogx4\.png in .*lq"):
        find_items(ImageSetSettings(gt=gt, lq=lq), {})


def test_results_without_a_counterpart_are_named(gt: Path, tmp_path: Path) -> None:
    other = folder(tmp_path / "other", {"baby": (48, 32)})
    with pytest.raises(DatasetError, match=r"bird\.png in .*gt"):
        find_items(ImageSetSettings(gt=gt), {"other": other})


def test_without_ground_truths_small_images_or_results_say_which(lq: Path, tmp_path: Path) -> None:
    items, _ = find_items(ImageSetSettings(lq=lq), {})
    assert [(item.name, item.gt) for item in items] == [("babyx4", None), ("birdx4", None)]
    one = folder(tmp_path / "one", {"a": (8, 8)})
    two = folder(tmp_path / "two", {"a_b": (8, 8)})
    items, _ = find_items(ImageSetSettings(), {"one": one, "two": two})
    assert items[0].outputs == (one / "a.png", two / "a_b.png")
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        find_items(ImageSetSettings(), {})


def test_empty_and_missing_folders_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DatasetError, match="contains no files"):
        find_items(ImageSetSettings(gt=empty), {})
    (empty / "notes.txt").write_text("x")
    with pytest.raises(DatasetError, match="contains no image files"):
        find_items(ImageSetSettings(gt=empty), {})
    with pytest.raises(DatasetError, match="does not exist"):
        find_items(ImageSetSettings(gt=tmp_path / "none"), {})
    with pytest.raises(DatasetError, match="is a file, not a folder"):
        find_items(ImageSetSettings(gt=empty / "notes.txt"), {})


def test_one_name_with_two_extensions_is_not_certain(gt: Path) -> None:
    make_image(gt / "baby.jpg")
    with pytest.raises(DatasetError, match="only in the extension"):
        find_items(ImageSetSettings(gt=gt), {})


@pytest.mark.parametrize(
    ("size", "small", "cut"),
    [
        ((34, 49), (8, 12), (32, 48)),  # cut to a multiple of 4
        ((47, 59), (9, 12), (36, 48)),  # to one of 12
        ((32, 48), (8, 12), (32, 48)),
    ],
)
def test_ground_truths_are_cut_as_benchmarks_are(
    tmp_path: Path, size: tuple[int, int], small: tuple[int, int], cut: tuple[int, int]
) -> None:
    gt = folder(tmp_path / "gt", {"a": size[::-1]})
    lq = folder(tmp_path / "lq", {"a": small[::-1]})
    out = folder(tmp_path / "out", {"a": cut[::-1]})
    items, _ = find_items(ImageSetSettings(gt=gt, lq=lq), {"out": out})
    assert measure_items(items, 4).images[0].gt_size == cut


def test_sizes_that_do_not_match_are_refused(gt: Path, lq: Path, tmp_path: Path) -> None:
    items, _ = find_items(ImageSetSettings(gt=gt, lq=lq), {})
    with pytest.raises(DatasetError, match=r"at scale 2: baby \(48x32 and 12x8\), bird"):
        measure_items(items, 2)
    make_image(lq / "babyx4.png", 13, 8)
    with pytest.raises(DatasetError, match=r"baby \(48x32 and 13x8\)"):
        measure_items(items, 4)
    make_image(lq / "babyx4.png", 100, 100)
    with pytest.raises(DatasetError, match="sizes do not match"):
        measure_items(items, None)
    other = folder(tmp_path / "other", {"baby": (48, 32), "bird": (31, 32)})
    items, _ = find_items(ImageSetSettings(gt=gt), {"other": other})
    with pytest.raises(DatasetError, match=r"bird\.png \(31x32, expected 32x32\)"):
        measure_items(items, 4)


def test_unreadable_images_are_left_out_and_named(gt: Path, lq: Path) -> None:
    (lq / "birdx4.png").write_bytes(b"not an image")
    items, _ = find_items(ImageSetSettings(gt=gt, lq=lq), {})
    found = measure_items(items, None)
    assert [p.item.name for p in found.images] == ["baby"]
    assert found.failures[0].name == "bird"
    assert "birdx4.png" in found.failures[0].error


def test_settings_that_contradict_each_other_are_refused(gt: Path, lq: Path) -> None:
    with pytest.raises(ConfigError, match="lq and degrade"):
        ImageSetSettings(gt=gt, lq=lq, degrade="bicubic")
    with pytest.raises(ConfigError, match="gt"):
        ImageSetSettings(degrade="bicubic")
