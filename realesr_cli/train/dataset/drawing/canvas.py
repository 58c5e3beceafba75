"""A sheet to draw on in pixels of the finished picture; it is held several times larger inside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from realesr_cli.train.dataset.drawing.backgrounds import Pixels
from realesr_cli.train.dataset.drawing.colours import Colour
from realesr_cli.train.dataset.drawing.fonts import Face, Font, load

Point = tuple[float, float]
"""x, y in pixels of the finished picture."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Canvas:
    """The sheet: its finished size, and how many times larger it is held."""

    image: Image.Image
    pen: ImageDraw.ImageDraw
    factor: int
    height: int
    width: int

    def font(self, face: Face, size: float) -> Font:
        """The face at a size in finished pixels."""
        return load(face.path, max(3, round(size * self.factor)))

    def length(self, text: str, font: Font) -> float:
        """Width of a line of text in finished pixels."""
        return font.getlength(text) / self.factor

    def text(self, at: Point, text: str, font: Font, colour: Colour, *, anchor: str = "la") -> None:
        """A line of text; `anchor` as in Pillow: l, m or r and a (ascender), m or s (baseline)."""
        place = at[0] * self.factor, at[1] * self.factor
        self.pen.text(place, text, fill=colour, font=font, anchor=anchor)

    def turned_text(
        self, at: Point, text: str, font: Font, colour: Colour, *, angle: float
    ) -> None:
        """A line of text with its middle at a point, turned by degrees against the clock."""
        box = font.getbbox(text, anchor="la")
        size = math.ceil(box[2]) + 4, math.ceil(box[3]) + 4
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).text((2, 2), text, fill=255, font=font, anchor="la")
        mask = mask.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        place = (
            round(at[0] * self.factor - mask.width / 2),
            round(at[1] * self.factor - mask.height / 2),
        )
        self.image.paste(colour, place, mask)

    def box(self, box: Box, colour: Colour | None, *, radius: float = 0) -> None:
        """A filled rectangle, with round corners if there is a radius."""
        left, top, right, bottom = self._inner(box)
        if right < left or bottom < top:
            return
        if radius >= 1:
            limit = min(radius * self.factor, (right - left) / 2, (bottom - top) / 2)
            self.pen.rounded_rectangle((left, top, right, bottom), limit, fill=colour)
        else:
            self.pen.rectangle((left, top, right, bottom), fill=colour)

    def frame(self, box: Box, colour: Colour, width: float, *, radius: float = 0) -> None:
        """The edge of a rectangle, drawn inwards."""
        left, top, right, bottom = self._inner(box)
        thick = self.thick(width)
        if right - left < 2 * thick or bottom - top < 2 * thick:
            return
        limit = max(0, min(radius * self.factor, (right - left) / 2, (bottom - top) / 2))
        self.pen.rounded_rectangle((left, top, right, bottom), limit, outline=colour, width=thick)

    def disc(self, middle: Point, radius: float, colour: Colour) -> None:
        """A filled circle."""
        self.ellipse(
            (middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius),
            colour,
        )

    def ellipse(self, box: Box, colour: Colour) -> None:
        """A filled ellipse within a box."""
        left, top, right, bottom = self._inner(box)
        if right >= left and bottom >= top:
            self.pen.ellipse((left, top, right, bottom), fill=colour)

    def ring(self, middle: Point, radius: float, colour: Colour, width: float) -> None:
        """The edge of a circle, drawn inwards."""
        box = self._inner(
            (middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius)
        )
        if box[2] >= box[0]:
            self.pen.ellipse(box, outline=colour, width=self.thick(width))

    def sector(self, middle: Point, radius: float, degrees: Point, colour: Colour) -> None:
        """A slice of a pie between two angles, clockwise from three o'clock."""
        box = self._inner(
            (middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius)
        )
        if box[2] >= box[0]:
            self.pen.pieslice(box, degrees[0], degrees[1], fill=colour)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled polygon."""
        self.pen.polygon(self.scaled(points), fill=colour)

    def line(
        self, points: Sequence[Point], colour: Colour, width: float, *, closed: bool = False
    ) -> None:
        """A line through points, with round joints and ends."""
        path = self.scaled([*points, points[0]] if closed else points)
        thick = self.thick(width)
        self.pen.line(path, fill=colour, width=thick, joint="curve")
        if thick > 3:
            for x, y in (path[0], path[-1]):
                half = (thick - 1) / 2
                self.pen.ellipse((x - half, y - half, x + half, y + half), fill=colour)

    def dashed(self, start: Point, end: Point, colour: Colour, width: float, dash: float) -> None:
        """A straight line of dashes as long as the gaps between them."""
        length = math.dist(start, end)
        for at in np.arange(0, length, 2 * dash):
            piece = at / length, min(at + dash, length) / length
            ends = [
                (start[0] + (end[0] - start[0]) * t, start[1] + (end[1] - start[1]) * t)
                for t in piece
            ]
            self.pen.line(self.scaled(ends), fill=colour, width=self.thick(width))

    def mask(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        """An empty mask of the size held inside, and a pen for it."""
        mask = Image.new("L", self.image.size)
        return mask, ImageDraw.Draw(mask)

    def paint(self, mask: Image.Image, colour: Colour) -> None:
        """Colour wherever a mask says so."""
        self.image.paste(colour, (0, 0), mask)

    def thick(self, width: float) -> int:
        """A width of a line in pixels as held inside, at least one."""
        return max(1, round(width * self.factor))

    def scaled(self, points: Sequence[Point]) -> list[Point]:
        """Points in pixels as held inside."""
        return [(x * self.factor, y * self.factor) for x, y in points]

    def _inner(self, box: Box) -> Box:
        left, top, right, bottom = (round(side * self.factor) for side in box)
        return left, top, right - 1, bottom - 1


def sheet(pixels: Pixels, factor: int) -> Canvas:
    """A canvas upon pixels of the finished size; those not drawn over come out as they were."""
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels).resize(
        (width * factor, height * factor), Image.Resampling.NEAREST
    )
    return Canvas(image, ImageDraw.Draw(image), factor, height, width)
