"""Training, evaluation, the dataset check and preparation agree on which images are pairs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from realesr_cli.dataset.check import DatasetFolders, check_dataset
from realesr_cli.dataset.crops import find_source_images
from realesr_cli.dataset.settings import CheckSettings, PrepareSettings
from realesr_cli.errors import DatasetError
from realesr_cli.evaluate.sets import find_items
from realesr_cli.evaluate.settings import ImageSetSettings
from realesr_cli.train.files import find_training_images
from realesr_cli.train.settings import DataConfig, ValidationConfig

Pairs = dict[str, str]
"""Ground truth to low-quality image, by their paths inside the two folders."""

LAYOUTS: dict[str, tuple[str, str, dict[str, str], str]] = {
    "equal names": ("a b", "a b", {}, "a=a b=b"),
    "a suffix": ("a b", "ax4 bx4", {}, "a=ax4 b=bx4"),
    "a prefix": ("a b", "lq_a lq_b", {}, "a=lq_a b=lq_b"),
    "two suffixes": ("1_HR 2_HR", "1_LR 2_LR", {}, "1_HR=1_LR 2_HR=2_LR"),
    "subfolders": ("a s/a t/a", "a s/a t/a", {}, "a=a s/a=s/a t/a=t/a"),
    "subfolders and a suffix": ("s/a t/a", "s/ax4 t/ax4", {}, "s/a=s/ax4 t/a=t/ax4"),
    "a given suffix": ("a", "ax2 ax4", {"lq_suffix": "x4"}, "a=ax4"),
    "both given": ("a", "s_ax4 ax4", {"lq_prefix": "s_", "lq_suffix": "x4"}, "a=s_ax4"),
    "other numbers": ("0001 0002", "0011 0012", {}, ""),
    "other subfolder": ("s/a", "t/a", {}, ""),
    "one missing": ("a b", "ax4", {}, ""),
    "one too many": ("a", "ax4 bx4", {}, ""),
    "a suffix that no file has": ("a", "ax4", {"lq_suffix": "x3"}, ""),
}
"""Ground truths, low-quality images, settings, and the pairs; none where it is an error."""


def make(root: Path, name: str, size: int) -> None:
    """Write a gradient, so that all images show the same at any size."""
    path = root / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.linspace(20, 230, size, dtype=np.uint8)
    Image.fromarray(np.tile(rows, (size, 1))).convert("RGB").save(path)


def inside(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()


def by_training(gt: Path, lq: Path, naming: dict[str, str]) -> Pairs:
    data = DataConfig(gt=(gt,), lq=(lq,), **naming)
    images = find_training_images(data, ValidationConfig(split=0), scale=4)
    return {inside(i.gt, gt): inside(i.lq, lq) for i in images.train if i.lq is not None}


def by_evaluation(gt: Path, lq: Path, naming: dict[str, str]) -> Pairs:
    items, _ = find_items(ImageSetSettings(gt=gt, lq=lq, recursive=True, **naming), {})
    return {inside(i.gt, gt): inside(i.lq, lq) for i in items if i.gt and i.lq}


def by_preparation(gt: Path, lq: Path, naming: dict[str, str]) -> Pairs:
    settings = PrepareSettings(scales=(), shortest_edge=0, **naming)
    return {
        s.inside.as_posix(): inside(s.lq, lq) for s in find_source_images(gt, lq, settings) if s.lq
    }


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, str]:
    gt, lq, _, _ = LAYOUTS[request.param]
    for name in gt.split():
        make(tmp_path / "gt", name, 64)
    for name in lq.split():
        make(tmp_path / "lq", name, 16)
    (tmp_path / "gt" / ".hidden.png").write_bytes(b"")
    os.mkfifo(tmp_path / "lq" / "fifo.png")
    return tmp_path / "gt", tmp_path / "lq", request.param


@pytest.mark.parametrize("rule", [by_training, by_evaluation, by_preparation])
def test_the_pairs_are_the_same(
    layout: tuple[Path, Path, str], rule: Callable[[Path, Path, dict[str, str]], Pairs]
) -> None:
    gt, lq, name = layout
    _, _, naming, expected = LAYOUTS[name]
    if expected:
        assert rule(gt, lq, naming) == dict(pair.split("=") for pair in expected.split())
        return
    with pytest.raises(DatasetError):
        rule(gt, lq, naming)


def test_the_check_reports_what_the_others_refuse(layout: tuple[Path, Path, str]) -> None:
    gt, lq, name = layout
    _, _, naming, expected = LAYOUTS[name]
    settings = CheckSettings(min_size=32, **naming)  # type: ignore[arg-type]
    if naming.get("lq_suffix") == "x3":
        with pytest.raises(DatasetError):
            check_dataset(DatasetFolders((gt,), (lq,)), settings)
        return
    counts = check_dataset(DatasetFolders((gt,), (lq,)), settings).counts()
    assert ("unpaired" in counts) == (not expected)
    assert not {"ratio", "content", "unreadable"} & set(counts)
