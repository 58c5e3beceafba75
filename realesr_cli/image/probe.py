"""What a picture is without decoding it, and whether a file holds a whole one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image as pillow

from realesr_cli.errors import ImageError, MissingDependency
from realesr_cli.image import exif as exif_tags
from realesr_cli.image import ifd, png, pnm, sniff, tiff
from realesr_cli.image import pillow as pil
from realesr_cli.image.formats import DEFAULT_MAX_PIXELS
from realesr_cli.image.read import read_image
from realesr_cli.image.record import Image

_GRAY_MODES = ("1", "L", "LA", "La", "F")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Header:
    """Size in pixels with the orientation applied, channels of colour (1 or 3), depth and kind.

    A palette counts as three channels. `format` is Pillow's name of the file's format.
    """

    height: int
    width: int
    channels: int
    bits: int
    has_alpha: bool
    format: str | None


def probe(source: Path | bytes, *, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> Header:
    """The header of a picture.

    Where the header alone does not tell, the picture is decoded. Raises what `read_image` raises
    for the same source, as far as the header shows it.
    """
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        found = _quick(data, max_pixels)
    except (ImageError, OSError, ifd.Malformed):
        found = None
    if found is not None and (max_pixels is None or found.height * found.width <= max_pixels):
        return found
    # Damaged, too large, or of a kind that needs decoding: the reader finds the words for it.
    return _of(read_image(source, max_pixels=max_pixels))


def whole_size(path: Path) -> tuple[int, int] | None:
    """Height and width of the picture in a file, None where there is no whole one.

    The checksums of a PNG are verified up to its end; other formats are decoded.
    """
    try:
        data = path.read_bytes()
        if data.startswith(png.SIGNATURE):
            header = png.read_header(data)
            kinds = {kind for kind, _ in png.chunks(data)}
            return (header.height, header.width) if b"IDAT" in kinds else None
        image = read_image(data, max_pixels=None)
    except (ImageError, MissingDependency, OSError):
        return None
    return image.height, image.width


def _of(image: Image) -> Header:
    return Header(
        image.height, image.width, image.channels, image.bits, image.has_alpha, image.format
    )


def _quick(data: bytes, limit: int | None) -> Header | None:
    """The header where it can be had without decoding, else None."""
    if not data or sniff.unsupported(data) is not None:
        return None
    if data[:4] in _TIFF_STARTS:
        return _of_tiff(data)
    deep = pnm.read_header(data)
    if deep is not None:
        return Header(deep.height, deep.width, deep.channels, 16, False, "PPM")
    size = sniff.webp_size(data)
    if size is not None and limit is not None and size[0] * size[1] > limit:
        return None  # its decoder would take the memory on opening
    with pil.listening():
        image = pil.open_quietly(data)
        return None if image is None else _of_pillow(image, data)


def _of_tiff(data: bytes) -> Header:
    layout = tiff.open_tiff(data).layout
    height, width = layout.height, layout.width
    if exif_tags.swaps_sides(layout.orientation):
        height, width = width, height
    gray = layout.photometric in (0, 1)
    colours = 1 if gray else 3
    own = 4 if layout.photometric == 5 else colours  # CMYK is four inks without alpha
    bits = max(layout.bits)
    depth = 8 if bits <= 8 else 16 if bits <= 16 else 32
    return Header(height, width, colours, depth, layout.samples > own, "TIFF")


def _of_pillow(image: pillow.Image, data: bytes) -> Header:
    found = pil.metadata(image)
    exif = found.exif
    bits = 16 if image.mode.startswith("I;16") else 32 if image.mode == "F" else 8
    if data.startswith(png.SIGNATURE):
        bits = 16 if png.read_header(data).bits == 16 else 8
        if exif is None:  # it may stand behind the pixels, where Pillow has not looked yet
            exif = next((content for kind, content in png.chunks(data) if kind == b"eXIf"), None)
    orientation = exif_tags.orientation_of(exif_tags.without_prefix(exif), found.xmp)
    height, width = image.height, image.width
    if exif_tags.swaps_sides(orientation):
        height, width = width, height
    gray = image.mode in _GRAY_MODES or image.mode.startswith("I;16")
    alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    return Header(height, width, 1 if gray else 3, bits, alpha, image.format)
