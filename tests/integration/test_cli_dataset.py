"""`realesr dataset check` and `prepare` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from realesr_cli.cli.dataset import dataset_group
from realesr_cli.errors import ConfigError, RealesrError


def run(*args: object) -> Result:
    runner = CliRunner()
    result = runner.invoke(dataset_group, [str(arg) for arg in args], standalone_mode=False)
    if result.exception and not isinstance(
        result.exception, (RealesrError, click.UsageError, SystemExit)
    ):
        raise result.exception
    return result


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in "abc":
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        small.resize((300, 280), Image.Resampling.BICUBIC).save(tmp_path / "in" / f"{name}.png")
    return tmp_path


def test_check_without_problems(folder: Path) -> None:
    result = run("check", folder / "in")
    assert result.return_value == 0
    assert "3 images checked, no problems" in result.output


def test_check_with_problems(folder: Path) -> None:
    for number in range(12):
        (folder / "in" / f"bad{number:02}.png").write_text("no image")
    result = run("check", folder / "in")
    assert result.return_value == 1
    assert "unreadable: 12 (remove these files" in result.output
    assert "bad09.png" in result.output
    assert "bad10.png" not in result.output
    assert "and 2 more; --verbose lists all" in result.output
    assert "bad11.png" in run("check", folder / "in", "--verbose").output


def test_check_json(folder: Path) -> None:
    result = run("check", folder / "in", "--val", folder / "in", "--min-size", 290, "--json")
    found = json.loads(result.output)
    assert result.return_value == 1
    assert found["images"] == 3
    assert found["counts"] == {"small": 3, "leak": 3}
    assert set(found["problems"][0]) == {"kind", "path", "other", "text"}


def test_prepare(folder: Path) -> None:
    out = folder / "out"
    args = (
        "prepare",
        folder / "in",
        "-o",
        out,
        "--crop-size",
        200,
        "--step",
        100,
        "--shortest-edge",
        210,
    )
    assert "from 3 images" in run(*args, "--dry-run").output
    assert not out.exists()
    planned = json.loads(run(*args, "--dry-run", "--json").output)["files"]
    found = json.loads(run(*args, "--json").output)
    assert found["written"] == planned == len(list(out.glob("*.png")))
    again = run(*args)
    assert again.return_value == 0
    assert f"{planned} existed already" in again.output


def test_prepare_reports_what_it_excluded(folder: Path) -> None:
    (folder / "in" / "bad.png").write_text("no image")
    result = run("prepare", folder / "in", "-o", folder / "out", "--crop-size", 200, "--step", 200)
    assert result.return_value == 1
    assert "excluded: " in result.output
    assert "bad.png" in result.output


def test_prepare_excludes_crops_without_detail(folder: Path) -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (280, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "in" / "noise.png")
    out = folder / "out"
    args = ("prepare", folder / "in", "-o", out, "--scales", "1", "--no-original",
            "--shortest-edge", 0, "--crop-size", 280, "--step", 280, "--min-detail", 4)  # fmt: skip
    planned = json.loads(run(*args, "--dry-run", "--json").output)["files"]
    assert f"at most {planned} files" in run(*args, "--dry-run").output
    found = json.loads(run(*args, "--json").output)
    assert found["low_detail"] == planned - 2
    assert {path.name for path in out.glob("*.png")} == {"noise_T0_s001.png", "noise_T0_s002.png"}
    assert f"{planned - 2} crops had too little detail" in run(*args).output


def test_prepare_pairs(folder: Path) -> None:
    (folder / "lq").mkdir()
    for path in (folder / "in").iterdir():
        opened(path).resize((75, 70)).save(folder / "lq" / path.name)
    result = run("prepare", folder / "in", "--lq", folder / "lq", "-o", folder / "out",
                 "--crop-size", 200, "--step", 100)  # fmt: skip
    assert result.return_value == 0
    gt, lq = (sorted(p.name for p in (folder / "out" / s).iterdir()) for s in ("gt", "lq"))
    assert gt == lq
    assert len(gt) == 12


def test_prepare_refuses_to_write_into_its_input(folder: Path) -> None:
    result = run("prepare", folder / "in", "-o", folder / "in" / "sub")
    assert isinstance(result.exception, ConfigError)
    assert "is inside" in str(result.exception)


def test_verbose_lists_all_excluded(folder: Path) -> None:
    for number in range(12):
        (folder / "in" / f"bad{number:02}.png").write_text("no image")
    args = ("prepare", folder / "in", "-o", folder / "out", "--crop-size", 200, "--step", 200)
    assert "and 2 more; --verbose lists all" in run(*args).output
    assert "bad11.png" in run(*args, "--verbose").output


def test_odd_paths_give_an_error_of_ours(folder: Path) -> None:
    for arguments in (("check", "x" * 5000), ("prepare", folder / "in", "-o", "x" * 5000)):
        assert isinstance(run(*arguments).exception, RealesrError)
    for arguments in (("check", ""), ("prepare", "", "-o", folder / "out")):
        assert isinstance(run(*arguments).exception, click.UsageError)
