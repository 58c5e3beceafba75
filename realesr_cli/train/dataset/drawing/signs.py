"""Signs, labels and tables: short texts in frames, and numbers in cells."""

from __future__ import annotations

import math
from itertools import pairwise

from realesr_cli.train.dataset.drawing.canvas import Box
from realesr_cli.train.dataset.drawing.colours import Colour, accent, legible, luma, mixed
from realesr_cli.train.dataset.drawing.dice import between, chance, pick, spread, weighted, whole
from realesr_cli.train.dataset.drawing.fonts import Face, Font
from realesr_cli.train.dataset.drawing.sketch import Sketch
from realesr_cli.train.dataset.drawing.words import label, number, phrase, pick_noun, token, word


def signs(sketch: Sketch) -> None:
    """Boards, plates and stickers, one large or many small ones."""
    rng = sketch.rng
    rows, columns = weighted(rng, (((1, 1), 0.25), ((2, 1), 0.3), ((2, 2), 0.3), ((4, 3), 0.15)))
    for row in range(rows):
        for column in range(columns):
            height, width = sketch.height / rows, sketch.width / columns
            left = (column + between(rng, 0.01, 0.12)) * width
            top = (row + between(rng, 0.01, 0.15)) * height
            size = width * between(rng, 0.65, 0.86), height * between(rng, 0.5, 0.82)
            _sign(sketch, (left, top, left + size[0], top + size[1]))


def _sign(sketch: Sketch, box: Box) -> None:
    rng = sketch.rng
    board = (255, 255, 255) if chance(rng, 0.25) else accent(rng)
    side = min(box[2] - box[0], box[3] - box[1])
    radius = weighted(rng, ((0.0, 0.4), (side * between(rng, 0.04, 0.2), 0.45), (side / 2, 0.15)))
    if chance(rng, 0.4):
        drop = side * between(rng, 0.02, 0.06)
        shade = mixed(sketch.palette.paper, (0, 0, 0), between(rng, 0.3, 0.7))
        moved = (box[0] + drop, box[1] + drop, box[2] + drop, box[3] + drop)
        sketch.canvas.box(moved, shade, radius=radius)
    sketch.canvas.box(box, board, radius=radius)
    ink = legible((20, 20, 20) if luma(board) > 140 else (245, 245, 245), board)
    ink = legible(accent(rng), board) if chance(rng, 0.35) else ink
    inset = 0.0
    if chance(rng, 0.6):
        inset = side * between(rng, 0.02, 0.06)
        edge = (box[0] + inset, box[1] + inset, box[2] - inset, box[3] - inset)
        sketch.canvas.frame(edge, ink, side * between(rng, 0.01, 0.04), radius=radius - inset)
    pad = inset + side * 0.1 + radius * 0.25
    inner = (box[0] + pad, box[1] + pad, box[2] - pad, box[3] - pad)
    if chance(rng, 0.35):
        inner = _symbol(sketch, inner, ink)
    _stack(sketch, inner, ink)


def _symbol(sketch: Sketch, box: Box, ink: Colour) -> Box:
    """An arrow, a triangle or a barred ring to the left of the text; what room is left."""
    rng = sketch.rng
    side = min(box[3] - box[1], (box[2] - box[0]) * 0.35)
    middle = box[0] + side / 2, (box[1] + box[3]) / 2
    half = side / 2
    kind = pick(rng, ("arrow", "triangle", "ring", "cross"))
    if kind == "arrow":
        turn = pick(rng, (0, 1, 2, 3)) * math.pi / 2
        shape = ((-1, 0.25), (0, 0.25), (0, 0.7), (1, 0), (0, -0.7), (0, -0.25), (-1, -0.25))
        cos, sin = math.cos(turn), math.sin(turn)
        sketch.canvas.polygon(
            [
                (middle[0] + half * (x * cos - y * sin), middle[1] + half * (x * sin + y * cos))
                for x, y in shape
            ],
            ink,
        )
    elif kind == "triangle":
        corners = [
            (middle[0], middle[1] - half),
            (middle[0] + half, middle[1] + half * 0.75),
            (middle[0] - half, middle[1] + half * 0.75),
        ]
        sketch.canvas.line(corners, ink, side * 0.08, closed=True)
        stem = [(middle[0], middle[1] - half * 0.35), (middle[0], middle[1] + half * 0.25)]
        sketch.canvas.line(stem, ink, side * 0.09)
        sketch.canvas.disc((middle[0], middle[1] + half * 0.5), side * 0.05, ink)
    else:
        if kind == "ring":
            sketch.canvas.ring(middle, half, ink, side * 0.1)
        reach = half * 0.65
        for way in (1, -1) if kind == "cross" else (1,):
            ends = [
                (middle[0] - reach, middle[1] - reach * way),
                (middle[0] + reach, middle[1] + reach * way),
            ]
            sketch.canvas.line(ends, ink, side * 0.1)
    return (box[0] + side * 1.15, box[1], box[2], box[3])


def _stack(sketch: Sketch, box: Box, ink: Colour) -> None:
    """One to four lines, each as large as it fits, in the middle of a box."""
    rng = sketch.rng
    script = sketch.script()
    face = sketch.library.face(rng, script)
    count = whole(rng, 1, 4)
    room = (box[3] - box[1]) / count
    for line in range(count):
        text = _sign_text(sketch, script)
        here = face if line == 0 else sketch.library.relative(rng, face, script)
        size = fitted(sketch, here, text, (box[2] - box[0], room * between(rng, 0.55, 0.95)))
        if size < 7:
            continue
        middle = (box[0] + box[2]) / 2, box[1] + (line + 0.5) * room
        sketch.canvas.text(middle, text, sketch.canvas.font(here, size), ink, anchor="mm")


def _sign_text(sketch: Sketch, script: str) -> str:
    rng = sketch.rng
    if script != "latin":
        text = phrase(rng, whole(rng, 1, 2), script)
    else:
        text = pick(rng, (pick_noun, number, token, pick_noun))(rng)
        text += f" {pick_noun(rng)}" if chance(rng, 0.3) else ""
    return text.upper() if chance(rng, 0.4) else text


def fitted(sketch: Sketch, face: Face, text: str, room: tuple[float, float]) -> float:
    """The size of letters, in finished pixels, at which a text fills a width or a height."""
    trial = 24.0
    length = sketch.canvas.length(text, sketch.canvas.font(face, trial))
    return min(room[1] / 1.25, trial * room[0] / max(length, 1))


def table(sketch: Sketch) -> None:
    """Rows and columns of words and numbers, with rules, stripes and a head."""
    rng = sketch.rng
    canvas, palette = sketch.canvas, sketch.palette
    size = spread(rng, 10, min(36, max(12, sketch.width / 14)))
    script = sketch.script()
    face = sketch.library.face(rng, script)
    font = canvas.font(face, size)
    head = canvas.font(sketch.library.relative(rng, face, script), size)
    tall = size * between(rng, 1.4, 2.4)
    margin = between(rng, 0, 0.06) * sketch.width
    edges = _columns(sketch, margin, size)
    rows = int((sketch.height - 2 * margin) / tall)
    stripe = mixed(palette.paper, palette.accents[0], between(rng, 0.06, 0.2))
    bar = palette.accents[1] if chance(rng, 0.5) else None
    kinds = [chance(rng, 0.65) for _ in edges]
    striped = chance(rng, 0.5)
    for row in range(rows):
        top = margin + row * tall
        line = (edges[0], top, edges[-1], top + tall)
        ink = palette.ink
        if row == 0 and bar is not None:
            canvas.box(line, bar)
            ink = legible(palette.paper, bar)
        elif striped and row % 2:
            canvas.box(line, stripe)
            ink = legible(ink, stripe)
        for at, (left, right) in enumerate(pairwise(edges)):
            numeric = kinds[at] and row > 0
            text = number(rng) if numeric else (label(rng) if row == 0 else word(rng, script))
            text = _cut(sketch, text, font, right - left - size * 0.6)
            middle = top + tall / 2
            x, anchor = (right - size * 0.3, "rm") if numeric else (left + size * 0.3, "lm")
            canvas.text((x, middle), text, head if row == 0 else font, ink, anchor=anchor)
    _rules(sketch, edges, (margin, tall, rows), max(0.5, size / spread(rng, 8, 26)))


def _columns(sketch: Sketch, margin: float, size: float) -> list[float]:
    """The x of the borders of columns of different widths."""
    room = sketch.width - 2 * margin
    count = whole(sketch.rng, 2, max(2, min(9, int(room / (size * 5)))))
    shares = [between(sketch.rng, 0.7, 1.6) for _ in range(count)]
    edges = [margin]
    for share in shares:
        edges.append(edges[-1] + room * share / sum(shares))
    return edges


def _cut(sketch: Sketch, text: str, font: Font, room: float) -> str:
    while len(text) > 1 and sketch.canvas.length(text, font) > room:
        text = text[:-1]
    return text


def _rules(
    sketch: Sketch, edges: list[float], rows: tuple[float, float, int], width: float
) -> None:
    """Lines between rows, between columns, between both, or below the head only."""
    rng = sketch.rng
    top, tall, count = rows
    colour = mixed(sketch.palette.ink, sketch.palette.paper, between(rng, 0, 0.6))
    style = pick(rng, ("all", "rows", "head", "columns", "none"))
    bottom = top + tall * count
    for row in range(count + 1):
        if style in ("all", "rows") or (style == "head" and row in (0, 1, count)):
            y = top + row * tall
            sketch.canvas.line([(edges[0], y), (edges[-1], y)], colour, width)
    for x in edges:
        if style in ("all", "columns"):
            sketch.canvas.line([(x, top), (x, bottom)], colour, width)
