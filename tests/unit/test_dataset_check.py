"""Problems planted in a folder are found, each by its kind; clean folders have none."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from realesr_cli.dataset.check import SUGGESTIONS, DatasetFolders, DatasetReport, check_dataset
from realesr_cli.dataset.settings import CheckSettings
from realesr_cli.errors import ConfigError, DatasetError

SETTINGS = CheckSettings(min_size=64, workers=1)


def photo(seed: int, size: tuple[int, int] = (120, 100)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images without problems, and their partners of a quarter of the size."""
    for name in ("gt", "lq", "val"):
        (tmp_path / name).mkdir()
    for seed in range(4):
        img = photo(seed)
        img.save(tmp_path / "gt" / f"{seed}.png")
        img.resize((30, 25), Image.Resampling.BOX).save(tmp_path / "lq" / f"{seed}.png")
    photo(9).save(tmp_path / "val" / "9.png")
    return tmp_path


def checked(folder: Path, *, lq: bool = False, val: bool = False) -> DatasetReport:
    folders = DatasetFolders(
        (folder / "gt",),
        (folder / "lq",) if lq else (),
        (folder / "val",) if val else (),
    )
    return check_dataset(folders, SETTINGS)


def only(outcome: DatasetReport, kind: str) -> tuple[str, str, str | None]:
    """Return name, text and other name of the only problem."""
    assert outcome.counts() == {kind: 1}, outcome.problems
    (problem,) = outcome.problems
    return problem.path.name, problem.text, None if problem.other is None else problem.other.name


def test_clean(folder: Path) -> None:
    outcome = checked(folder, lq=True, val=True)
    assert outcome.problems == ()
    assert outcome.images == 9


def test_unreadable(folder: Path) -> None:
    whole = (folder / "gt" / "0.png").read_bytes()
    (folder / "gt" / "cut.png").write_bytes(whole[: len(whole) // 2])
    name, text, _ = only(checked(folder), "unreadable")
    assert name == "cut.png"
    assert str(folder) not in text


def test_same_name(folder: Path) -> None:
    photo(7).save(folder / "gt" / "0.bmp")
    assert only(checked(folder), "same-name")[2] == "0.bmp"


def test_unpaired_on_either_side(folder: Path) -> None:
    photo(7).save(folder / "gt" / "7.png")
    name, text, _ = only(checked(folder, lq=True), "unpaired")
    assert name == "7.png"
    assert str(folder / "lq") in text
    (folder / "gt" / "7.png").unlink()
    photo(7).save(folder / "lq" / "8.png")
    assert only(checked(folder, lq=True), "unpaired")[0] == "8.png"


def test_suffix(folder: Path) -> None:
    for path in list((folder / "lq").iterdir()):
        path.rename(path.with_name(f"{path.stem}x4.png"))
    photo(7).save(folder / "lq" / "0x2.png")
    folders = DatasetFolders((folder / "gt",), (folder / "lq",))
    assert check_dataset(folders, SETTINGS).counts() == {"unpaired": 1}
    assert check_dataset(folders, replace(SETTINGS, lq_suffix="x4")).problems == ()


def test_ratio(folder: Path) -> None:
    photo(0, (31, 25)).save(folder / "lq" / "0.png")
    assert only(checked(folder, lq=True), "ratio")[1] == "120x100 is not 4 times 31x25"


def test_channels(folder: Path) -> None:
    gray = opened(folder / "lq" / "1.png").convert("L")
    gray.save(folder / "lq" / "1.png")
    assert only(checked(folder, lq=True), "channels")[1] == "only the low-quality image is gray"


def test_content(folder: Path) -> None:
    photo(8, (30, 25)).save(folder / "lq" / "2.png")
    name, text, other = only(checked(folder, lq=True), "content")
    assert (name, other) == ("2.png", "2.png")
    assert text.startswith("correlation ")


def test_small(folder: Path) -> None:
    photo(6, (64, 64)).save(folder / "gt" / "6.png")
    photo(7, (100, 63)).save(folder / "gt" / "7.png")
    assert only(checked(folder), "small")[1] == "100x63 is smaller than 64 pixels"


@pytest.mark.parametrize("change", ["copy", "smaller", "jpeg"])
def test_duplicate(folder: Path, change: str) -> None:
    img = opened(folder / "gt" / "3.png")
    if change == "smaller":
        img = img.resize((90, 75), Image.Resampling.LANCZOS)
    path = folder / "gt" / ("z.jpg" if change == "jpeg" else "z.png")
    img.save(path)
    name, _, other = only(checked(folder), "duplicate")
    assert (name, other) == (path.name, "3.png")


def test_a_third_copy_is_reported_once(folder: Path) -> None:
    for name in ("a", "b"):
        opened(folder / "gt" / "3.png").save(folder / "gt" / f"z{name}.png")
    assert checked(folder).counts() == {"duplicate": 2}


def test_flat_images_are_not_copies_of_each_other(folder: Path) -> None:
    for value in (10, 120, 240):
        Image.new("RGB", (80, 80), (value, value, value)).save(folder / "gt" / f"flat{value}.png")
    assert checked(folder).problems == ()


def test_blocky(folder: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 8, (200, 240, 1))
    grainy = (np.array(photo(6, (240, 200))) + noise).clip(0, 255).astype(np.uint8)
    held = io.BytesIO()
    Image.fromarray(grainy).save(held, "JPEG", quality=8)
    (folder / "gt" / "hard.jpg").write_bytes(held.getvalue())
    name, text, _ = only(checked(folder), "blocky")
    assert name == "hard.jpg"
    assert text.startswith("blockiness ")


@pytest.mark.parametrize("change", ["same file", "copy", "smaller"])
def test_leak(folder: Path, change: str) -> None:
    img = opened(folder / "gt" / "2.png")
    path = folder / "val" / "leak.png"
    if change == "same file":
        path.symlink_to(folder / "gt" / "2.png")
    else:
        (img.resize((96, 80)) if change == "smaller" else img).save(path)
    name, text, other = only(checked(folder, val=True), "leak")
    assert (name, other) == ("leak.png", "2.png")
    assert ("is a training image too" in text) == (change == "same file")


def test_every_kind_of_problem_is_planted_above() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for kind in SUGGESTIONS:
        assert f'"{kind}"' in source


def test_progress(folder: Path) -> None:
    calls: list[tuple[int, int]] = []
    check_dataset(
        DatasetFolders((folder / "gt",)), SETTINGS, progress=lambda *call: calls.append(call)
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_folders_that_do_not_fit(folder: Path) -> None:
    with pytest.raises(ConfigError, match="at least one folder"):
        check_dataset(DatasetFolders(()), SETTINGS)
    with pytest.raises(ConfigError, match="2 for 1"):
        check_dataset(DatasetFolders((folder / "gt",), (folder / "lq", folder / "lq")), SETTINGS)
    with pytest.raises(DatasetError, match="does not exist"):
        check_dataset(DatasetFolders((folder / "nowhere",)), SETTINGS)
    (folder / "empty").mkdir()
    with pytest.raises(DatasetError, match="contains no files"):
        check_dataset(DatasetFolders((folder / "empty",)), SETTINGS)
