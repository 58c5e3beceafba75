"""Pictures for training that are drawn, not taken: text, line art, charts, patterns, gradients.

Photographs hold little text and few clean lines, and a network that never saw them smears both.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from realesr_cli.errors import ConfigError, ImageWriteError
from realesr_cli.image.landing import landing
from realesr_cli.train.dataset.drawing.backgrounds import (
    Pixels,
    background,
    ramp,
    smooth_noise,
)
from realesr_cli.train.dataset.drawing.canvas import Canvas, sheet
from realesr_cli.train.dataset.drawing.charts import charts
from realesr_cli.train.dataset.drawing.colours import palette
from realesr_cli.train.dataset.drawing.dice import Rng, between, chance, pick, weighted
from realesr_cli.train.dataset.drawing.fonts import Library, library
from realesr_cli.train.dataset.drawing.gradients import gradient, shapes
from realesr_cli.train.dataset.drawing.lineart import comic, line_art
from realesr_cli.train.dataset.drawing.pages import large_words, page
from realesr_cli.train.dataset.drawing.patterns import patterns
from realesr_cli.train.dataset.drawing.screens import screen
from realesr_cli.train.dataset.drawing.signs import signs, table
from realesr_cli.train.dataset.drawing.sketch import Sketch
from realesr_cli.train.dataset.settings import LARGEST_SIDE, SMALLEST_SIDE, DrawSettings

Report = Callable[[int, int], None]

SETTINGS_FILE = "drawn.json"
"""Written into the folder, so that it never mixes two ways of drawing."""

DRAWING = 1
"""Version of the drawings: another number wherever the same seed gives other pixels."""

_CALLED = {
    "seed": "seed",
    "size": "size",
    "drawing": "version of the drawings",
    "pillow": "release of Pillow",
    "fonts": "set of fonts",
}

FILTERS = (Image.Resampling.BOX, Image.Resampling.HAMMING, Image.Resampling.BICUBIC)
"""How the large sheet is reduced: as scanners and screens do, softer, and crisper."""


@dataclass(frozen=True)
class Kind:
    """One kind of picture: its share of all, how it is drawn, and how it may lie on the picture.

    `turned` is the probability that it lies askew, by `most` degrees at the most.
    """

    share: float
    draw: Callable[[Sketch], None]
    turned: float = 0.0
    most: float = 6.0
    factor: int = 3


KINDS: dict[str, Kind] = {
    "page": Kind(0.24, page, turned=0.2, factor=2),
    "words": Kind(0.06, large_words),
    "signs": Kind(0.1, signs, turned=0.35, most=20),
    "table": Kind(0.07, table, turned=0.15, factor=2),
    "line-art": Kind(0.15, line_art),
    "comic": Kind(0.08, comic),
    "chart": Kind(0.11, charts, turned=0.05),
    "gradient": Kind(0.06, shapes, factor=2),
    "pattern": Kind(0.06, patterns, turned=0.4, most=20),
    "screen": Kind(0.07, screen, turned=0.05, factor=2),
}


def draw_picture(
    rng: Rng, *, height: int, width: int, fonts: Sequence[Path], kind: str | None = None
) -> Pixels:
    """One drawn picture, (height, width, 3) RGB of 0..255.

    All choices come from `rng`: the same state and fonts give the same bytes (with one release of
    Pillow, which draws). `fonts` are font files, as `find_fonts` lists them; without any, Pillow's
    own font is used. `kind` is a key of `KINDS`; without it one is chosen by their shares. Raises
    ConfigError for a side outside of 32..2048 pixels, an unknown kind, or a file that is no font
    with Latin letters.
    """
    for name, side in (("height", height), ("width", width)):
        if not SMALLEST_SIDE <= side <= LARGEST_SIDE:
            raise ConfigError(f"{name} = {side}: must be {SMALLEST_SIDE} to {LARGEST_SIDE} pixels")
    faces = library(tuple(fonts))
    chosen = weighted(rng, [(name, one.share) for name, one in KINDS.items()])
    chosen = chosen if kind is None else kind
    if chosen not in KINDS:
        raise ConfigError(f"kind = {chosen!r}: must be one of {', '.join(KINDS)}")
    return _toned(
        rng, _drawn(rng, KINDS[chosen], (height, width), faces, plain=chosen != "gradient")
    )


def _drawn(rng: Rng, kind: Kind, size: tuple[int, int], faces: Library, *, plain: bool) -> Pixels:
    angle = between(rng, -kind.most, kind.most) if chance(rng, kind.turned) else 0.0
    # A sheet that lies askew must reach over the corners of the picture.
    cos, sin = math.cos(math.radians(angle)), abs(math.sin(math.radians(angle)))
    height = math.ceil(size[0] * cos + size[1] * sin)
    width = math.ceil(size[1] * cos + size[0] * sin)
    colours = palette(rng)
    under = background(rng, height, width, colours.paper) if plain else gradient(rng, height, width)
    canvas = sheet(under, kind.factor)
    kind.draw(Sketch(rng, canvas, faces, colours))
    return _finished(rng, canvas, size, angle)


def _finished(rng: Rng, canvas: Canvas, size: tuple[int, int], angle: float) -> Pixels:
    """The sheet turned, cut and reduced to the size of the picture."""
    way = pick(rng, FILTERS)
    image, factor = canvas.image, canvas.factor
    if angle:
        image = image.rotate(angle, Image.Resampling.BILINEAR)
    height, width = size[0] * factor, size[1] * factor
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image = image.crop((left, top, left + width, top + height))
    return np.asarray(image.resize((size[1], size[0]), way))


def _toned(rng: Rng, pixels: Pixels) -> Pixels:
    """Half of the pictures as drawn; the others with less contrast, a cast, or uneven light."""
    if chance(rng, 0.5):
        return pixels
    height, width = pixels.shape[:2]
    low, high = between(rng, 0, 45), between(rng, 190, 255)
    cast = np.array([between(rng, -9, 9) for _ in range(3)], np.float32)
    toned = pixels.astype(np.float32) * ((high - low) / 255) + low + cast
    if chance(rng, 0.4):
        plane = ramp(rng, height, width) + smooth_noise(rng, height, width, cells=2, octaves=1)
        toned *= 1 - (plane * between(rng, 0.05, 0.2))[..., None]
    shown: Pixels = np.rint(toned.clip(0, 255)).astype(np.uint8)
    return shown


def draw_pictures(
    folder: Path,
    settings: DrawSettings,
    *,
    fonts: Sequence[Path],
    report: Report | None = None,
) -> list[Path]:
    """Write drawn pictures as PNG files into a folder; the paths of all, in order.

    Picture number i depends on (seed, i), the size and the fonts alone, so that a larger count
    begins with the same pictures, and a run that was stopped goes on: files that are there are
    left. Files land whole. Raises ConfigError if the folder holds other files, or was drawn with
    another seed, size, fonts or version; ImageWriteError where a file cannot be written.
    """
    library(tuple(fonts))
    _claim(folder, settings, fonts)
    paths = []
    for number in range(settings.count):
        path = folder / f"drawn_{settings.seed}_{number:06d}.png"
        if not path.exists():
            rng = np.random.default_rng((settings.seed, number))
            side = settings.size
            pixels = draw_picture(rng, height=side, width=side, fonts=fonts)
            with landing(path) as file:
                Image.fromarray(pixels).save(file, "PNG", compress_level=6)
        paths.append(path)
        if report is not None:
            report(number + 1, settings.count)
    return paths


def _claim(folder: Path, settings: DrawSettings, fonts: Sequence[Path]) -> None:
    """Note in the folder what its pictures depend on; ConfigError if something else is noted."""
    shown = {
        "seed": settings.seed,
        "size": settings.size,
        "drawing": DRAWING,
        "pillow": PIL.__version__,
        "fonts": [[path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in fonts],
    }
    path = folder / SETTINGS_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        used = any(folder.iterdir())
        before = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
    except OSError as error:
        raise ImageWriteError(
            f"{folder}: cannot be written into: {error.strerror or error}: choose another folder"
        ) from error
    if before is not None:
        noted = _noted(path, before)
        other = [_CALLED[key] for key in shown if noted.get(key) != shown[key]]
        if other:
            raise ConfigError(
                f"{folder} was drawn with another {', '.join(other)}: choose another folder, or "
                "delete it"
            )
        return
    if used:
        raise ConfigError(f"{folder} holds other files: choose another folder")
    with landing(path) as file:
        file.write((json.dumps(shown, indent=1) + "\n").encode())


def _noted(path: Path, text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{path} is damaged: choose another folder, or delete this one"
        ) from error
