"""What one image will take: output size, tiles, memory; arithmetic on a grid, nothing is run."""

from __future__ import annotations

from dataclasses import dataclass

from realesr_cli.engine.tiled import Grid
from realesr_cli.image.alpha import constant_alpha
from realesr_cli.image.types import Image


@dataclass(frozen=True)
class ImageShape:
    """What of an image decides the cost; `alpha` only where it varies, as a constant is free."""

    height: int
    width: int
    channels: int = 3
    alpha: bool = False
    bits: int = 8

    @staticmethod
    def of(image: Image) -> ImageShape:
        """The shape of an image in memory."""
        varies = image.alpha is not None and constant_alpha(image.alpha) is None
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
    """Times that all tiles are computed: one, and one more for an alpha channel."""
    tile: int
    overlap: int
    output_bytes: int
    peak_bytes: int
    """Estimate of the main memory needed beyond Python, torch and the network."""
    seconds: float | None = None
    """Estimate from the images done so far; None before the first."""


def estimate(shape: ImageShape, grid: Grid, alpha: str, working: int) -> Estimate:
    """For an image cut like `grid`; `alpha` is the setting, `working` what a tile takes."""
    out_height, out_width = grid.rows.out_size, grid.columns.out_size
    passes = 2 if shape.alpha and alpha == "model" else 1
    output_bytes = out_height * out_width * (shape.channels + shape.alpha) * (shape.bits // 8)
    return Estimate(
        height=shape.height,
        width=shape.width,
        out_height=out_height,
        out_width=out_width,
        tiles=grid.tiles * passes,
        passes=passes,
        tile=grid.rows.core,
        overlap=grid.rows.overlap,
        output_bytes=output_bytes,
        peak_bytes=output_bytes + working,
    )


def working_bytes(grid: Grid, channels: int, per_pixel: int, rows: int = 0) -> int:
    """Main memory of the largest tile, at `per_pixel` bytes, and of the unfinished output.

    `rows` more lines of the output wait for a correction.
    """
    core = grid.rows.core or max(grid.rows.size, grid.columns.size)
    window = 1
    for axis in (grid.rows, grid.columns):
        window *= min(axis.size, core + 2 * axis.overlap)
    long = max(grid.rows, grid.columns, key=lambda axis: axis.out_size)
    short = min(grid.rows.out_size, grid.columns.out_size)
    line = min(long.out_size, core * long.out_size // long.size + 1)
    return window * per_pixel + (line + rows) * short * channels * 4
