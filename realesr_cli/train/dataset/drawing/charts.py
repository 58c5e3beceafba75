"""Charts: bars, lines, points, areas and pies, with axes, ticks, labels and legends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realesr_cli.train.dataset.drawing.canvas import Box, Point
from realesr_cli.train.dataset.drawing.colours import Colour, mixed
from realesr_cli.train.dataset.drawing.dice import between, chance, pick, spread, weighted, whole
from realesr_cli.train.dataset.drawing.fonts import Face
from realesr_cli.train.dataset.drawing.sketch import Sketch
from realesr_cli.train.dataset.drawing.words import label, phrase


@dataclass(frozen=True)
class Look:
    """How the charts of one picture look; sizes in finished pixels."""

    face: Face
    size: float
    width: float
    grid: Colour | None
    boxed: bool


@dataclass(frozen=True)
class Plot:
    """The room of one chart within its axes."""

    box: Box
    look: Look

    def at(self, x: float, y: float) -> Point:
        """A place given by shares, from the left and from the bottom."""
        left, top, right, bottom = self.box
        return left + x * (right - left), bottom - y * (bottom - top)


def charts(sketch: Sketch) -> None:
    """One to six charts of one look."""
    rng = sketch.rng
    rows, columns = weighted(
        rng, (((1, 1), 0.4), ((2, 1), 0.2), ((1, 2), 0.1), ((2, 2), 0.2), ((3, 2), 0.1))
    )
    height, width = sketch.height / rows, sketch.width / columns
    paper, ink = sketch.palette.paper, sketch.palette.ink
    smallest = min(height, width)
    look = Look(
        sketch.library.face(rng),
        min(max(9, smallest * between(rng, 0.025, 0.06)), 30),
        spread(rng, 0.8, 3.5),
        mixed(paper, ink, between(rng, 0.1, 0.4)) if chance(rng, 0.6) else None,
        chance(rng, 0.5),
    )
    for row in range(rows):
        for column in range(columns):
            corner = column * width, row * height
            one_chart(sketch, (*corner, corner[0] + width, corner[1] + height), look)


def one_chart(sketch: Sketch, box: Box, look: Look) -> None:
    """A chart of any kind within a box, its labels included."""
    rng = sketch.rng
    size = look.size
    plot = Plot(
        (box[0] + size * 4, box[1] + size * 2.4, box[2] - size * 1.2, box[3] - size * 3.4), look
    )
    if plot.box[2] - plot.box[0] < 4 or plot.box[3] - plot.box[1] < 4:
        return
    ink = sketch.palette.ink
    title = sketch.canvas.font(look.face, size * between(rng, 1, 1.4))
    middle = (plot.box[0] + plot.box[2]) / 2, box[1] + size * 1.2
    if chance(rng, 0.8):
        sketch.canvas.text(middle, phrase(rng, whole(rng, 1, 4)), title, ink, anchor="mm")
    kind = pick(rng, (bars, lines, points, areas, pie, bars, lines))
    if kind is pie:
        pie(sketch, plot)
        return
    _axes(sketch, plot, names=kind is bars)
    kind(sketch, plot)
    if look.boxed:
        sketch.canvas.frame(plot.box, ink, look.width)
    else:
        corner = [plot.at(0, 1), plot.at(0, 0), plot.at(1, 0)]
        sketch.canvas.line(corner, ink, look.width)
    if chance(rng, 0.5):
        _legend(sketch, plot)


def _axes(sketch: Sketch, plot: Plot, *, names: bool) -> None:
    """Grid, ticks, numbers and the names of both axes."""
    rng = sketch.rng
    canvas, look, ink = sketch.canvas, plot.look, sketch.palette.ink
    font = canvas.font(look.face, look.size)
    tick = look.size * 0.35
    rows = whole(rng, 3, 8)
    unit = 10 ** whole(rng, -2, 3) * pick(rng, (1, 2, 5))
    for row in range(rows + 1):
        x, y = plot.at(0, row / rows)
        if look.grid is not None:
            canvas.line([(x, y), plot.at(1, row / rows)], look.grid, look.width * 0.6)
        canvas.line([(x - tick, y), (x, y)], ink, look.width)
        canvas.text((x - tick * 1.5, y), f"{row * unit:g}", font, ink, anchor="rm")
    if not names:
        columns = whole(rng, 3, 8)
        for column in range(columns + 1):
            x, y = plot.at(column / columns, 0)
            if look.grid is not None:
                canvas.line([(x, y), plot.at(column / columns, 1)], look.grid, look.width * 0.6)
            canvas.line([(x, y), (x, y + tick)], ink, look.width)
            canvas.text((x, y + tick * 1.5), f"{column * unit:g}", font, ink, anchor="ma")
    x, y = plot.at(0.5, 0)
    canvas.text((x, y + look.size * 2.4), label(rng), font, ink, anchor="mm")
    x, y = plot.at(0, 0.5)
    canvas.turned_text((x - look.size * 3.4, y), label(rng), font, ink, angle=90)


def _series(sketch: Sketch, count: int) -> NDArray[np.float64]:
    """`count` values in 0.05..0.95: a walk, a wave, a curve of growth, or chance alone."""
    rng = sketch.rng
    x = np.linspace(0, 1, count)
    kind = pick(rng, ("walk", "wave", "growth", "chance"))
    if kind == "walk":
        values = np.cumsum(rng.random(count) - 0.5)
    elif kind == "wave":
        waves = between(rng, 0.5, 4)
        values = np.sin(2 * math.pi * (waves * x + rng.random())) + rng.random(count) * 0.2
    elif kind == "growth":
        values = 1 / (1 + np.exp(-between(rng, 3, 12) * (x - between(rng, 0.2, 0.8))))
        values = values * (1 if chance(rng, 0.6) else -1) + rng.random(count) * 0.1
    else:
        values = rng.random(count)
    low, high = float(values.min()), float(values.max())
    return np.asarray(0.05 + 0.9 * (values - low) / max(high - low, 1e-6))


def bars(sketch: Sketch, plot: Plot) -> None:
    """Bars in groups or stacked, with names below and now and then values above."""
    rng = sketch.rng
    canvas, palette, look = sketch.canvas, sketch.palette, plot.look
    count, series = whole(rng, 3, 12), whole(rng, 1, 3)
    stacked, edged, told = chance(rng, 0.3), chance(rng, 0.4), chance(rng, 0.3)
    gap = between(rng, 0.1, 0.45)
    font = canvas.font(look.face, look.size * 0.85)
    heights = [_series(sketch, count) for _ in range(series)]
    names = [label(rng)[: max(2, int(18 / count) + 1)] for _ in range(count)]
    for at in range(count):
        left, right = (at + gap / 2) / count, (at + 1 - gap / 2) / count
        base = 0.0
        for one, values in enumerate(heights):
            value = float(values[at]) / (series if stacked else 1)
            part = (right - left) / (1 if stacked else series)
            start = left + (0 if stacked else one * part)
            low, high = plot.at(start, base), plot.at(start + part, base + value)
            box = (low[0], high[1], high[0], low[1])
            canvas.box(box, palette.accents[one])
            if edged:
                canvas.frame(box, palette.ink, look.width)
            if told and series == 1:
                top = (low[0] + high[0]) / 2, high[1] - look.size * 0.3
                canvas.text(top, f"{100 * value:.0f}", font, palette.ink, anchor="ms")
            base += value if stacked else 0
        x, y = plot.at((left + right) / 2, 0)
        canvas.text((x, y + look.size * 0.4), names[at], font, palette.ink, anchor="ma")


def lines(sketch: Sketch, plot: Plot) -> None:
    """One to five lines, solid or dashed, with or without marks."""
    rng = sketch.rng
    for one in range(whole(rng, 1, 5)):
        values = _series(sketch, whole(rng, 5, 60))
        path = [plot.at(i / (len(values) - 1), float(v)) for i, v in enumerate(values)]
        colour = sketch.palette.accents[one]
        width = plot.look.width * between(rng, 0.8, 1.8)
        if chance(rng, 0.25):
            for start, end in zip(path[::2], path[1::2], strict=False):
                sketch.canvas.line([start, end], colour, width)
        else:
            sketch.canvas.line(path, colour, width)
        if len(values) < 25 and chance(rng, 0.6):
            shape = pick(rng, ("disc", "ring", "square", "cross"))
            for point in path:
                _mark(sketch, point, width * between(rng, 1.5, 2), shape, colour)


def _mark(sketch: Sketch, at: Point, radius: float, shape: str, colour: Colour) -> None:
    x, y = at
    if shape == "disc":
        sketch.canvas.disc(at, radius, colour)
    elif shape == "ring":
        sketch.canvas.disc(at, radius, sketch.palette.paper)
        sketch.canvas.ring(at, radius, colour, radius * 0.4)
    elif shape == "square":
        sketch.canvas.box((x - radius, y - radius, x + radius, y + radius), colour)
    else:
        for way in (1, -1):
            ends = [(x - radius, y - radius * way), (x + radius, y + radius * way)]
            sketch.canvas.line(ends, colour, radius * 0.5)


def points(sketch: Sketch, plot: Plot) -> None:
    """Clouds of points, and now and then a line through them."""
    rng = sketch.rng
    for one in range(whole(rng, 1, 4)):
        count = whole(rng, 15, 150)
        slope, middle = between(rng, -1, 1), (between(rng, 0.3, 0.7), between(rng, 0.3, 0.7))
        away = rng.normal(0, between(rng, 0.06, 0.18), (count, 2))
        shape = pick(rng, ("disc", "ring", "square", "cross"))
        radius = spread(rng, 1.2, 5)
        for dx, dy in away:
            x, y = middle[0] + float(dx), middle[1] + slope * float(dx) + float(dy) * 0.5
            if 0 < x < 1 and 0 < y < 1:
                _mark(sketch, plot.at(x, y), radius, shape, sketch.palette.accents[one])
        if chance(rng, 0.4):
            ends = [(x, middle[1] + slope * (x - middle[0])) for x in (0.05, 0.95)]
            if all(0 < y < 1 for _, y in ends):
                path = [plot.at(x, y) for x, y in ends]
                sketch.canvas.line(path, sketch.palette.ink, plot.look.width)


def areas(sketch: Sketch, plot: Plot) -> None:
    """Filled areas below curves, one upon the other."""
    rng = sketch.rng
    count, layers = whole(rng, 8, 60), whole(rng, 1, 4)
    total = np.zeros(count)
    stacks = []
    for _ in range(layers):
        total = total + _series(sketch, count) / layers
        stacks.append(total)
    for one in reversed(range(layers)):
        path = [plot.at(i / (count - 1), float(v)) for i, v in enumerate(stacks[one])]
        tone = mixed(sketch.palette.accents[one], sketch.palette.paper, between(rng, 0, 0.5))
        sketch.canvas.polygon([plot.at(0, 0), *path, plot.at(1, 0)], tone)
        sketch.canvas.line(path, sketch.palette.accents[one], plot.look.width)


def pie(sketch: Sketch, plot: Plot) -> None:
    """A pie or a ring with names about it."""
    rng = sketch.rng
    canvas, look, palette = sketch.canvas, plot.look, sketch.palette
    left, top, right, bottom = plot.box
    middle = plot.at(0.5, 0.5)
    radius = min(right - left, bottom - top) * 0.42
    font = canvas.font(look.face, look.size)
    shares = rng.random(whole(rng, 3, 7)) + 0.15
    ends = np.cumsum(shares) / shares.sum() * 360 + between(rng, 0, 360)
    start = float(ends[-1]) - 360
    for at, end in enumerate(ends):
        tone = mixed(palette.accents[at % 5], palette.paper, 0.0 if at < 5 else 0.4)
        canvas.sector(middle, radius, (start, float(end)), tone)
        angle = math.radians((start + float(end)) / 2)
        reach = radius + look.size * 0.4
        place = middle[0] + reach * math.cos(angle), middle[1] + reach * math.sin(angle)
        anchor = ("l" if math.cos(angle) > 0 else "r") + "m"
        canvas.text(place, label(rng), font, palette.ink, anchor=anchor)
        start = float(end)
    if chance(rng, 0.6):
        for end in ends:
            angle = math.radians(float(end))
            edge = middle[0] + radius * math.cos(angle), middle[1] + radius * math.sin(angle)
            canvas.line([middle, edge], palette.paper, look.width)
    if chance(rng, 0.35):
        canvas.disc(middle, radius * between(rng, 0.4, 0.65), palette.paper)


def _legend(sketch: Sketch, plot: Plot) -> None:
    rng = sketch.rng
    canvas, look, palette = sketch.canvas, plot.look, sketch.palette
    font = canvas.font(look.face, look.size * 0.9)
    names = [label(rng) for _ in range(whole(rng, 1, 4))]
    wide = max(canvas.length(name, font) for name in names) + look.size * 2
    step = look.size * 1.3
    x, y = plot.at(between(rng, 0.05, 0.5), 0.95)
    box = (x, y, x + wide, y + step * len(names) + look.size * 0.4)
    canvas.box(box, palette.paper)
    canvas.frame(box, palette.ink, look.width * 0.7)
    for at, name in enumerate(names):
        top = y + look.size * 0.2 + at * step
        key = (x + look.size * 0.3, top + step * 0.25, x + look.size * 1.3, top + step * 0.75)
        canvas.box(key, palette.accents[at])
        canvas.text((x + look.size * 1.6, top), name, font, palette.ink)
