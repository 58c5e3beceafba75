"""Drawn pictures: the same from the same seed, of every kind, with text that is really there."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFont

from realesr_cli.errors import ConfigError, ImageWriteError
from realesr_cli.train.dataset import draw
from realesr_cli.train.dataset.draw import KINDS, draw_picture, draw_pictures
from realesr_cli.train.dataset.drawing.canvas import Canvas
from realesr_cli.train.dataset.drawing.sketch import Sketch
from realesr_cli.train.dataset.settings import DrawSettings

SMALL = DrawSettings(count=4, size=64)


def picture(seed: int, kind: str | None = None, side: int = 96) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return draw_picture(rng, height=side, width=side, fonts=(), kind=kind)


def contents(paths: list[Path]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def font_file(folder: Path, name: str = "own.ttf") -> Path:
    """A font of the system's kind: the one that Pillow carries, as a file."""
    font = ImageFont.load_default(24)
    assert isinstance(font, ImageFont.FreeTypeFont)
    path = folder / name
    path.write_bytes(font.font_bytes)
    return path


def test_shares_are_shares() -> None:
    assert sum(kind.share for kind in KINDS.values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_picture(kind: str) -> None:
    first, other = picture(3, kind), picture(4, kind)
    assert np.array_equal(first, picture(3, kind))
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (40, 200), (150, 48)])
def test_every_kind_at_every_size(kind: str, size: tuple[int, int]) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        drawn = draw_picture(rng, height=size[0], width=size[1], fonts=(), kind=kind)
        assert drawn.shape == (*size, 3)
        assert drawn.dtype == np.uint8


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_draws_something(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the background that is there without it."""
    drawn = [picture(seed, kind) for seed in range(4)]
    monkeypatch.setitem(KINDS, kind, replace(KINDS[kind], draw=lambda sketch: None))
    bare = [picture(seed, kind) for seed in range(4)]
    changed = [np.mean(np.any(a != b, axis=-1)) for a, b in zip(drawn, bare, strict=True)]
    assert max(changed) > 0.05


def test_all_kinds_are_reached_by_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()

    def noting(name: str) -> Callable[[Sketch], None]:
        return lambda sketch: seen.update([name])

    for name, kind in list(KINDS.items()):
        monkeypatch.setitem(KINDS, name, replace(kind, draw=noting(name), factor=1))
    count = 1000
    for seed in range(count):
        picture(seed, side=32)
    for name, kind in KINDS.items():
        # Four standard deviations of a binomial share.
        allowed = 4 * (kind.share * (1 - kind.share) / count) ** 0.5
        assert abs(seen[name] / count - kind.share) < allowed, name


def test_a_turned_picture_has_no_empty_corners(monkeypatch: pytest.MonkeyPatch) -> None:
    white = np.full((1, 1, 3), 255, np.uint8)
    kind = replace(KINDS["page"], draw=lambda sketch: None, turned=1.0, most=30.0)
    monkeypatch.setitem(KINDS, "page", kind)
    monkeypatch.setattr(draw, "_toned", lambda rng, pixels: pixels)
    monkeypatch.setattr(
        draw, "background", lambda rng, height, width, paper: np.tile(white, (height, width, 1))
    )
    for seed in range(8):
        rng = np.random.default_rng(seed)
        drawn = draw_picture(rng, height=90, width=60, fonts=(), kind="page")
        assert drawn.min() == 255


def test_half_of_the_pictures_keep_clear_of_black_and_white() -> None:
    """Neither ink of 0 nor paper of 255 everywhere, and contrasts of many sizes."""
    drawn = [picture(seed, "page") for seed in range(40)]
    pure = [image.min() == 0 or image.max() == 255 for image in drawn]
    assert 4 <= sum(pure) <= 28
    reach = np.array([np.ptp(image.mean(axis=-1)) for image in drawn])
    assert reach.std() > 15


def test_text_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a page says that it set a line of text, there is ink that differs from the paper."""
    lines: list[tuple[float, float, float, float]] = []
    sizes: list[float] = []
    original = Canvas.text

    def noting(
        self: Canvas,
        at: tuple[float, float],
        text: str,
        font: ImageFont.FreeTypeFont,
        colour: tuple[int, int, int],
        *,
        anchor: str = "la",
    ) -> None:
        factor = self.factor
        box = font.getbbox(text, anchor=anchor)
        lines.append(tuple(at[k % 2] + box[k] / factor for k in range(4)))  # type: ignore[arg-type]
        sizes.append(font.size / factor)
        original(self, at, text, font, colour, anchor=anchor)

    monkeypatch.setattr(Canvas, "text", noting)
    monkeypatch.setattr(draw, "_toned", lambda rng, pixels: pixels)
    monkeypatch.setitem(KINDS, "page", replace(KINDS["page"], turned=0.0))
    inked = shown = 0
    for seed in range(12):
        lines.clear()
        drawn = picture(seed, "page", side=300).astype(np.float32)
        for left, top, right, bottom in lines:
            if left < 0 or top < 0 or right > 300 or bottom > 300 or right - left < 8:
                continue
            part = drawn[int(top) : int(bottom) + 1, int(left) : int(right) + 1]
            shown += 1
            inked += bool(np.ptp(part, axis=(0, 1)).max() >= 40)
    assert shown > 60
    assert inked == shown
    assert min(sizes) >= 9.5
    assert max(sizes) <= 90.5
    assert max(sizes) > 2 * min(sizes)


@pytest.mark.parametrize("side", [31, 0, -5, 2049])
def test_sizes_outside_of_the_limits(side: int) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r"width = .* must be 32 to 2048 pixels"):
        draw_picture(rng, height=64, width=side, fonts=())
    with pytest.raises(ConfigError, match="size"):
        DrawSettings(size=side)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"seed": -1}, {"count": 2_000_000}])
def test_settings_outside_of_the_limits(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DrawSettings(**wrong)


def test_unknown_kind() -> None:
    with pytest.raises(ConfigError, match="'poem': must be one of page, words"):
        picture(0, "poem")


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    paths = draw_pictures(tmp_path / "a", SMALL, fonts=(), report=lambda *at: told.append(at))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [path.name for path in paths] == [f"drawn_0_00000{number}.png" for number in range(4)]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "drawn.json",
        *(path.name for path in paths),
    ]
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            assert image.size == (64, 64)
            rng = np.random.default_rng((0, number))
            expected = draw_picture(rng, height=64, width=64, fonts=())
            assert np.array_equal(np.asarray(image), expected)


def test_same_bytes_again_and_others_from_another_seed(tmp_path: Path) -> None:
    first = contents(draw_pictures(tmp_path / "a", SMALL, fonts=()))
    assert contents(draw_pictures(tmp_path / "b", SMALL, fonts=())) == first
    other = contents(draw_pictures(tmp_path / "c", replace(SMALL, seed=1), fonts=()))
    assert not set(other) & set(first)


def test_a_larger_count_goes_on(tmp_path: Path) -> None:
    few = draw_pictures(tmp_path, replace(SMALL, count=2), fonts=())
    before = contents(few)
    times = [path.stat().st_mtime_ns for path in few]
    many = draw_pictures(tmp_path, SMALL, fonts=())
    assert len(many) == 4
    assert contents(many)[:2] == before
    assert [path.stat().st_mtime_ns for path in few] == times


def test_a_missing_picture_is_drawn_again(tmp_path: Path) -> None:
    paths = draw_pictures(tmp_path, SMALL, fonts=())
    before = contents(paths)
    paths[1].unlink()
    assert contents(draw_pictures(tmp_path, SMALL, fonts=())) == before


@pytest.mark.parametrize("other", [{"seed": 1}, {"size": 65}, {"seed": 1, "size": 65}])
def test_a_folder_of_another_seed_or_size(tmp_path: Path, other: dict[str, int]) -> None:
    draw_pictures(tmp_path, replace(SMALL, count=1), fonts=())
    with pytest.raises(ConfigError, match=f"another {', '.join(other)}: choose"):
        draw_pictures(tmp_path, replace(SMALL, **other), fonts=())


def test_a_folder_of_other_fonts(tmp_path: Path) -> None:
    font = font_file(tmp_path)
    draw_pictures(tmp_path / "a", replace(SMALL, count=1), fonts=())
    with pytest.raises(ConfigError, match="another set of fonts: choose"):
        draw_pictures(tmp_path / "a", SMALL, fonts=(font,))
    draw_pictures(tmp_path / "b", replace(SMALL, count=1), fonts=(font,))
    noted = json.loads((tmp_path / "b" / "drawn.json").read_text())
    assert noted["fonts"] == [["own.ttf", hashlib.sha256(font.read_bytes()).hexdigest()]]


def test_a_folder_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_pictures(tmp_path, replace(SMALL, count=1), fonts=())
    monkeypatch.setattr(draw, "DRAWING", 99)
    with pytest.raises(ConfigError, match="another version of the drawings: choose"):
        draw_pictures(tmp_path, SMALL, fonts=())


def test_a_damaged_note(tmp_path: Path) -> None:
    draw_pictures(tmp_path, replace(SMALL, count=1), fonts=())
    for damage in (b"\xff{", b"[1]", b""):
        (tmp_path / "drawn.json").write_bytes(damage)
        with pytest.raises(ConfigError, match=r"drawn\.json is damaged: choose another folder"):
            draw_pictures(tmp_path, SMALL, fonts=())


def test_a_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="holds other files"):
        draw_pictures(tmp_path, SMALL, fonts=())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ImageWriteError, match="cannot be written into"):
            draw_pictures(folder, SMALL, fonts=())


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_pictures(tmp_path, replace(SMALL, count=1), fonts=())

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(ImageWriteError, match="free some space"):
        draw_pictures(tmp_path, SMALL, fonts=())
    assert len(list(tmp_path.iterdir())) == 2
