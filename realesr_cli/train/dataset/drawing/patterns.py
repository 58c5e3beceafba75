"""Regular patterns, down to a few pixels a period: checks, stripes, bricks, grids, rings, stars."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realesr_cli.train.dataset.drawing.colours import Colour, mixed
from realesr_cli.train.dataset.drawing.dice import between, chance, pick, spread, whole
from realesr_cli.train.dataset.drawing.sketch import Sketch

Lengths = NDArray[np.float32]


def patterns(sketch: Sketch) -> None:
    """One pattern all over, or two to six of them side by side."""
    rng = sketch.rng
    ways = (checks, stripes, bricks, grid, dots, hexagons, tartan, rings, star)
    if chance(rng, 0.5):
        pick(rng, ways)(sketch)
        return
    # Each is drawn all over and shows in its own panel.
    columns, rows = whole(rng, 1, 3), whole(rng, 1, 2)
    before = sketch.canvas.image.copy()
    width, height = sketch.canvas.image.size
    panels = []
    for row in range(rows):
        for column in range(columns):
            sketch.canvas.image.paste(before, (0, 0))
            pick(rng, ways)(sketch)
            left, top = width * column // columns, height * row // rows
            box = (left, top, width * (column + 1) // columns, height * (row + 1) // rows)
            panels.append((sketch.canvas.image.crop(box), (left, top)))
    for panel, at in panels:
        sketch.canvas.image.paste(panel, at)


def _colours(sketch: Sketch) -> list[Colour]:
    rng = sketch.rng
    near = [
        mixed(sketch.palette.paper, one, between(rng, 0.3, 1)) for one in sketch.palette.accents
    ]
    return [sketch.palette.ink, *near] if chance(rng, 0.5) else near


def _cells(sketch: Sketch, mask: NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray((mask * 255).astype(np.uint8))


def _axes(sketch: Sketch) -> tuple[Lengths, Lengths]:
    """y (a column) and x (a row) of the pixels held inside, in finished pixels."""
    width, height = sketch.canvas.image.size
    factor = sketch.canvas.factor
    return _steps(height, factor)[:, None], _steps(width, factor)[None]


def _steps(count: int, factor: int) -> Lengths:
    return np.arange(count, dtype=np.float32) / np.float32(factor)


def checks(sketch: Sketch) -> None:
    """A board of squares or of oblong fields."""
    period = spread(sketch.rng, 3, 60)
    stretch = 1.0 if chance(sketch.rng, 0.6) else between(sketch.rng, 0.5, 2)
    y, x = _axes(sketch)
    mask = ((y / period) % 2 < 1) ^ ((x / (period * stretch)) % 2 < 1)
    sketch.canvas.paint(_cells(sketch, mask), _colours(sketch)[0])


def stripes(sketch: Sketch) -> None:
    """Stripes of one width, or of one that shrinks from side to side."""
    rng = sketch.rng
    y, x = _axes(sketch)
    period = spread(rng, 2.5, 50)
    angle = pick(rng, (0.0, math.pi / 2, between(rng, 0, math.pi)))
    along = x * math.cos(angle) + y * math.sin(angle)
    along = along - along.min()
    if chance(rng, 0.35):
        # The period falls evenly from its value to a quarter of it (a chirp).
        along = along * (1 + 1.5 * along / along.max())
    mask = (along / period) % 1 < between(rng, 0.25, 0.75)
    sketch.canvas.paint(_cells(sketch, mask), _colours(sketch)[0])


def bricks(sketch: Sketch) -> None:
    """A wall in a running bond, each stone of its own shade."""
    rng = sketch.rng
    height = spread(rng, 8, 50)
    width, joint = height * between(rng, 1.6, 3.2), max(0.8, height * between(rng, 0.05, 0.18))
    base = pick(rng, _colours(sketch))
    for row in range(int(sketch.height / height) + 2):
        shift = (row % 2) * width / 2
        for column in range(-1, int(sketch.width / width) + 2):
            left, top = column * width + shift, row * height
            tone = mixed(
                base, (0, 0, 0) if chance(rng, 0.5) else (255, 255, 255), rng.random() * 0.25
            )
            sketch.canvas.box((left, top, left + width - joint, top + height - joint), tone)


def grid(sketch: Sketch) -> None:
    """Thin lines both ways, each fifth or tenth of them thicker."""
    rng = sketch.rng
    period, thin = spread(rng, 4, 50), spread(rng, 0.6, 2.5)
    every = pick(rng, (1, 5, 10))
    colour = _colours(sketch)[0]
    for at in range(int(max(sketch.width, sketch.height) / period) + 1):
        width = thin * (2 if every > 1 and at % every == 0 else 1)
        sketch.canvas.line([(at * period, 0), (at * period, sketch.height)], colour, width)
        sketch.canvas.line([(0, at * period), (sketch.width, at * period)], colour, width)


def dots(sketch: Sketch) -> None:
    """Dots in rows; as a screen of a printed picture they grow along one side."""
    rng = sketch.rng
    period = spread(rng, 5, 50)
    share, growing = between(rng, 0.15, 0.5), chance(rng, 0.4)
    colours = _colours(sketch)[: whole(rng, 1, 3)]
    for row in range(int(sketch.height / period) + 2):
        for column in range(int(sketch.width / period) + 2):
            grown = column * period / sketch.width if growing else 1
            x = (column + (row % 2) / 2) * period
            radius = period * share * min(grown, 1)
            sketch.canvas.disc((x, row * period), radius, colours[(row + column) % len(colours)])


def hexagons(sketch: Sketch) -> None:
    """A honeycomb, filled or of lines."""
    rng = sketch.rng
    side = spread(rng, 6, 50)
    filled, colours = chance(rng, 0.5), _colours(sketch)
    for row in range(int(sketch.height / (side * 1.5)) + 2):
        for column in range(int(sketch.width / (side * math.sqrt(3))) + 2):
            x, y = (column + (row % 2) / 2) * side * math.sqrt(3), row * side * 1.5
            corners = [
                (
                    x + side * 0.94 * math.sin(k * math.pi / 3),
                    y + side * 0.94 * math.cos(k * math.pi / 3),
                )
                for k in range(6)
            ]
            if filled:
                sketch.canvas.polygon(corners, pick(rng, colours))
            else:
                sketch.canvas.line(corners, colours[0], max(0.8, side * 0.06), closed=True)


def tartan(sketch: Sketch) -> None:
    """Cloth: stripes of several colours both ways, woven in diagonals."""
    rng = sketch.rng
    y, x = _axes(sketch)
    period = spread(rng, 30, 220)
    thread = spread(rng, 1.5, 5)
    weave = ((x + y) / thread) % 2 < 1
    for colour in _colours(sketch)[:4]:
        start, end = between(rng, 0, 0.8), between(rng, 0.03, 0.3)
        across = ((x / period) % 1 >= start) & ((x / period) % 1 < start + end)
        along = ((y / period) % 1 >= start) & ((y / period) % 1 < start + end)
        sketch.canvas.paint(_cells(sketch, (across & weave) | (along & ~weave)), colour)


def rings(sketch: Sketch) -> None:
    """Rings about one point, of one width or finer outwards as in a zone plate."""
    rng = sketch.rng
    y, x = _axes(sketch)
    radius = np.hypot(y - between(rng, 0, 1) * sketch.height, x - between(rng, 0, 1) * sketch.width)
    if chance(rng, 0.4):
        # The period at the farthest point is `finest`, as the phase grows with the square.
        finest = spread(rng, 3, 10)
        phase = radius**2 / (2 * finest * radius.max())
    else:
        phase = radius / spread(rng, 3, 50)
    sketch.canvas.paint(_cells(sketch, phase % 1 < between(rng, 0.3, 0.7)), _colours(sketch)[0])


def star(sketch: Sketch) -> None:
    """Wedges that meet at a point, as in charts that test lenses (a Siemens star)."""
    rng = sketch.rng
    y, x = _axes(sketch)
    angle = np.arctan2(
        y - between(rng, 0.2, 0.8) * sketch.height, x - between(rng, 0.2, 0.8) * sketch.width
    )
    phase = (angle / (2 * math.pi) + 0.5) * whole(rng, 8, 60)
    sketch.canvas.paint(_cells(sketch, phase % 1 < 0.5), _colours(sketch)[0])
