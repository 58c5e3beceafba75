"""`realesr degrade` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from realesr_cli.cli.degrade import degrade_command
from realesr_cli.errors import (
    ConfigError,
    RealesrError,
    RealesrWarning,
    UnreadableImageError,
    WriteError,
)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (12, 15, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(small).resize((150, 120), Image.Resampling.BICUBIC).save(path)
    return path


def run(*args: object) -> Result:
    result = CliRunner().invoke(degrade_command, [str(arg) for arg in args])
    if result.exception and not isinstance(result.exception, (RealesrError, SystemExit)):
        raise result.exception
    return result


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_whole_photo(photo: Path, tmp_path: Path) -> None:
    result = run(photo, "-o", tmp_path / "out.png", "--seed", 1)
    assert result.exit_code == 0
    assert pixels(tmp_path / "out.png").shape == (30, 37, 3)
    assert "out.png: 37x30, seed 1" in result.output
    assert "sharpen  weight 0.5" in result.output
    assert "round    to 8 bit" in result.output


def test_same_seed_same_image(photo: Path, tmp_path: Path) -> None:
    for name, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        run(photo, "-o", tmp_path / name, "--seed", seed)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()


@pytest.mark.parametrize("grid", [(), ("--grid", "3x2")])
def test_replay_is_bit_equal(photo: Path, tmp_path: Path, grid: tuple[str, ...]) -> None:
    recipe = tmp_path / "r.json"
    run(photo, "-o", tmp_path / "a.png", "--crop", 64, "--save-recipe", recipe, *grid)
    result = run(photo, "-o", tmp_path / "b.png", "--recipe", recipe, *grid)
    assert result.exit_code == 0
    assert "seed" not in result.output
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_grid_shows_the_crop_and_its_versions(photo: Path, tmp_path: Path) -> None:
    result = run(photo, "-o", tmp_path / "out.png", "--grid", "3x2", "--crop", 64, "--seed", 3)
    sheet = pixels(tmp_path / "out.png")
    assert sheet.shape == (64 * 2 + 4, 64 * 3 + 2 * 4, 3)
    assert np.array_equal(sheet[:64, :64], pixels(photo)[28:92, 43:107])
    version = sheet[:64, 68:132]
    assert np.array_equal(version, version[::4, ::4].repeat(4, axis=0).repeat(4, axis=1))
    assert (sheet[64:68] == 255).all()
    assert "version 5" in result.output


def test_crop_shrinks_to_the_photo(photo: Path, tmp_path: Path) -> None:
    assert run(photo, "-o", tmp_path / "out.png", "--grid", "2x1").exit_code == 0
    assert pixels(tmp_path / "out.png").shape == (120, 148 * 2 + 4, 3)


def test_json(photo: Path, tmp_path: Path) -> None:
    result = run(photo, "-o", tmp_path / "o.png", "--seed", 1, "--preset", "esrgan", "--json")
    summary = json.loads(result.output)
    assert (summary["height"], summary["width"], summary["seed"]) == (30, 37, 1)
    assert [op["op"] for op in summary["recipes"][0]["operations"]] == ["resize", "filter", "round"]


def test_config_file_and_set(photo: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text('[degradation]\npreset = "esrgan"\n', encoding="utf-8")
    result = run(
        photo, "-o", tmp_path / "a.png", "--config", config, "--set", "final.jpeg.probability=1"
    )
    assert "jpeg     quality" in result.output
    assert "resize   to 37x30, matlab" in result.output
    config.write_text("usm = true\n[[stages]]\n", encoding="utf-8")
    result = run(photo, "-o", tmp_path / "b.png", "--config", config)
    assert "sharpen" in result.output


def test_config_of_a_training_run_that_extends_a_recipe(photo: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('extends = "esrgan-x4"\n', encoding="utf-8")
    result = run(photo, "-o", tmp_path / "a.png", "--config", config)
    assert "resize   to 37x30, matlab" in result.output


def test_gray_photo(tmp_path: Path) -> None:
    Image.new("L", (40, 32), 90).save(tmp_path / "gray.png")
    assert run(tmp_path / "gray.png", "-o", tmp_path / "out.png").exit_code == 0
    assert pixels(tmp_path / "out.png").shape == (8, 10, 3)


def test_dropped_alpha_and_bit_depth_are_warned_of(tmp_path: Path) -> None:
    Image.new("RGBA", (40, 32), (90, 80, 70, 60)).save(tmp_path / "alpha.png")
    with pytest.warns(RealesrWarning, match="transparency"):
        run(tmp_path / "alpha.png", "-o", tmp_path / "a.png")
    Image.new("I;16", (40, 32), 9000).save(tmp_path / "deep.png")
    with pytest.warns(RealesrWarning, match="16 bits"):
        run(tmp_path / "deep.png", "-o", tmp_path / "b.png")


def test_list() -> None:
    assert "realesrgan  " in run("--list").output
    assert "bsrgan" in json.loads(run("--list", "--json").output)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--preset", "realesr"), "did you mean 'realesrgan'"),
        (("--grid", "4"), "COLUMNSxROWS"),
        (("--grid", "1x1"), "2 to 400"),
        (("--preset", "light", "--config", "x.toml"), "--preset and --config"),
        (("--set", "finl.sinc=1"), "did you mean 'final'"),
        (("--config", "nowhere.toml"), "no such file"),
        (("--recipe", "nowhere.json"), "nowhere.json"),
        (("--recipe", "r.json", "--seed", "1"), "--seed"),
        (("--recipe", "r.json", "--scale", "2"), "--scale"),
        (("--recipe", "r.json", "--set", "usm=true"), "--set"),
    ],
)
def test_wrong_options(photo: Path, tmp_path: Path, args: tuple[str, ...], message: str) -> None:
    result = run(photo, "-o", tmp_path / "out.png", *args)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert not (tmp_path / "out.png").exists()


def test_usage(photo: Path) -> None:
    assert run(photo).exit_code == 2
    assert run("-o", "x.png").exit_code == 2


def test_files_are_not_destroyed(photo: Path, tmp_path: Path) -> None:
    before = photo.read_bytes()
    assert "photo.png" in str(run(photo, "-o", photo, "--overwrite").exception)
    assert photo.read_bytes() == before
    (tmp_path / "there.png").write_bytes(b"mine")
    refused = run(photo, "-o", tmp_path / "there.png")
    assert "--overwrite" in str(refused.exception)
    assert run(photo, "-o", tmp_path / "there.png", "--overwrite").exit_code == 0
    same = tmp_path / "same.png"
    assert "same.png" in str(run(photo, "-o", same, "--save-recipe", same).exception)


def test_recipe_of_another_size_or_number(photo: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.json"
    run(photo, "-o", tmp_path / "a.png", "--save-recipe", recipe)
    Image.new("RGB", (64, 64)).save(tmp_path / "other.png")
    other = run(tmp_path / "other.png", "-o", tmp_path / "b.png", "--recipe", recipe)
    assert "120x150" in str(other.exception)
    many = run(photo, "-o", tmp_path / "b.png", "--recipe", recipe, "--grid", "2x2")
    assert "expected 3 recipes, got 1" in str(many.exception)
    fitting = run(tmp_path / "other.png", "-o", tmp_path / "b.png", "--recipe", recipe,
                  "--grid", "2x1")  # fmt: skip
    assert "64x64" in str(fitting.exception)
    recipe.write_text("{", encoding="utf-8")
    broken = run(photo, "-o", tmp_path / "b.png", "--recipe", recipe)
    assert "r.json" in str(broken.exception)


def test_recipe_that_cannot_be_written(photo: Path, tmp_path: Path) -> None:
    result = run(photo, "-o", tmp_path / "a.png", "--save-recipe", tmp_path / "no" / "r.json")
    assert isinstance(result.exception, WriteError)


def test_config_that_is_no_table(photo: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("degradation = 3\n", encoding="utf-8")
    result = run(photo, "-o", tmp_path / "a.png", "--config", config)
    assert "expected a table" in str(result.exception)


def test_photo_that_cannot_be_read(tmp_path: Path) -> None:
    result = run(tmp_path / "nothing.png", "-o", tmp_path / "a.png")
    assert isinstance(result.exception, UnreadableImageError)


def test_photo_too_small_for_a_grid(tmp_path: Path) -> None:
    Image.new("RGB", (3, 40)).save(tmp_path / "thin.png")
    result = run(tmp_path / "thin.png", "-o", tmp_path / "a.png", "--grid", "2x2")
    assert "too small for scale 4" in str(result.exception)
