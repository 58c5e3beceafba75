"""What drawn pictures are made of: smooth edges, readable colours, fonts and words."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from realesr_cli.errors import ConfigError, RealesrWarning
from realesr_cli.train.dataset.drawing import fonts as fonts_module
from realesr_cli.train.dataset.drawing.backgrounds import (
    background,
    radial,
    ramp,
    smooth_noise,
    tinted,
)
from realesr_cli.train.dataset.drawing.canvas import Canvas, sheet
from realesr_cli.train.dataset.drawing.colours import (
    READABLE,
    Palette,
    accent,
    legible,
    luma,
    palette,
)
from realesr_cli.train.dataset.drawing.curves import blob, smooth, stroke
from realesr_cli.train.dataset.drawing.dice import between, pick, spread, weighted, whole
from realesr_cli.train.dataset.drawing.fonts import (
    SAMPLES,
    Face,
    Library,
    find_fonts,
    library,
    load,
)
from realesr_cli.train.dataset.drawing.gradients import gradient
from realesr_cli.train.dataset.drawing.lineart import hatch
from realesr_cli.train.dataset.drawing.pages import lines_of
from realesr_cli.train.dataset.drawing.signs import fitted
from realesr_cli.train.dataset.drawing.sketch import Sketch
from realesr_cli.train.dataset.drawing.words import label, number, sentence, token, word

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def canvas(height: int = 60, width: int = 80, factor: int = 3) -> Canvas:
    return sheet(np.full((height, width, 3), 255, np.uint8), factor)


def ink(drawn: Canvas) -> NDArray[np.float64]:
    """Share of ink, 0..1, in each finished pixel of a canvas of black on white."""
    reduced = drawn.image.convert("L").reduce(drawn.factor)
    return 1 - np.asarray(reduced, np.float64) / 255


def own_font(folder: Path, name: str) -> Path:
    """The font that Pillow carries, as a file."""
    font = ImageFont.load_default(24)
    assert isinstance(font, ImageFont.FreeTypeFont)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(font.font_bytes)
    return path


def sketch(drawn: Canvas, seed: int = 0) -> Sketch:
    return Sketch(generator(seed), drawn, library(()), Palette(WHITE, BLACK, (BLACK,) * 5))


def test_canvas_keeps_what_is_not_drawn_over() -> None:
    pixels = generator().integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for factor in (2, 3):
        image = sheet(pixels, factor).image.resize((30, 20), Image.Resampling.BOX)
        assert np.array_equal(np.asarray(image), pixels)


def test_a_disc_has_its_area_and_soft_edges() -> None:
    drawn = canvas()
    drawn.disc((40.3, 30.6), 17.5, BLACK)
    covered = ink(drawn)
    assert covered.sum() == pytest.approx(math.pi * 17.5**2, rel=0.03)
    assert np.mean((covered > 0.05) & (covered < 0.95)) > 0.01
    y, x = np.mgrid[0:60, 0:80] + 0.5
    assert (covered * x).sum() / covered.sum() == pytest.approx(40.3, abs=0.4)
    assert (covered * y).sum() / covered.sum() == pytest.approx(30.6, abs=0.4)


@pytest.mark.parametrize("width", [1, 2.5, 6])
def test_a_line_has_its_width(width: float) -> None:
    drawn = canvas(factor=4)
    drawn.line([(10, 30), (70, 30)], BLACK, width)
    assert ink(drawn)[:, 30:50].sum() / 20 == pytest.approx(width, abs=0.3)


def test_boxes_frames_rings_and_dashes() -> None:
    for paint, area in (
        (lambda c: c.box((10, 10, 30, 20), BLACK), 200),
        (lambda c: c.box((10, 10, 30, 30), BLACK, radius=10), math.pi * 100),
        (lambda c: c.frame((10, 10, 30, 20), BLACK, 2), 200 - 16 * 6),
        (lambda c: c.ring((40, 30), 20, BLACK, 4), math.pi * (400 - 256)),
        (lambda c: c.sector((40, 30), 20, (0, 90), BLACK), math.pi * 100),
        (lambda c: c.dashed((10, 30), (50, 30), BLACK, 2, 5), 40),
    ):
        drawn = canvas(factor=4)
        paint(drawn)
        assert ink(drawn).sum() == pytest.approx(area, rel=0.12)


def test_what_has_no_room_is_left_out() -> None:
    drawn = canvas()
    drawn.box((30, 30, 29, 20), BLACK)
    drawn.frame((30, 30, 31, 31), BLACK, 4)
    drawn.ellipse((30, 30, 29, 29), BLACK)
    drawn.ring((30, 30), 0, BLACK, 1)
    drawn.sector((30, 30), 0, (0, 90), BLACK)
    assert ink(drawn).sum() == 0


def test_text_equals_that_of_pillow_at_the_finished_size() -> None:
    """Drawn large and reduced, letters lie where they lie when drawn small."""
    face = library(()).faces[0]
    drawn = canvas(60, 200)
    drawn.text((12, 9), "Realistic", drawn.font(face, 36), BLACK)
    direct = Image.new("L", (200, 60), 255)
    ImageDraw.Draw(direct).text((12, 9), "Realistic", fill=0, font=load(None, 36), anchor="la")
    expected = 1 - np.asarray(direct, np.float64) / 255
    assert np.corrcoef(ink(drawn).ravel(), expected.ravel())[0, 1] > 0.85


def test_turned_text() -> None:
    face = library(()).faces[0]
    level, upright = canvas(120, 120), canvas(120, 120)
    for drawn, angle in ((level, 0), (upright, 90)):
        drawn.turned_text((60, 60), "length", drawn.font(face, 24), BLACK, angle=angle)
    rows, columns = np.nonzero(ink(upright) > 0.3)
    assert np.ptp(rows) > 2 * np.ptp(columns)
    turned = np.rot90(ink(level))
    assert np.corrcoef(ink(upright).ravel(), turned.ravel())[0, 1] > 0.8


def test_ink_can_be_read_on_its_paper() -> None:
    rng = generator()
    dark = 0
    for _ in range(300):
        colours = palette(rng)
        dark += colours.dark
        for one in (colours.ink, *colours.accents):
            assert abs(luma(one) - luma(colours.paper)) >= READABLE - 1e-9
    assert 40 < dark < 180


def test_legible_leaves_what_is_legible() -> None:
    assert legible((10, 20, 30), WHITE) == (10, 20, 30)
    assert abs(luma(legible((128, 128, 128), (128, 128, 128))) - 128) >= READABLE


def test_smooth_planes_reach_from_zero_to_one_in_small_steps() -> None:
    rng = generator()
    noise = smooth_noise(rng, 90, 140, cells=4)
    for plane in (ramp(rng, 90, 140), radial(rng, 90, 140), noise):
        assert plane.shape == (90, 140)
        assert plane.min() == 0
        assert plane.max() == pytest.approx(1)
        assert max(np.abs(np.diff(plane, axis=axis)).max() for axis in (0, 1)) < 0.15


def test_tints_end_at_their_colours() -> None:
    plane = np.linspace(0, 1, 11, dtype=np.float32)[None]
    row = tinted(plane, [(10, 20, 30), (110, 0, 255)])[0]
    assert row[0].tolist() == [10, 20, 30]
    assert row[-1].tolist() == [110, 0, 255]
    assert row[5].tolist() == [60, 10, 142]


def test_backgrounds_stay_near_the_paper() -> None:
    rng = generator()
    for _ in range(40):
        paper = accent(rng)
        made = background(rng, 40, 50, paper).astype(float)
        assert np.abs(made - paper).max() < 80


def test_gradients_are_smooth_and_coloured() -> None:
    for seed in range(12):
        made = gradient(generator(seed), 160, 160).astype(float)
        assert np.abs(np.diff(made, axis=1)).max() < 60
        assert made.std(axis=(0, 1)).max() > 1


def test_splines_pass_through_their_knots() -> None:
    knots = generator().random((7, 2)) * 100
    curve = smooth(knots, steps=16)
    assert np.allclose(curve[::16], knots)
    closed = smooth(knots, closed=True, steps=10)
    assert np.allclose(closed[::10], knots)
    assert len(closed) == 70


def test_a_round_blob_and_a_stroke_along_it() -> None:
    shape = blob(generator(), (40, 30), 20, rough=0)
    assert np.hypot(*(shape - (40, 30)).T) == pytest.approx(20, rel=0.2)
    drawn = canvas()
    stroke(generator(), drawn, shape, BLACK, width=3, swell=0)
    near = np.hypot(*(np.argwhere(ink(drawn) > 0.2) - (30, 40)).T)
    assert near.min() > 14
    assert near.max() < 25


def test_hatching_stays_within_its_shape() -> None:
    drawn = canvas()
    square = np.array([[20, 10], [60, 10], [60, 50], [20, 50]], float)
    hatch(drawn, square, 0.7, (6, 2), BLACK)
    covered = ink(drawn)
    inside = covered[10:51, 20:61].sum()
    assert covered.sum() == pytest.approx(inside)
    assert inside / 1600 == pytest.approx(1 / 3, abs=0.06)


def test_words_broken_into_lines_fit_and_are_all_there() -> None:
    made = sketch(canvas(200, 200))
    font = made.canvas.font(made.library.faces[0], 14)
    words = [one for _ in range(8) for one in sentence(generator())]
    lines = lines_of(made, words, font, 150)
    assert [one for line in lines for one in line] == words
    for line in lines:
        assert len(line) == 1 or made.canvas.length(" ".join(line), font) <= 150.5


def test_fitted_text_fits() -> None:
    made = sketch(canvas(200, 200))
    face = made.library.faces[0]
    for text in ("Exit", "a very long inscription"):
        size = fitted(made, face, text, (120, 40))
        assert size * 1.25 <= 40 + 1e-6
        assert made.canvas.length(text, made.canvas.font(face, size)) <= 123


def test_chance_keeps_to_its_limits() -> None:
    rng = generator()
    for _ in range(200):
        assert 2 <= between(rng, 2, 3) < 3
        assert 10 <= spread(rng, 10, 90) < 90
        assert whole(rng, 1, 3) in (1, 2, 3)
        assert pick(rng, "abc") in "abc"
        assert weighted(rng, (("never", 0.0), ("always", 1.0))) == "always"
    halves = [spread(rng, 10, 40) < 20 for _ in range(2000)]
    assert np.mean(halves) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("script", SAMPLES)
def test_words_of_every_script(script: str) -> None:
    rng = generator()
    made = [word(rng, script) for _ in range(100)]
    assert all(made)
    assert len(set(made)) > 30
    if script not in ("latin", "accents"):
        assert not any(letter.isascii() for one in made for letter in one)


def test_numbers_labels_and_tokens_are_never_empty() -> None:
    rng = generator()
    for make in (number, label, token):
        made = {make(rng) for _ in range(100)}
        assert "" not in made
        assert len(made) > 25


def test_fonts_are_found_once_and_sorted_by_name(tmp_path: Path) -> None:
    own_font(tmp_path / "one", "b.ttf")
    own_font(tmp_path / "one" / "deeper", "A.OTF")
    own_font(tmp_path / "two", "B.ttf")
    (tmp_path / "one" / "broken.ttf").write_bytes(b"no font")
    (tmp_path / "one" / "readme.txt").write_text("no font either")
    found = find_fonts([tmp_path / "one", tmp_path / "two"])
    assert found == (tmp_path / "one" / "deeper" / "A.OTF", tmp_path / "one" / "b.ttf")


def test_folders_without_fonts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no TrueType font"):
        find_fonts([tmp_path])
    with pytest.raises(ConfigError, match="no such folder"):
        find_fonts([tmp_path / "nowhere"])


def test_a_system_without_fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts_module, "folders_of_system", lambda: (tmp_path, tmp_path / "none"))
    with pytest.warns(RealesrWarning, match="Pillow's own"):
        assert find_fonts() == ()


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_every_system_has_folders(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    folders = fonts_module.folders_of_system()
    assert len(folders) >= 2
    assert len(set(folders)) == len(folders)


def test_a_file_that_is_no_font(tmp_path: Path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    for name in ("broken.ttf", "nowhere.ttf"):
        with pytest.raises(ConfigError, match=f"{name}: no scalable font"):
            library((tmp_path / name,))


def test_a_font_of_symbols_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = own_font(tmp_path, "symbols.ttf")
    monkeypatch.setitem(SAMPLES, "latin", "ABC\u2603")
    with pytest.raises(ConfigError, match=r"symbols\.ttf: no scalable font with Latin letters"):
        library((path,))


def test_scripts_that_a_font_lacks_are_not_drawn_with_it(tmp_path: Path) -> None:
    (face,) = library((own_font(tmp_path, "own.ttf"),)).faces
    assert "latin" in face.scripts
    assert not {"greek", "cyrillic", "kana", "han"} & face.scripts
    made = sketch(canvas())
    assert all(made.script() in face.scripts for _ in range(100))


def test_pillow_without_freetype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFont, "load_default", lambda size: ImageFont.ImageFont())
    load.cache_clear()
    with pytest.raises(ConfigError, match="lacks FreeType"):
        load(None, 77)


def test_faces_by_family_script_and_pitch() -> None:
    plain, cyrillic = frozenset({"latin"}), frozenset({"latin", "cyrillic"})
    many = [Face(Path(f"a{n}.ttf"), "A", plain, False) for n in range(20)]
    mono = Face(Path("m.ttf"), "M", cyrillic, True)
    faces = Library((*many, mono))
    rng = generator()
    assert faces.scripts() == cyrillic
    assert all(faces.face(rng, "cyrillic") is mono for _ in range(20))
    assert all(faces.face(rng, mono=True) is mono for _ in range(20))
    # A family of twenty files is one of two families.
    chosen = [faces.face(rng).family for _ in range(400)]
    assert 150 < chosen.count("A") < 250
    related = [faces.relative(rng, many[0]).family for _ in range(400)]
    assert related.count("A") > 300
    none_even = Library(tuple(many))
    assert none_even.face(rng, mono=True).family == "A"
