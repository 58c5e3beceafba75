"""Line art: pen strokes, hatching, contours, and comic pictures with outlines and flat colours."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from realesr_cli.train.dataset.drawing.backgrounds import smooth_noise
from realesr_cli.train.dataset.drawing.canvas import Canvas, Point
from realesr_cli.train.dataset.drawing.colours import Colour, accent, hsv, mixed
from realesr_cli.train.dataset.drawing.curves import Points, as_points, blob, stroke, wander
from realesr_cli.train.dataset.drawing.dice import (
    Rng,
    between,
    chance,
    pick,
    spread,
    weighted,
    whole,
)
from realesr_cli.train.dataset.drawing.pages import Type, set_words
from realesr_cli.train.dataset.drawing.sketch import Sketch
from realesr_cli.train.dataset.drawing.words import word


def line_art(sketch: Sketch) -> None:
    """One of several ways of drawing with a pen, or two of them."""
    rng = sketch.rng
    ways = (strokes, hatched, fans, contours, straight)
    for _ in range(weighted(rng, ((1, 0.65), (2, 0.35)))):
        pick(rng, ways)(sketch)


def strokes(sketch: Sketch) -> None:
    """Curves of all widths, swelling or even."""
    rng = sketch.rng
    thinnest, thickest = spread(rng, 0.6, 2), spread(rng, 2, 14)
    swell = pick(rng, (0.0, 0.4, 0.8))
    for _ in range(whole(rng, 8, 45)):
        curve = wander(rng, sketch.height, sketch.width, count=whole(rng, 3, 9))
        width = spread(rng, thinnest, max(thickest, thinnest * 1.01))
        stroke(rng, sketch.canvas, curve, _ink(sketch), width=width, swell=swell)


def _ink(sketch: Sketch) -> Colour:
    if chance(sketch.rng, 0.8):
        return sketch.palette.ink
    return pick(sketch.rng, sketch.palette.accents)


def hatched(sketch: Sketch) -> None:
    """Shapes filled with lines, some crossed by others, with or without an outline."""
    rng = sketch.rng
    side = min(sketch.height, sketch.width)
    for _ in range(whole(rng, 4, 12)):
        middle = rng.random() * sketch.width, rng.random() * sketch.height
        shape = blob(rng, middle, side * between(rng, 0.1, 0.35), rough=between(rng, 0, 0.45))
        if chance(rng, 0.5):
            sketch.canvas.polygon(as_points(shape), sketch.palette.paper)
        gap = spread(rng, 3, 14)
        width = gap * between(rng, 0.15, 0.5)
        angle = between(rng, 0, math.pi)
        colour = _ink(sketch)
        for turn in (0, between(rng, 0.6, 1.6)) if chance(rng, 0.45) else (0,):
            hatch(sketch.canvas, shape, angle + turn, (gap, width), colour)
        if chance(rng, 0.8):
            sketch.canvas.line(as_points(shape), colour, width * between(rng, 1, 3), closed=True)


def hatch(
    canvas: Canvas, shape: Points, angle: float, spacing: tuple[float, float], colour: Colour
) -> None:
    """Parallel lines (gap and width in finished pixels) within a closed outline."""
    low, high = shape.min(axis=0), shape.max(axis=0)
    left, top = math.floor(low[0] * canvas.factor) - 1, math.floor(low[1] * canvas.factor) - 1
    size = tuple(math.ceil(side * canvas.factor) + 3 for side in high - low)
    moved = [(x - left, y - top) for x, y in canvas.scaled(as_points(shape))]
    inside, lines = Image.new("L", size), Image.new("L", size)
    ImageDraw.Draw(inside).polygon(moved, fill=255)
    pen = ImageDraw.Draw(lines)
    reach = math.hypot(*size)
    along = np.array([math.cos(angle), math.sin(angle)]) * reach
    across = np.array([-math.sin(angle), math.cos(angle)])
    middle = np.array(size) / 2
    for offset in np.arange(-reach / 2, reach / 2, spacing[0] * canvas.factor):
        at = middle + across * offset
        pen.line([*(at - along), *(at + along)], fill=255, width=canvas.thick(spacing[1]))
    canvas.image.paste(colour, (left, top), ImageChops.multiply(inside, lines))


def fans(sketch: Sketch) -> None:
    """Rays from a point, as of speed or light, and rings about it."""
    rng = sketch.rng
    middle = between(rng, 0, 1) * sketch.width, between(rng, 0, 1) * sketch.height
    reach = math.hypot(sketch.height, sketch.width)
    count = whole(rng, 30, 160)
    inner = between(rng, 0.05, 0.4) * min(sketch.height, sketch.width)
    for at in range(count):
        angle = 2 * math.pi * (at + between(rng, 0, 0.8)) / count
        start = inner * between(rng, 1, 1.8)
        half = between(rng, 0.05, 0.4) * math.pi / count
        points = [_polar(middle, start, angle)]
        points += [_polar(middle, reach, angle - half), _polar(middle, reach, angle + half)]
        sketch.canvas.polygon(points, sketch.palette.ink)


def _polar(middle: Point, radius: float, angle: float) -> Point:
    return middle[0] + radius * math.cos(angle), middle[1] + radius * math.sin(angle)


def contours(sketch: Sketch) -> None:
    """Lines of equal height of a smooth landscape, as on maps and in engravings."""
    rng = sketch.rng
    factor = sketch.canvas.factor
    plane = smooth_noise(
        rng,
        sketch.height * factor,
        sketch.width * factor,
        cells=spread(rng, 1.5, 6),
        octaves=whole(rng, 1, 2),
    )
    levels = spread(rng, 8, 40)
    slope = np.hypot(*np.gradient(plane)) * levels
    phase = plane * levels
    away = np.abs(phase - np.rint(phase)) / np.maximum(slope, 1e-6)
    half = spread(rng, 0.4, 1.6) * factor
    mask = (away < half) & (slope > 1e-5)
    sketch.canvas.paint(Image.fromarray((mask * 255).astype(np.uint8)), sketch.palette.ink)


def straight(sketch: Sketch) -> None:
    """A plan: straight lines, boxes, arcs, dashes and measures."""
    rng = sketch.rng
    canvas = sketch.canvas
    width = spread(rng, 0.7, 3.5)
    for _ in range(whole(rng, 40, 160)):
        colour = _ink(sketch)
        x, y = rng.random() * sketch.width, rng.random() * sketch.height
        size = spread(rng, 0.03, 0.6) * sketch.width
        kind = weighted(
            rng, (("level", 0.35), ("any", 0.2), ("box", 0.2), ("ring", 0.15), ("d", 0.1))
        )
        if kind == "level":
            end = (x + size, y) if chance(rng, 0.5) else (x, y + size)
            canvas.line([(x, y), end], colour, width)
        elif kind == "any":
            angle = between(rng, 0, 2 * math.pi)
            canvas.line([(x, y), _polar((x, y), size, angle)], colour, width)
        elif kind == "box":
            canvas.frame((x, y, x + size, y + size * between(rng, 0.3, 1.2)), colour, width)
        elif kind == "ring":
            canvas.ring((x, y), size / 2, colour, width)
        else:
            angle = between(rng, 0, 2 * math.pi)
            canvas.dashed((x, y), _polar((x, y), size, angle), colour, width, spread(rng, 3, 12))


def comic(sketch: Sketch) -> None:
    """Flat shapes with black outlines, dots and hatching as shade, and balloons of speech."""
    rng = sketch.rng
    side = min(sketch.height, sketch.width)
    outline = (0, 0, 0) if chance(rng, 0.5) else hsv(rng.random(), 0.5, 0.15)
    width = spread(rng, 1.5, 7)
    colours = [accent(rng) for _ in range(6)]
    for _ in range(whole(rng, 5, 14)):
        middle = rng.random() * sketch.width, rng.random() * sketch.height
        radius = side * spread(rng, 0.06, 0.4)
        shape = blob(rng, middle, radius, rough=between(rng, 0.05, 0.4))
        sketch.canvas.polygon(as_points(shape), pick(rng, colours))
        _shade(sketch, shape, radius, outline)
        closed = np.concatenate([shape, shape[:1]])
        stroke(rng, sketch.canvas, closed, outline, width=width, swell=pick(rng, (0.0, 0.5)))
        if chance(rng, 0.3):
            _eyes(sketch.canvas, rng, middle, radius, outline)
    for _ in range(whole(rng, 0, 3)):
        _balloon(sketch, outline, width)


def _shade(sketch: Sketch, shape: Points, radius: float, outline: Colour) -> None:
    rng = sketch.rng
    kind = weighted(rng, (("none", 0.4), ("flat", 0.25), ("hatch", 0.2), ("dots", 0.15)))
    if kind == "none":
        return
    part = shape * 0.6 + shape.mean(axis=0) * 0.4 + radius * between(rng, 0.05, 0.2)
    tone = mixed(pick(rng, sketch.palette.accents), outline, 0.4)
    if kind == "flat":
        sketch.canvas.polygon(as_points(part), tone)
    elif kind == "hatch":
        gap = spread(rng, 4, 12)
        hatch(sketch.canvas, part, between(rng, 0, 3), (gap, gap * 0.35), outline)
    else:
        gap = spread(rng, 4, 14)
        low, high = part.min(axis=0), part.max(axis=0)
        middle = part.mean(axis=0)
        for row, y in enumerate(np.arange(low[1], high[1], gap)):
            for x in np.arange(low[0] + gap / 2 * (row % 2), high[0], gap):
                near = 1 - math.hypot(x - middle[0], y - middle[1]) / radius
                sketch.canvas.disc((float(x), float(y)), gap * 0.45 * max(near, 0.1), tone)


def _eyes(canvas: Canvas, rng: Rng, middle: Point, radius: float, outline: Colour) -> None:
    size = radius * between(rng, 0.12, 0.25)
    for way in (-1, 1):
        eye = middle[0] + way * radius * 0.3, middle[1] - radius * 0.15
        canvas.disc(eye, size, (250, 250, 250))
        canvas.ring(eye, size, outline, max(1, size * 0.15))
        canvas.disc((eye[0] + size * 0.2, eye[1]), size * 0.45, outline)
    angles = np.linspace(0.3, math.pi - 0.3, 14)
    mouth = [
        (middle[0] + radius * 0.4 * math.cos(a), middle[1] + radius * (0.15 + 0.3 * math.sin(a)))
        for a in angles
    ]
    canvas.line(mouth, outline, max(1, radius * 0.05))


def _balloon(sketch: Sketch, outline: Colour, width: float) -> None:
    rng = sketch.rng
    size = between(rng, 0.2, 0.4) * sketch.width, between(rng, 0.1, 0.25) * sketch.height
    left, top = (
        between(rng, 0, 0.65) * sketch.width,
        between(rng, 0, 0.7) * sketch.height,
    )
    box = (left, top, left + size[0], top + size[1])
    radius = min(size) / 2
    tail = [
        (left + size[0] * 0.3, box[3] - width),
        (left + size[0] * 0.5, box[3] - width),
        (left + size[0] * between(rng, 0, 0.8), box[3] + size[1] * 0.4),
    ]
    sketch.canvas.line(tail, outline, width * 2, closed=True)
    sketch.canvas.box(box, outline, radius=radius)
    inner = (box[0] + width, box[1] + width, box[2] - width, box[3] - width)
    sketch.canvas.box(inner, (252, 252, 250), radius=radius - width)
    sketch.canvas.polygon(tail, (252, 252, 250))
    script = sketch.script()
    letters = max(10, min(size) / between(rng, 4, 7))
    style = Type(sketch.library.face(rng, script), script, letters, 1.15, outline, "center")
    pad = size[0] * 0.12, size[1] * 0.2
    room = (box[0] + pad[0], box[1] + pad[1], box[2] - pad[0], box[3] - pad[1] - letters * 0.7)
    set_words(sketch, room, style, [word(rng, script) for _ in range(whole(rng, 2, 9))])
