"""What an image is, told from its header alone; and whether a file holds a whole image."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from realesr_cli.errors import (
    ImageError,
    ImageTooLargeError,
    MissingDependencyError,
    UnreadableImageError,
    UnsupportedImageError,
)
from realesr_cli.image import exif as exif_tags
from realesr_cli.image import pillow as pil
from realesr_cli.image import png, pnm, sniff, tiff
from realesr_cli.image.formats import DEFAULT_MAX_PIXELS
from realesr_cli.image.read import read_image
from realesr_cli.image.source import Source, bytes_of, check_pixels, named, not_recognized

_HEAD = 4096


@dataclass(frozen=True)
class ImageInfo:
    """An image as `read_image` would return it, without its pixels.

    The size is that after the orientation is applied. Palettes count as three channels.
    """

    height: int
    width: int
    channels: int
    bits: int
    has_alpha: bool
    format: str | None


def probe(source: Source, *, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> ImageInfo:
    """Read the header of an image.

    Damage in the pixels goes unnoticed. Raises what `read_image` raises for the same source, as
    far as the header shows it.
    """
    if not isinstance(source, (str, Path, bytes)):
        source = source.read()  # Once: the reader may have to look at it again.
    try:
        with _opened(source) as stream:
            header = _probe(stream, max_pixels)
        check_pixels(header.height, header.width, max_pixels)
        return header
    except ImageTooLargeError as error:
        raise named(error, source) from None
    except ImageError:
        # The reader finds the words; what it can read after all is no error either.
        image = read_image(source, max_pixels=max_pixels)
    size = image.height, image.width
    return ImageInfo(*size, image.channels, image.bits, image.has_alpha, image.format)


def whole_size(path: Path) -> tuple[int, int] | None:
    """Height and width of a file that holds a whole image; None where it is damaged or missing.

    PNG is followed chunk by chunk with their checksums, TIFF to the end of every strip; others
    are decoded.
    """
    try:
        data = bytes_of(path)
        if data.startswith(png.SIGNATURE):
            if all(kind != b"IDAT" for kind, _ in list(png.chunks(data))):
                return None
            header = probe(data, max_pixels=None)
            return header.height, header.width
        if data.startswith(tiff.SIGNATURES) and tiff.complete(data):
            header = probe(data, max_pixels=None)
            return header.height, header.width
        image = read_image(data, max_pixels=None)
    except (ImageError, MissingDependencyError):
        return None
    return image.height, image.width


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    if isinstance(source, (str, Path)):
        bytes_of(source, 1)  # Says what is wrong with a file that is missing, empty or a folder.
        with Path(source).open("rb") as stream:
            yield stream
    else:
        yield BytesIO(bytes_of(source))


def _probe(stream: BinaryIO, limit: int | None) -> ImageInfo:
    head = stream.read(_HEAD)
    reason = sniff.unsupported(head)
    if reason is not None:
        raise UnsupportedImageError(f"this is {reason}")
    if head.startswith(png.SIGNATURE):
        return _probe_png(head, stream)
    if head.startswith(tiff.SIGNATURES):
        return _probe_tiff(head + stream.read())
    deep = pnm.read_header(head)
    if deep is not None:
        return ImageInfo(deep.height, deep.width, deep.channels, 16, False, "PPM")
    size = sniff.webp_size(head)
    if size is not None:
        check_pixels(*size, limit)
    return _probe_pillow(head, stream)


def _probe_png(head: bytes, stream: BinaryIO) -> ImageInfo:
    header = png.read_header(head)
    found = png.skim(stream)
    block = exif_tags.without_prefix(found.get(b"eXIf"))
    xmp = png.xmp_of(found.get(b"iTXt", b""))
    size = _turned(header.height, header.width, exif_tags.orientation_of(block, xmp))
    channels = 1 if header.color_type in (0, 4) else 3
    alpha = header.color_type in (4, 6) or b"tRNS" in found
    return ImageInfo(*size, channels, max(8, header.bits), alpha, "PNG")


def _probe_tiff(data: bytes) -> ImageInfo:
    file = tiff.open_tiff(data)
    layout = file.layout
    xmp = tiff.metadata(file).xmp
    orientation = layout.orientation or exif_tags.orientation_of(None, xmp)
    size = _turned(layout.height, layout.width, orientation)
    channels = 1 if layout.photometric in (0, 1) else 3
    depth = max(layout.bits)
    bits = 32 if layout.deep and layout.sample_format == 3 else 16
    if depth <= 8 or not (layout.deep or depth == 12):
        bits = 8
    return ImageInfo(*size, channels, bits, layout.has_alpha, "TIFF")


def _probe_pillow(head: bytes, stream: BinaryIO) -> ImageInfo:
    stream.seek(0)
    with pil.capture_warnings():
        image = pil.open_quietly(stream)
        if image is None:
            raise UnreadableImageError(not_recognized(head))
        found = pil.metadata(image)
        alpha = image.has_transparency_data
    size = _turned(image.height, image.width, exif_tags.orientation_of(found.exif, found.xmp))
    gray = image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;")
    bits = 16 if image.mode.startswith("I;16") else 32 if image.mode == "F" else 8
    return ImageInfo(*size, 1 if gray else 3, bits, alpha, image.format)


def _turned(height: int, width: int, orientation: int) -> tuple[int, int]:
    return (width, height) if exif_tags.swaps_sides(orientation) else (height, width)
