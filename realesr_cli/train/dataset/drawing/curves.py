"""Curves as points: smooth ones through chance points, closed blobs, and strokes that swell."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from realesr_cli.train.dataset.drawing.canvas import Canvas, Point
from realesr_cli.train.dataset.drawing.colours import Colour
from realesr_cli.train.dataset.drawing.dice import Rng, between

Points = NDArray[np.float64]
"""(N, 2) x, y."""


def smooth(knots: Points, *, closed: bool = False, steps: int = 16) -> Points:
    """A curve through the knots (uniform Catmull-Rom spline), `steps` points from one to the next.

    Source: Catmull and Rom, "A class of local interpolating splines", 1974.
    """
    if closed:
        padded = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        padded = np.concatenate([knots[:1], knots, knots[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    pieces = []
    for at in range(1, len(padded) - 2):
        before, start, end, after = padded[at - 1 : at + 3]
        linear = end - before
        square = 2 * before - 5 * start + 4 * end - after
        cube = 3 * start - before - 3 * end + after
        pieces.append(start + 0.5 * t * (linear + t * (square + t * cube)))
    if not closed:
        pieces.append(knots[-1:])
    return np.concatenate(pieces)


def wander(rng: Rng, height: int, width: int, *, count: int) -> Points:
    """A smooth curve that wanders over the picture through `count` points."""
    at = np.array([rng.random() * width, rng.random() * height])
    step = min(height, width) * between(rng, 0.06, 0.35)
    heading = between(rng, 0, 2 * math.pi)
    knots = [at]
    for _ in range(count - 1):
        heading += between(rng, -1.1, 1.1)
        at = at + step * np.array([math.cos(heading), math.sin(heading)])
        knots.append(at)
    return smooth(np.array(knots))


def blob(rng: Rng, middle: Point, radius: float, *, rough: float = 0.35) -> Points:
    """A closed smooth outline about a point; `rough` 0 is a circle."""
    count = int(rng.integers(5, 12))
    angles = (np.arange(count) + rng.random(count) * 0.5) * (2 * math.pi / count)
    reach = radius * (1 - rough + 2 * rough * rng.random(count))
    knots = np.stack([np.cos(angles) * reach, np.sin(angles) * reach], axis=1)
    return smooth(knots + np.array(middle), closed=True, steps=10)


def as_points(curve: Points) -> list[Point]:
    """The same as a list of pairs."""
    return [(float(x), float(y)) for x, y in curve]


def stroke(
    rng: Rng, canvas: Canvas, curve: Points, colour: Colour, *, width: float, swell: float = 0.7
) -> None:
    """A curve as drawn by pen or brush: its width waves by `swell`, and thins out at the ends."""
    count = len(curve)
    phase, waves = between(rng, 0, 2 * math.pi), between(rng, 0.5, 2.5)
    along = np.linspace(0, 1, count)
    widths = width * (1 - swell * 0.5 * (1 + np.sin(phase + waves * 2 * math.pi * along)))
    if swell:
        widths = widths * np.minimum(1, 8 * np.minimum(along, 1 - along) + 0.15)
    for at in range(count - 1):
        piece = as_points(curve[at : at + 2])
        half = float(widths[at]) / 2
        canvas.line(piece, colour, 2 * half)
        if half * canvas.factor >= 1.5:
            canvas.disc(piece[0], half, colour)
