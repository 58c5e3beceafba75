"""Colours that go together: a paper, an ink that can be read on it, and accents."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

from realesr_cli.train.dataset.drawing.dice import Rng, between, chance, weighted

Colour = tuple[int, int, int]
"""Red, green and blue, 0..255."""

READABLE = 70
"""Least difference of luma, of 255, between ink and paper."""


@dataclass(frozen=True)
class Palette:
    """Colours of one picture; `dark` tells that the paper is darker than the ink."""

    paper: Colour
    ink: Colour
    accents: tuple[Colour, ...]

    @property
    def dark(self) -> bool:
        return luma(self.paper) < luma(self.ink)


def luma(colour: Colour) -> float:
    """Brightness as seen, 0..255 (weights of ITU-R BT.601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour from hue, saturation and value, each in [0, 1] (the hue wraps)."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1))
    return round(red * 255), round(green * 255), round(blue * 255)


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of the second colour in the first."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def legible(colour: Colour, paper: Colour) -> Colour:
    """The colour, moved towards black or white until it can be read on the paper."""
    goal = (0, 0, 0) if luma(paper) > 127 else (255, 255, 255)
    for step in range(11):
        moved = mixed(colour, goal, step / 10)
        if abs(luma(moved) - luma(paper)) >= READABLE:
            return moved
    return goal


def accent(rng: Rng) -> Colour:
    """Any colour, from pale to strong."""
    return hsv(rng.random(), between(rng, 0.25, 1), between(rng, 0.3, 1))


def palette(rng: Rng) -> Palette:
    """Dark on light in most cases, light on dark and coloured paper in the others."""
    scheme = weighted(rng, (("light", 0.55), ("dark", 0.2), ("coloured", 0.25)))
    pure = chance(rng, 0.4)
    tint = float(rng.random())
    if scheme == "light":
        faint = 0.0 if pure else between(rng, 0, 0.18)
        paper = hsv(tint, faint, 1.0 if pure else between(rng, 0.75, 0.98))
        ink = (0, 0, 0) if pure else hsv(rng.random(), rng.random() * 0.7, between(rng, 0.04, 0.4))
    elif scheme == "dark":
        paper = (0, 0, 0) if pure else hsv(tint, between(rng, 0, 0.8), between(rng, 0.05, 0.28))
        faint = 0.0 if pure else between(rng, 0, 0.5)
        ink = hsv(rng.random(), faint, 1.0 if pure else between(rng, 0.6, 0.97))
    else:
        paper = hsv(tint, between(rng, 0.25, 1), between(rng, 0.25, 0.95))
        ink = (255, 255, 255) if chance(rng, 0.3) else accent(rng)
    ink = legible(ink, paper)
    accents = tuple(legible(accent(rng), paper) for _ in range(5))
    return Palette(paper, ink, accents)
