"""What one image will take: output size, tiles, memory. Arithmetic on a grid; nothing is run."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from realesr_cli.engine.tiling import Grid
from realesr_cli.image.pixels import constant_alpha
from realesr_cli.image.types import Image, ImageStream


@dataclass(frozen=True)
class ImageShape:
    """What decides the cost of an image; `alpha` only where it varies, since a constant is free."""

    height: int
    width: int
    channels: int = 3
    alpha: bool = False
    bits: int = 8

    @staticmethod
    def of(image: Image | ImageStream) -> ImageShape:
        """Return the shape of an image."""
        alpha = image.alpha if isinstance(image, Image) else None
        varies = alpha is not None and constant_alpha(alpha) is None
        return ImageShape(image.height, image.width, image.channels, varies, image.bits)


@dataclass(frozen=True)
class Estimate:
    """What one image will take; sizes in pixels, memory in bytes."""

    height: int
    width: int
    out_height: int
    out_width: int
    tiles: int
    passes: int
    """How often every tile is computed: once, and once more for an alpha channel."""
    tile: int
    overlap: int
    output_bytes: int
    peak_bytes: int
    """Main memory needed beyond Python, torch and the network."""
    network_pixels: int = 0
    """Input pixels that networks are run on, overlap and repeated passes included."""
    seconds: float | None = None
    """Extrapolated from the images done so far; None before the first."""


def estimate(shape: ImageShape, grid: Grid, passes: int, working: int) -> Estimate:
    """Estimate the cost of an image cut like `grid`, whose tiles take `working` bytes."""
    out_height, out_width = grid.rows.out_size, grid.columns.out_size
    output_bytes = out_height * out_width * (shape.channels + shape.alpha) * (shape.bits // 8)
    return Estimate(
        height=shape.height,
        width=shape.width,
        out_height=out_height,
        out_width=out_width,
        tiles=grid.tiles * passes,
        passes=passes,
        tile=grid.columns.tile,
        overlap=grid.rows.overlap,
        output_bytes=output_bytes,
        peak_bytes=output_bytes + working,
    )


def working_bytes(grid: Grid, channels: int, per_pixel: int, held_rows: int = 0) -> int:
    """Return the main memory of the largest tile, at `per_pixel` bytes, and of unfinished rows.

    `held_rows` more rows of the output wait for a correction.
    """
    read = 1
    for axis in (grid.rows, grid.columns):
        side = min(axis.size, axis.tile or axis.size) + 2 * axis.overlap
        read *= side if axis.wrap else min(axis.size, side)
    rows = grid.rows
    line = min(rows.out_size, (rows.tile or rows.size) * rows.out_size // rows.size + 1)
    return read * per_pixel + (line + held_rows) * grid.columns.out_size * channels * 4


class Pace:
    """Seconds per network pixel, learned from finished images; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pixels, self._seconds = 0, 0.0

    def learn(self, pixels: int, seconds: float) -> None:
        """Take an image into account."""
        with self._lock:
            self._pixels += pixels
            self._seconds += seconds

    def predict(self, pixels: int) -> float | None:
        """Return the seconds that so many pixels will take; None before the first image."""
        with self._lock:
            return self._seconds / self._pixels * pixels if self._pixels else None
