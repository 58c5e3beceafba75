"""Pages of text: headings, paragraphs, lists and columns, from small print to large letters."""

from __future__ import annotations

from dataclasses import dataclass, replace

from realesr_cli.train.dataset.drawing.canvas import Box
from realesr_cli.train.dataset.drawing.colours import Colour, legible, mixed
from realesr_cli.train.dataset.drawing.dice import (
    between,
    chance,
    pick,
    spread,
    weighted,
    whole,
)
from realesr_cli.train.dataset.drawing.fonts import Face, Font
from realesr_cli.train.dataset.drawing.sketch import Sketch
from realesr_cli.train.dataset.drawing.words import phrase, sentence, word

SMALLEST, LARGEST = 10, 90
"""Sizes of letters (the em) in pixels of the finished picture."""


@dataclass(frozen=True)
class Type:
    """How a block of text is set; sizes in finished pixels."""

    face: Face
    script: str
    size: float
    leading: float
    colour: Colour
    align: str


def page(sketch: Sketch) -> None:
    """A page of one to three columns."""
    rng = sketch.rng
    script = sketch.script()
    size = body_size(sketch)
    margin = between(rng, 0.01, 0.09) * sketch.width
    fits = int(max(1, min(3, (sketch.width - 2 * margin) / (size * 13))))
    count = whole(rng, 1, fits)
    gap = size * between(rng, 1.2, 2.5)
    each = (sketch.width - 2 * margin - gap * (count - 1)) / count
    body = Type(
        sketch.library.face(rng, script),
        script,
        size,
        between(rng, 1.15, 1.7),
        sketch.palette.ink,
        weighted(rng, (("left", 0.5), ("justify", 0.35), ("center", 0.15))),
    )
    top = between(rng, -0.02, 0.08) * sketch.height
    if chance(rng, 0.5):
        top = heading(sketch, (margin, top, sketch.width - margin, sketch.height), body, 2)
    for column in range(count):
        left = margin + column * (each + gap)
        fill(sketch, (left, top, left + each, sketch.height), body)
        if column and chance(rng, 0.3):
            x = left - gap / 2
            sketch.canvas.line([(x, top), (x, sketch.height)], body.colour, size / 14)


def body_size(sketch: Sketch) -> float:
    """Sizes of letters in the middle of what pages have; now and then as large as posters."""
    largest = min(LARGEST, max(SMALLEST + 4, sketch.width / 6))
    if chance(sketch.rng, 0.25):
        return spread(sketch.rng, min(30, largest * 0.7), largest)
    return spread(sketch.rng, SMALLEST, min(34, largest))


def fill(sketch: Sketch, box: Box, body: Type) -> float:
    """Headings, paragraphs and lists down to the bottom of a box; where it ended."""
    rng = sketch.rng
    y = box[1]
    while y < box[3]:
        kind = weighted(rng, (("text", 0.7), ("heading", 0.15), ("list", 0.1), ("rule", 0.05)))
        here = (box[0], y, box[2], box[3])
        if kind == "heading":
            y = heading(sketch, here, body, between(rng, 1.1, 1.8))
        elif kind == "list":
            y = bullets(sketch, here, body)
        elif kind == "rule":
            line = y + body.size * 0.5
            sketch.canvas.line([(box[0], line), (box[2], line)], body.colour, body.size / 12)
            y += body.size
        else:
            y = paragraph(sketch, here, body)
        y += body.size * between(rng, 0.2, 1)
    return y


def heading(sketch: Sketch, box: Box, body: Type, larger: float) -> float:
    """One or two lines above a text; the y below them."""
    rng = sketch.rng
    face = sketch.library.relative(rng, body.face, body.script)
    colour = pick(rng, sketch.palette.accents) if chance(rng, 0.35) else body.colour
    size = min(body.size * larger * between(rng, 0.8, 1.2), LARGEST)
    style = replace(body, face=face, size=size, leading=1.25, colour=colour, align="left")
    words = phrase(rng, whole(rng, 1, 5), body.script).split()
    return set_words(sketch, box, style, words)


def paragraph(sketch: Sketch, box: Box, body: Type) -> float:
    """Some sentences; the y below them."""
    rng = sketch.rng
    words: list[str] = []
    for _ in range(whole(rng, 1, 6)):
        words += sentence(rng, body.script)
    style = body
    if chance(rng, 0.12):
        style = replace(body, face=sketch.library.relative(rng, body.face, body.script))
    if chance(rng, 0.08):
        style = replace(style, colour=pick(rng, sketch.palette.accents))
    return set_words(sketch, box, style, words)


def bullets(sketch: Sketch, box: Box, body: Type) -> float:
    """A list with dots or numbers; the y below it."""
    rng = sketch.rng
    numbered = chance(rng, 0.4)
    y = box[1]
    style = replace(body, align="left")
    for item in range(1, whole(rng, 2, 6)):
        if y >= box[3]:
            break
        font = sketch.canvas.font(body.face, body.size)
        if numbered:
            sketch.canvas.text((box[0], y), f"{item}.", font, body.colour)
        else:
            dot = box[0] + body.size * 0.5, y + body.size * 0.6
            sketch.canvas.disc(dot, body.size * 0.15, body.colour)
        inner = (box[0] + body.size * 1.6, y, box[2], box[3])
        y = set_words(sketch, inner, style, sentence(rng, body.script)[: whole(rng, 3, 10)])
    return y


def lines_of(sketch: Sketch, words: list[str], font: Font, width: float) -> list[list[str]]:
    """Words broken into lines that are no wider than `width`, unless a word alone is."""
    space = sketch.canvas.length(" ", font)
    lines: list[list[str]] = [[]]
    used = 0.0
    for one in words:
        length = sketch.canvas.length(one, font)
        if lines[-1] and used + space + length > width:
            lines.append([])
            used = 0.0
        used += length + (space if lines[-1] else 0)
        lines[-1].append(one)
    return lines


def set_words(sketch: Sketch, box: Box, style: Type, words: list[str]) -> float:
    """Words in lines within a box, as far as it reaches; the y below them."""
    font = sketch.canvas.font(style.face, style.size)
    y = box[1]
    lines = lines_of(sketch, words, font, box[2] - box[0])
    marked = chance(sketch.rng, 0.1)
    for at, line in enumerate(lines):
        if y >= box[3]:
            break
        justify = style.align == "justify" and at + 1 < len(lines)
        if marked and chance(sketch.rng, 0.4):
            _mark(sketch, (box[0], y), " ".join(line), font, style)
        if justify and len(line) > 1:
            _justified(sketch, (box[0], y, box[2], box[3]), line, font, style.colour)
        elif style.align == "center":
            middle = (box[0] + box[2]) / 2, y
            sketch.canvas.text(middle, " ".join(line), font, style.colour, anchor="ma")
        else:
            sketch.canvas.text((box[0], y), " ".join(line), font, style.colour)
        y += style.size * style.leading
    return y


def _justified(sketch: Sketch, box: Box, line: list[str], font: Font, colour: Colour) -> None:
    lengths = [sketch.canvas.length(one, font) for one in line]
    gap = (box[2] - box[0] - sum(lengths)) / (len(line) - 1)
    x = box[0]
    for one, length in zip(line, lengths, strict=True):
        sketch.canvas.text((x, box[1]), one, font, colour)
        x += length + gap


def _mark(sketch: Sketch, at: tuple[float, float], text: str, font: Font, style: Type) -> None:
    """Underlined, struck through, or upon a stroke of a bright pen."""
    rng = sketch.rng
    x, y = at
    end = x + sketch.canvas.length(text, font)
    kind = weighted(rng, (("under", 0.5), ("through", 0.2), ("pen", 0.3)))
    if kind == "pen":
        tone = mixed(sketch.palette.paper, pick(rng, sketch.palette.accents), 0.3)
        if legible(style.colour, tone) == style.colour:
            sketch.canvas.box((x, y, end, y + style.size * 1.2), tone)
        return
    height = y + style.size * (1.12 if kind == "under" else 0.65)
    sketch.canvas.line([(x, height), (end, height)], style.colour, style.size / 15)


def large_words(sketch: Sketch) -> None:
    """Words of all sizes anywhere, level or turned, some with outlines and shadows."""
    rng = sketch.rng
    for _ in range(whole(rng, 20, 70)):
        script = sketch.script()
        largest = min(LARGEST * 1.3, sketch.width / 4)
        font = sketch.canvas.font(
            sketch.library.face(rng, script), spread(rng, min(12, largest / 2), largest)
        )
        at = rng.random() * sketch.width, rng.random() * sketch.height
        colour = pick(rng, (*sketch.palette.accents, sketch.palette.ink))
        angle = weighted(rng, ((0.0, 0.5), (90.0, 0.1), (between(rng, -60, 60), 0.4)))
        text = word(rng, script)
        text = text.upper() if chance(rng, 0.3) else text
        if chance(rng, 0.25):
            off = font.size / sketch.canvas.factor * between(rng, 0.03, 0.09)
            shade = mixed(sketch.palette.paper, (0, 0, 0), between(rng, 0.3, 0.9))
            sketch.canvas.turned_text((at[0] + off, at[1] + off), text, font, shade, angle=angle)
        sketch.canvas.turned_text(at, text, font, colour, angle=angle)
