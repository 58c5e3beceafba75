"""Smooth colour: gradients, soft noise and shaded bodies, with and without sharp edges between."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from realesr_cli.train.dataset.drawing.backgrounds import (
    Pixels,
    Plane,
    radial,
    ramp,
    smooth_noise,
    tinted,
)
from realesr_cli.train.dataset.drawing.colours import accent, mixed
from realesr_cli.train.dataset.drawing.curves import as_points, blob
from realesr_cli.train.dataset.drawing.dice import Rng, between, chance, pick, spread, whole
from realesr_cli.train.dataset.drawing.sketch import Sketch


def gradient(rng: Rng, height: int, width: int) -> Pixels:
    """(height, width, 3) of two to five colours that run into each other."""
    plane = pick(rng, (_linear, _radial, _clouds, _waves))(rng, height, width)
    first = accent(rng)
    colours = [first]
    for _ in range(whole(rng, 1, 4)):
        colours.append(mixed(first, accent(rng), between(rng, 0.2, 1)))
    return tinted(plane, colours)


def _linear(rng: Rng, height: int, width: int) -> Plane:
    return ramp(rng, height, width)


def _radial(rng: Rng, height: int, width: int) -> Plane:
    return radial(rng, height, width)


def _clouds(rng: Rng, height: int, width: int) -> Plane:
    return smooth_noise(rng, height, width, cells=spread(rng, 1, 8), octaves=whole(rng, 1, 4))


def _waves(rng: Rng, height: int, width: int) -> Plane:
    along = ramp(rng, height, width) * between(rng, 2, 12)
    bent = along + smooth_noise(rng, height, width, cells=2, octaves=1) * between(rng, 0, 3)
    return (0.5 + 0.5 * np.sin(bent)).astype(np.float32)


def shapes(sketch: Sketch) -> None:
    """Shapes with gradients of their own upon the gradient that is there, or none."""
    rng = sketch.rng
    canvas = sketch.canvas
    side = min(sketch.height, sketch.width)
    for _ in range(pick(rng, (0, 2, 3, 5, 9))):
        middle = rng.random() * sketch.width, rng.random() * sketch.height
        radius = side * spread(rng, 0.05, 0.4)
        mask, pen = canvas.mask()
        if chance(rng, 0.5):
            pen.polygon(canvas.scaled(as_points(blob(rng, middle, radius))), fill=255)
        else:
            corner = middle[0] + radius, middle[1] + radius * between(rng, 0.4, 1)
            pen.rectangle([*canvas.scaled([middle])[0], *canvas.scaled([corner])[0]], fill=255)
        filling = Image.fromarray(gradient(rng, sketch.height, sketch.width))
        canvas.image.paste(
            filling.resize(canvas.image.size, Image.Resampling.BILINEAR), (0, 0), mask
        )
    for _ in range(pick(rng, (0, 0, 3, 8))):
        _ball(sketch, side * spread(rng, 0.04, 0.25))


def _ball(sketch: Sketch, radius: float) -> None:
    """A ball, lit from one side (Lambert's cosine law) with a soft highlight."""
    rng = sketch.rng
    factor = sketch.canvas.factor
    size = max(3, round(2 * radius * factor))
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    inside = x * x + y * y <= 1
    z = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    angle, lift = between(rng, 0, 2 * math.pi), between(rng, 0.3, 0.9)
    flat = math.sqrt(1 - lift * lift)
    light = np.clip(x * flat * math.cos(angle) + y * flat * math.sin(angle) + z * lift, 0, 1)
    shade = 0.15 + 0.85 * light
    gloss = light ** spread(rng, 8, 60) * between(rng, 0, 0.8)
    colour = np.asarray(accent(rng), np.float64)
    body = colour * shade[..., None] * (1 - gloss[..., None]) + 255 * gloss[..., None]
    place = (
        round(rng.random() * sketch.canvas.image.width - size / 2),
        round(rng.random() * sketch.canvas.image.height - size / 2),
    )
    picture = Image.fromarray(np.rint(body).astype(np.uint8))
    sketch.canvas.image.paste(picture, place, Image.fromarray((inside * 255).astype(np.uint8)))
