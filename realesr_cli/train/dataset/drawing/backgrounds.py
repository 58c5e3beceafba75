"""What lies behind a drawing: flat colour, gradients, paper, and noise like a soft photo."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realesr_cli.train.dataset.drawing.colours import Colour, mixed
from realesr_cli.train.dataset.drawing.dice import Rng, between, spread, weighted, whole

Plane = NDArray[np.float32]
"""(H, W) numbers, mostly in [0, 1]."""

Pixels = NDArray[np.uint8]
"""(H, W, 3) RGB."""


def ramp(rng: Rng, height: int, width: int, *, angle: float | None = None) -> Plane:
    """From 0 to 1 along a direction (radians; by chance if not given)."""
    angle = between(rng, 0, 2 * math.pi) if angle is None else angle
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    along = x * math.cos(angle) + y * math.sin(angle)
    return unit(along)


def radial(rng: Rng, height: int, width: int) -> Plane:
    """From 0 at a point, not always inside, to 1 at the farthest corner; round or oval."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    middle = between(rng, -0.2, 1.2) * height, between(rng, -0.2, 1.2) * width
    stretch = between(rng, 0.6, 1.6)
    return unit(np.hypot((y - middle[0]) * stretch, x - middle[1]))


def smooth_noise(rng: Rng, height: int, width: int, *, cells: float, octaves: int = 3) -> Plane:
    """Noise in [0, 1] of about `cells` hills along the longer side, with finer ones upon them."""
    total = np.zeros((height, width), np.float32)
    longer = max(height, width)
    for octave in range(octaves):
        fine = cells * 2**octave
        rows = max(2, round(fine * height / longer) + 1)
        columns = max(2, round(fine * width / longer) + 1)
        grid = rng.random((rows, columns), dtype=np.float32)
        grown = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(grown) / 2**octave
    return unit(total)


def unit(plane: NDArray[np.floating]) -> Plane:
    """Shifted and scaled to reach from 0 to 1."""
    low, high = float(plane.min()), float(plane.max())
    return ((plane - low) / max(high - low, 1e-6)).astype(np.float32)


def tinted(plane: Plane, colours: list[Colour]) -> Pixels:
    """A plane in [0, 1] as colours that run evenly from the first to the last."""
    stops = np.linspace(0, 1, len(colours))
    bands = [np.interp(plane, stops, [colour[band] for colour in colours]) for band in range(3)]
    pixels: Pixels = np.rint(np.stack(bands, axis=-1)).astype(np.uint8)
    return pixels


def background(rng: Rng, height: int, width: int, paper: Colour) -> Pixels:
    """(height, width, 3) in the colour of the paper and shades not far from it."""
    kind = weighted(rng, (("flat", 0.45), ("gradient", 0.15), ("paper", 0.2), ("photo", 0.2)))
    if kind == "flat":
        return np.full((height, width, 3), paper, np.uint8)
    depth = between(rng, 0.05, 0.28)
    far = mixed(paper, (0, 0, 0) if sum(paper) > 200 else (255, 255, 255), depth)
    near = mixed(paper, (whole(rng, 0, 255), whole(rng, 0, 255), whole(rng, 0, 255)), depth / 2)
    if kind == "gradient":
        return tinted(ramp(rng, height, width), [near, far])
    if kind == "paper":
        return _paper(rng, height, width, paper)
    cells = spread(rng, 1, 14)
    return tinted(smooth_noise(rng, height, width, cells=cells), [near, paper, far])


def _paper(rng: Rng, height: int, width: int, paper: Colour) -> Pixels:
    """Fibres and unevenness of a few levels, and the light that falls off to one side."""
    fibres = smooth_noise(rng, height, width, cells=max(height, width) / between(rng, 3, 9))
    clouds = smooth_noise(rng, height, width, cells=between(rng, 1, 5))
    light = ramp(rng, height, width)
    depth = between(rng, 3, 12), between(rng, 3, 14), between(rng, 0, 22)
    shade = sum(
        level * (plane - 0.5) for level, plane in zip(depth, (fibres, clouds, light), strict=True)
    )
    shaded = np.asarray(paper, np.float32) + np.asarray(shade, np.float32)[..., None]
    pixels: Pixels = np.rint(shaded.clip(0, 255)).astype(np.uint8)
    return pixels
