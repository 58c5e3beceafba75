"""Screens: windows with menus, lists and buttons, source code, terminals, and messages."""

from __future__ import annotations

from dataclasses import dataclass

from realesr_cli.train.dataset.drawing.canvas import Box, Point
from realesr_cli.train.dataset.drawing.colours import Colour, accent, hsv, legible, mixed
from realesr_cli.train.dataset.drawing.dice import between, chance, pick, weighted, whole
from realesr_cli.train.dataset.drawing.fonts import Face
from realesr_cli.train.dataset.drawing.pages import Type, set_words
from realesr_cli.train.dataset.drawing.sketch import Sketch
from realesr_cli.train.dataset.drawing.words import (
    label,
    number,
    phrase,
    pick_noun,
    sentence,
    token,
    word,
)


@dataclass(frozen=True)
class Theme:
    """Colours and letters of one screen; the size in finished pixels."""

    ground: Colour
    panel: Colour
    edge: Colour
    ink: Colour
    strong: Colour
    face: Face
    size: float


def screen(sketch: Sketch) -> None:
    """A desktop with one to three windows, or one program that fills it."""
    rng = sketch.rng
    theme = _theme(sketch)
    whole_box = (0.0, 0.0, float(sketch.width), float(sketch.height))
    if chance(rng, 0.6):
        _window(sketch, whole_box, theme, framed=False)
        return
    for _ in range(whole(rng, 1, 3)):
        size = between(rng, 0.45, 0.85) * sketch.width, between(rng, 0.4, 0.8) * sketch.height
        left, top = (
            rng.random() * (sketch.width - size[0]),
            rng.random() * (sketch.height - size[1]),
        )
        _window(sketch, (left, top, left + size[0], top + size[1]), theme, framed=True)


def _theme(sketch: Sketch) -> Theme:
    rng = sketch.rng
    hue, strong = rng.random(), accent(rng)
    if chance(rng, 0.6):
        ground, panel = (
            hsv(hue, 0.02, between(rng, 0.94, 1)),
            hsv(hue, 0.04, between(rng, 0.84, 0.95)),
        )
    else:
        ground, panel = (
            hsv(hue, 0.2, between(rng, 0.08, 0.16)),
            hsv(hue, 0.2, between(rng, 0.15, 0.26)),
        )
    ink = legible(mixed(ground, (128, 128, 128), 0.2), ground)
    ink = legible(mixed(ink, (0, 0, 0) if ground[0] > 127 else (255, 255, 255), 0.7), ground)
    edge = mixed(panel, ink, between(rng, 0.1, 0.35))
    size = min(between(rng, 11, 22), max(9, sketch.width / 16))
    return Theme(ground, panel, edge, ink, strong, sketch.library.face(rng), size)


def _window(sketch: Sketch, box: Box, theme: Theme, *, framed: bool) -> None:
    """Title, menu, and one of several contents."""
    rng = sketch.rng
    canvas = sketch.canvas
    size = theme.size
    radius = size * between(rng, 0, 0.7) if framed else 0
    canvas.box(box, theme.ground, radius=radius)
    bar = (box[0], box[1], box[2], box[1] + size * 2.2)
    shown = theme.strong if chance(rng, 0.4) else theme.panel
    canvas.box(bar, shown, radius=radius)
    font = canvas.font(theme.face, size)
    title = phrase(rng, 2)
    canvas.text(
        (box[0] + size * 5, bar[1] + size * 1.1),
        title,
        font,
        legible(theme.ink, shown),
        anchor="lm",
    )
    for at in range(3):
        middle = box[0] + size * (1.1 + 1.3 * at), bar[1] + size * 1.1
        canvas.disc(middle, size * 0.4, hsv((0.0, 0.13, 0.33)[at], 0.7, 0.9))
    x, y = box[0] + size * 0.8, bar[3] + size * 0.4
    while x < box[2] - size * 6:
        name = pick_noun(rng)
        canvas.text((x, y), name, font, theme.ink)
        x += canvas.length(name, font) + size * 1.4
    y += size * 1.7
    canvas.line([(box[0], y), (box[2], y)], theme.edge, 1)
    content = weighted(
        rng, ((_form, 0.3), (_code, 0.25), (_messages, 0.15), (_files, 0.2), (_terminal, 0.1))
    )
    content(sketch, (box[0] + 1, y + 1, box[2] - 1, box[3] - size * 0.5), theme)
    if framed:
        canvas.frame(box, theme.edge, 1, radius=radius)


def _form(sketch: Sketch, box: Box, theme: Theme) -> None:
    """Fields, boxes to tick, sliders and buttons."""
    rng = sketch.rng
    canvas, size = sketch.canvas, theme.size
    font = canvas.font(theme.face, size)
    split = box[0] + (box[2] - box[0]) * between(rng, 0.25, 0.4)
    y = box[1] + size
    while y + size * 2 < box[3]:
        canvas.text((split - size, y + size * 0.8), label(rng), font, theme.ink, anchor="rm")
        right = split + (box[2] - split) * between(rng, 0.3, 0.9)
        kind = weighted(rng, (("field", 0.4), ("tick", 0.25), ("button", 0.2), ("slider", 0.15)))
        field = (split, y, right, y + size * 1.7)
        if kind == "field":
            canvas.box(field, theme.panel, radius=size * 0.25)
            canvas.frame(field, theme.edge, 1, radius=size * 0.25)
            text = number(rng) if chance(rng, 0.4) else word(rng)
            canvas.text((split + size * 0.5, y + size * 0.85), text, font, theme.ink, anchor="lm")
        elif kind == "tick":
            _tick(sketch, (split, y + size * 0.3), theme)
            canvas.text(
                (split + size * 1.6, y + size * 0.85), phrase(rng, 3), font, theme.ink, anchor="lm"
            )
        elif kind == "button":
            canvas.box(field, theme.strong, radius=size * between(rng, 0, 0.9))
            middle = (split + right) / 2, y + size * 0.85
            ink = legible((255, 255, 255), theme.strong)
            canvas.text(middle, pick_noun(rng), font, ink, anchor="mm")
        else:
            line = y + size * 0.85
            at = split + (right - split) * rng.random()
            canvas.line([(split, line), (right, line)], theme.edge, size * 0.2)
            canvas.line([(split, line), (at, line)], theme.strong, size * 0.2)
            canvas.disc((at, line), size * 0.5, theme.strong)
        y += size * between(rng, 2.2, 3)


def _tick(sketch: Sketch, at: Point, theme: Theme) -> None:
    x, y = at
    side = theme.size
    box = (x, y, x + side, y + side)
    if chance(sketch.rng, 0.5):
        sketch.canvas.box(box, theme.strong, radius=side * 0.2)
        path = [(x + side * 0.2, y + side * 0.5), (x + side * 0.42, y + side * 0.75)]
        path.append((x + side * 0.8, y + side * 0.25))
        sketch.canvas.line(path, legible((255, 255, 255), theme.strong), side * 0.13)
    else:
        sketch.canvas.frame(box, theme.ink, max(1, side * 0.08), radius=side * 0.2)


def _code(sketch: Sketch, box: Box, theme: Theme) -> None:
    """Lines of a program in letters of even pitch, with numbers and colours."""
    rng = sketch.rng
    canvas, size = sketch.canvas, theme.size
    face = sketch.library.face(rng, mono=True)
    font = canvas.font(face, size)
    colours = [theme.ink, *(legible(accent(rng), theme.ground) for _ in range(4))]
    marks = ("=", "(", ")", "{", "}", "+", "->", "==", "[0]", ";", ":", "//", "*", "&&", "!=")
    gutter = box[0] + size * 3
    canvas.box((box[0], box[1], gutter, box[3]), theme.panel)
    depth, y, count = 0, box[1] + size * 0.5, whole(rng, 1, 900)
    while y + size < box[3]:
        dim = legible(mixed(theme.ink, theme.panel, 0.4), theme.panel)
        canvas.text((gutter - size * 0.5, y), str(count), font, dim, anchor="ra")
        x = gutter + size * (0.5 + 1.2 * depth)
        for _ in range(whole(rng, 0, 8)):
            text = weighted(
                rng,
                (
                    (word(rng), 0.45),
                    (pick(rng, marks), 0.35),
                    (number(rng), 0.1),
                    (f'"{word(rng)}"', 0.1),
                ),
            )
            if x + canvas.length(text, font) > box[2]:
                break
            canvas.text((x, y), text, font, pick(rng, colours))
            x += canvas.length(text + " ", font)
        depth = min(5, max(0, depth + whole(rng, -1, 1)))
        y, count = y + size * 1.4, count + 1


def _terminal(sketch: Sketch, box: Box, theme: Theme) -> None:
    """Bright letters of even pitch on a dark ground."""
    rng = sketch.rng
    canvas, size = sketch.canvas, theme.size
    ground = hsv(rng.random(), 0.3, between(rng, 0, 0.14))
    canvas.box(box, ground)
    font = canvas.font(sketch.library.face(rng, mono=True), size)
    colours = [legible(hsv(rng.random(), between(rng, 0, 0.7), 0.9), ground) for _ in range(3)]
    y = box[1] + size * 0.3
    while y + size < box[3]:
        text = f"$ {word(rng)} --{word(rng)} {token(rng)}" if chance(rng, 0.3) else ""
        text = text or "  ".join([number(rng), *sentence(rng)])
        room = box[2] - box[0] - size
        shown = text[: max(1, int(room / max(canvas.length("m", font), 1)))]
        canvas.text((box[0] + size * 0.5, y), shown, font, pick(rng, colours))
        y += size * 1.3


def _messages(sketch: Sketch, box: Box, theme: Theme) -> None:
    """Balloons of text to the left and right."""
    rng = sketch.rng
    canvas, size = sketch.canvas, theme.size
    y = box[1] + size
    wide = (box[2] - box[0]) * 0.65
    script = sketch.script()
    face = sketch.library.face(rng, script)
    while y + size * 4 < box[3]:
        mine = chance(rng, 0.5)
        tone = theme.strong if mine else theme.panel
        words = sentence(rng, script)
        rows = whole(rng, 1, 3)
        left = box[2] - wide - size if mine else box[0] + size * 3
        bubble = (left, y, left + wide, y + size * (1.35 * rows + 0.8))
        canvas.box(bubble, tone, radius=size * 0.8)
        style = Type(face, script, size, 1.35, legible(theme.ink, tone), "left")
        inner = (
            left + size * 0.8,
            y + size * 0.3,
            left + wide - size * 0.8,
            y + size * 1.35 * rows,
        )
        set_words(sketch, inner, style, words)
        if not mine:
            canvas.disc((box[0] + size * 1.5, y + size), size, pick(rng, sketch.palette.accents))
        y = bubble[3] + size * 0.7


def _files(sketch: Sketch, box: Box, theme: Theme) -> None:
    """Icons with names below, or a list with a chosen row."""
    rng = sketch.rng
    canvas, size = sketch.canvas, theme.size
    font = canvas.font(theme.face, size * 0.9)
    step = size * between(rng, 4.5, 7)
    y = box[1] + size
    while y + step < box[3]:
        x = box[0] + size
        while x + step < box[2]:
            tile = (x + step * 0.2, y, x + step * 0.8, y + step * 0.55)
            if chance(rng, 0.08):
                around = (x, y - size * 0.3, x + step, y + step * 0.85)
                canvas.box(around, mixed(theme.ground, theme.strong, 0.3), radius=size * 0.3)
            canvas.box(tile, pick(rng, (*sketch.palette.accents, theme.strong)), radius=size * 0.3)
            for line in range(whole(rng, 0, 3)):
                at = tile[1] + step * (0.12 + 0.13 * line)
                ends = [(tile[0] + size * 0.4, at), (tile[2] - size * 0.4, at)]
                canvas.line(ends, theme.ground, max(1, size * 0.12))
            name = word(rng)[:8]
            canvas.text((x + step / 2, y + step * 0.6), name, font, theme.ink, anchor="ma")
            x += step
        y += step
