"""What every kind of drawing gets: chance, a canvas, fonts and colours."""

from __future__ import annotations

from dataclasses import dataclass

from realesr_cli.train.dataset.drawing.canvas import Canvas
from realesr_cli.train.dataset.drawing.colours import Palette
from realesr_cli.train.dataset.drawing.dice import Rng, weighted
from realesr_cli.train.dataset.drawing.fonts import Library

_SCRIPTS = (
    ("latin", 0.66),
    ("accents", 0.12),
    ("cyrillic", 0.11),
    ("greek", 0.06),
    ("kana", 0.025),
    ("han", 0.025),
)


@dataclass(frozen=True)
class Sketch:
    """One picture while it is drawn."""

    rng: Rng
    canvas: Canvas
    library: Library
    palette: Palette

    @property
    def height(self) -> int:
        return self.canvas.height

    @property
    def width(self) -> int:
        return self.canvas.width

    def script(self) -> str:
        """A script that some font draws; Latin in most cases."""
        able = self.library.scripts()
        return weighted(self.rng, [(s, share) for s, share in _SCRIPTS if s in able])
