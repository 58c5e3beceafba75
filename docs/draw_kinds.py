"""Draw the picture of datasets.md, one of each kind of drawn picture: python docs/draw_kinds.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from realesr_cli.image.read import from_array
from realesr_cli.image.write import WriteSettings, write_image
from realesr_cli.train.dataset.draw import KINDS, draw_picture
from realesr_cli.train.dataset.drawing.fonts import find_fonts

IMAGE = Path(__file__).parent / "images" / "drawn.jpg"
SIDE, COLUMNS, GAP, SEED = 200, 5, 4, 32


def main() -> None:
    """Draw one of each kind with the fonts of this system."""
    fonts = find_fonts()
    cells = []
    for number, kind in enumerate(KINDS):
        rng = np.random.default_rng((SEED, number))
        pixels = draw_picture(rng, height=SIDE, width=SIDE, fonts=fonts, kind=kind)
        cells.append(np.pad(pixels, ((0, GAP), (0, GAP), (0, 0)), constant_values=255))
    rows = [
        np.concatenate(cells[at : at + COLUMNS], axis=1) for at in range(0, len(cells), COLUMNS)
    ]
    sheet = np.concatenate(rows)[:-GAP, :-GAP]
    write_image(from_array(sheet), IMAGE, WriteSettings(quality=75))


if __name__ == "__main__":
    main()
