"""Draw a comparison as one image: crops at full size in columns, with labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as pillow
from PIL import ImageDraw, ImageFont

from realesr_cli.errors import MissingDependencyError
from realesr_cli.evaluate.comparison import (
    Comparison,
    Photo,
    PhotoVersion,
    full_score,
    pixels_of,
)
from realesr_cli.evaluate.settings import CropRegion, SheetSettings
from realesr_cli.image.color import convert_to_srgb, is_srgb
from realesr_cli.image.types import Image
from realesr_cli.image.write import write_image

_DEFAULTS = SheetSettings()

MARGIN, GAP, PADDING = 24, 8, 6
"""Pixels around the sheet, between its cells, and above and below text."""
TITLE, NAME, SMALL = 20, 16, 13
"""Sizes of text in pixels."""
NARROWEST = 150
"""Least width of a column, for its labels."""

_PAPER, _INK, _SOFT = (255, 255, 255), (28, 29, 32), (99, 102, 109)
_CHECK, _LIGHT, _DARK = 8, 255, 207


@dataclass(frozen=True)
class _Fonts:
    title: ImageFont.FreeTypeFont
    name: ImageFont.FreeTypeFont
    small: ImageFont.FreeTypeFont


def write_sheet(comparison: Comparison, path: Path, settings: SheetSettings = _DEFAULTS) -> None:
    """Write the sheet in the image format of the file's extension.

    Raises what `draw_sheet` and `write_image` raise.
    """
    write_image(Image(draw_sheet(comparison, settings)), path)


def draw_sheet(comparison: Comparison, settings: SheetSettings = _DEFAULTS) -> NDArray[np.uint8]:
    """Return (H, W, 3): for each photo its name, the versions with their scores, and the crops.

    A pixel of the sheet is a pixel of the upscaled images; pixels of the input are squares. Colors
    are sRGB, and a checkerboard is under transparent pixels. Raises ConfigError for a crop outside
    a photo, MissingDependencyError if Pillow cannot draw text.
    """
    fonts = _fonts()
    blocks = [
        _block(photo, _crops(photo, comparison.scale, settings), comparison.scale, fonts)
        for photo in comparison.photos
    ]
    width = max(block.width for block in blocks) + 2 * MARGIN
    height = sum(block.height for block in blocks) + MARGIN * (len(blocks) + 1)
    sheet = pillow.new("RGB", (width, height), _PAPER)
    top = MARGIN
    for block in blocks:
        sheet.paste(block, (MARGIN, top))
        top += block.height + MARGIN
    return np.asarray(sheet).copy()


def find_detail(image: Image, size: tuple[int, int], count: int) -> list[CropRegion]:
    """Return at most `count` parts of an image, those with the most detail first.

    `size` is their (height, width), at most the image's. Detail is the sum of the square roots of
    the luma's gradients, so that texture counts more than one sharp edge; transparent pixels have
    none. Two parts share at most a quarter of their height or width.
    """
    height, width = min(size[0], image.height), min(size[1], image.width)
    sums = _window_sums(_detail(image), height, width)
    down, across = math.ceil(height * 0.75), math.ceil(width * 0.75)
    found: list[CropRegion] = []
    while len(found) < count and sums.max() >= 0:
        y, x = (int(i) for i in np.unravel_index(int(sums.argmax()), sums.shape))
        found.append(CropRegion(x, y, width, height))
        sums[max(0, y - down + 1) : y + down, max(0, x - across + 1) : x + across] = -1
    return found


def _detail(image: Image) -> NDArray[np.float64]:
    luma = image.pixels.astype(np.float64).mean(2)
    if image.alpha is not None:
        luma = np.where(image.alpha > 0, luma, 0)
    across = np.abs(np.diff(luma, axis=1, append=luma[:, -1:]))
    down = np.abs(np.diff(luma, axis=0, append=luma[-1:]))
    detail: NDArray[np.float64] = np.sqrt(across + down)
    return detail


def _window_sums(values: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Return the sums over all windows of that size, by their upper left corner."""
    table = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    below, above = table[height:], table[:-height]
    sums: NDArray[np.float64] = below[:, width:] - below[:, :-width]
    sums -= above[:, width:] - above[:, :-width]
    return sums.clip(0)  # Below 0 is for what is taken; rounding must not get there.


def _crops(photo: Photo, scale: int, settings: SheetSettings) -> list[CropRegion]:
    source = photo.versions[0].image
    if settings.regions:
        for crop in settings.regions:
            crop.require_inside(photo.name, (source.height, source.width))
        return list(settings.regions)
    side = max(1, round(settings.crop_size / scale))
    return find_detail(source, (side, side), settings.crops)


def _block(photo: Photo, crops: Sequence[CropRegion], scale: int, fonts: _Fonts) -> pillow.Image:
    """Draw one photo: its name, the heads of the columns, and a row for each crop."""
    columns = len(photo.versions)
    column = max(NARROWEST, max(crop.width for crop in crops) * scale)
    lines = max(len(version.scores) for version in photo.versions)
    head = TITLE + NAME + lines * SMALL + (3 + lines) * PADDING
    heights = [crop.height * scale + SMALL + 3 * PADDING for crop in crops]
    width = columns * column + (columns - 1) * GAP
    block = pillow.new("RGB", (width, head + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(block)
    size = f"x{scale}, {photo.width} x {photo.height}"
    draw.text((0, 0), _shorten(f"{photo.name}   {size}", width, fonts.title), _INK, fonts.title)
    for number, version in enumerate(photo.versions):
        left, top = number * (column + GAP), TITLE + 2 * PADDING
        draw.text((left, top), _shorten(version.name, column, fonts.name), _INK, fonts.name)
        for line, (key, value) in enumerate(version.scores.items()):
            text = _shorten(full_score(key, value), column, fonts.small)
            below = top + NAME + PADDING + line * (SMALL + PADDING)
            draw.text((left, below), text, _SOFT, fonts.small)
        below = head
        for crop, height in zip(crops, heights, strict=True):
            block.paste(_cell(version, crop, scale), (left, below))
            below += height
    below = head
    for crop, height in zip(crops, heights, strict=True):
        below += height
        text = f"{crop.width} x {crop.height} pixels of the input at {crop.x}, {crop.y}"
        draw.text((0, below - SMALL - 2 * PADDING), text, _SOFT, fonts.small)
    return block


def _cell(version: PhotoVersion, crop: CropRegion, scale: int) -> pillow.Image:
    factor = 1 if version.kind == "input" else scale
    rows = slice(crop.y * factor, (crop.y + crop.height) * factor)
    columns = slice(crop.x * factor, (crop.x + crop.width) * factor)
    image = version.image
    alpha = None if image.alpha is None else image.alpha[rows, columns]
    part = pillow.fromarray(pixels_of(Image(image.pixels[rows, columns])))
    if image.icc is not None and not is_srgb(image.icc):
        managed = convert_to_srgb(part, image.icc)
        part = part if managed is None else managed[0]
    part = part.convert("RGB")
    if factor != scale:
        part = part.resize((part.width * scale, part.height * scale), pillow.Resampling.NEAREST)
    if alpha is None:
        return part
    cover = pillow.fromarray(alpha).resize(part.size, pillow.Resampling.NEAREST)
    return pillow.composite(part, _checks(part.size), cover)


def _checks(size: tuple[int, int]) -> pillow.Image:
    """Draw a checkerboard of that (width, height)."""
    rows, columns = np.indices((size[1], size[0])) // _CHECK
    pattern = np.where((rows + columns) % 2, _DARK, _LIGHT).astype(np.uint8)
    return pillow.fromarray(pattern).convert("RGB")


def _fonts() -> _Fonts:
    """Load Pillow's own font; MissingDependencyError if this Pillow cannot draw it."""
    try:
        fonts = [ImageFont.load_default(size) for size in (TITLE, NAME, SMALL)]
    except ImportError:
        fonts = []
    if not fonts or not all(isinstance(font, ImageFont.FreeTypeFont) for font in fonts):
        raise MissingDependencyError(
            "this build of Pillow cannot draw text (no FreeType): install Pillow as a wheel"
        )
    return _Fonts(*fonts)  # type: ignore[arg-type]


def _shorten(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """Return the text, its middle replaced by dots if it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        cut = text[: (kept + 1) // 2] + "..." + text[len(text) - kept // 2 :]
        if font.getlength(cut) <= width:
            return cut
    return text[:1]
