"""Finding, pairing, measuring and splitting images, and every folder that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from realesr_cli.errors import DatasetError
from realesr_cli.train.files import TrainingImages, find_training_images, pick_evenly
from realesr_cli.train.settings import DataConfig, ValidationConfig


def image(path: Path, width: int = 16, height: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (10, 200, 30)).save(path)
    return path


def folder(root: Path, *names: str, width: int = 16, height: int = 12) -> Path:
    for name in names:
        image(root / name, width, height)
    return root


def found(data: DataConfig, validation: ValidationConfig | None = None) -> TrainingImages:
    return find_training_images(data, validation or ValidationConfig(split=0), scale=4)


def test_folders_are_searched_recursively_and_other_files_skipped(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", "one.png", "deep/er/two.jpg", ".hidden.png")
    (root / "notes.txt").write_text("no image")
    images = found(DataConfig(gt=(root,))).train
    assert [(p.height, p.width, p.folder) for p in images] == [(12, 16, 0)] * 2


def test_a_file_found_twice_is_taken_once(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", "one.png", "sub/two.png")
    assert len(found(DataConfig(gt=(root, root / "sub"))).train) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "contains no files"),
        (lambda p: p.write_text("x"), "is a file, not a folder"),
        (lambda p: (p.mkdir(), (p / "a.txt").write_text("x")), "contains no image files"),
        (lambda p: (p.mkdir(), (p / "a.png").write_text("x")), "none of 1 files can be read"),
    ],
)
def test_unusable_folders_are_refused(tmp_path: Path, make: object, message: str) -> None:
    path = tmp_path / "data"
    make(path)  # type: ignore[operator]
    with pytest.raises(DatasetError, match=message):
        found(DataConfig(gt=(path,)))


def test_no_folder_at_all_is_refused() -> None:
    with pytest.raises(DatasetError, match="no training images"):
        found(DataConfig())


def test_an_unreadable_file_is_excluded_and_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", "one.png", "two.png")
    (root / "bad.png").write_bytes(b"not an image at all")
    result = found(DataConfig(gt=(root,)))
    assert [p.gt.name for p in result.train] == ["one.png", "two.png"]
    assert [item.path.name for item in result.excluded] == ["bad.png"]
    assert result.excluded[0].reason


def test_pairs_are_matched_by_subfolder_name_prefix_and_suffix(tmp_path: Path) -> None:
    gt = folder(tmp_path / "gt", "b/1.png", "2.png", width=32, height=24)
    lq = folder(tmp_path / "lq", "b/s_1x4.jpg", "s_2x4.png", width=8, height=6)
    config = DataConfig(gt=(gt,), lq=(lq,), lq_prefix="s_", lq_suffix="x4")
    pairs = [(p.gt.name, p.lq.name) for p in found(config).train if p.lq]
    assert pairs == [("2.png", "s_2x4.png"), ("1.png", "s_1x4.jpg")]


def test_pairs_that_are_not_to_scale_are_named(tmp_path: Path) -> None:
    gt = folder(tmp_path / "gt", "1.png", width=32, height=24)
    lq = folder(tmp_path / "lq", "1.png", width=16, height=12)
    with pytest.raises(DatasetError, match=r"1\.png \(32x24, 16x12\).*exactly 4 times"):
        found(DataConfig(gt=(gt,), lq=(lq,)))


def test_a_part_is_held_out_always_the_same(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", *(f"{i:02}.png" for i in range(20)))
    config = DataConfig(gt=(root,))
    first = found(config, ValidationConfig(split=0.2))
    assert (len(first.train), len(first.validation)) == (16, 4)
    assert not set(first.train) & set(first.validation)
    assert found(config, ValidationConfig(split=0.2)) == first
    assert len(found(config, ValidationConfig(split=0.5, images=3)).validation) == 3
    assert not found(config, ValidationConfig(split=0.2, every=0)).validation
    # Not a single one, where there are enough to hold out more.
    assert len(found(config, ValidationConfig(split=0.02)).validation) == 2
    assert len(found(config, ValidationConfig(split=0.02, images=1)).validation) == 1


def test_a_few_images_are_all_trained_on(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", "1.png", "2.png", "3.png", "4.png")
    result = found(DataConfig(gt=(root,)), ValidationConfig(split=0.5))
    assert (len(result.train), len(result.validation)) == (4, 0)


def test_validation_images_must_not_be_trained_on(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", "1.png", "sub/2.png")
    for val, message in (
        (root, "training folder"),
        (root / "sub", "overlaps"),
        (tmp_path, "overlaps"),
        (root / "sub" / "..", "training folder"),
    ):
        with pytest.raises(DatasetError, match=message):
            found(DataConfig(gt=(root,)), ValidationConfig(gt=str(val)))


def test_a_validation_folder_is_used_in_part_and_may_be_paired(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", "1.png")
    names = [f"{i}.png" for i in range(6)]
    val = folder(tmp_path / "v", *names, width=32, height=24)
    lq = folder(tmp_path / "vlq", *names, width=8, height=6)
    settings = ValidationConfig(gt=str(val), lq=str(lq), images=2)
    result = found(DataConfig(gt=(root,)), settings)
    assert len(result.train) == 1
    assert [p.gt.name for p in result.validation] == ["1.png", "4.png"]
    assert all(p.lq is not None and p.lq.name == p.gt.name for p in result.validation)
    everything = ValidationConfig(gt=str(val), images=0)
    assert len(found(DataConfig(gt=(root,)), everything).validation) == 6


def test_a_validation_folder_without_images_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", "1.png")
    with pytest.raises(DatasetError, match="does not exist"):
        found(DataConfig(gt=(root,)), ValidationConfig(gt=str(tmp_path / "none")))


def test_even_picks_never_takes_more_than_there_are(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", *(f"{i}.png" for i in range(3)))
    images = found(DataConfig(gt=(root,))).train
    assert pick_evenly(images, 5) == list(images)
    assert pick_evenly(images, 1) == [images[1]]


def test_progress_is_reported(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", "1.png", "2.png")
    reported: list[tuple[int, int]] = []
    find_training_images(
        DataConfig(gt=(root,)),
        ValidationConfig(split=0),
        scale=4,
        progress=lambda done, total: reported.append((done, total)),
    )
    assert reported == [(1, 2), (2, 2)]
    assert np.all(np.diff([done for done, _ in reported]) > 0)
