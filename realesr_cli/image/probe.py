"""What the header of an image says, whether a file is complete, and what made it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from realesr_cli.errors import (
    ImageError,
    ImageTooLargeError,
    MissingDecoderError,
    MissingDependencyError,
    UnreadableImageError,
    UnsupportedImageError,
)
from realesr_cli.image import exif as exif_tags
from realesr_cli.image import pillow as pil
from realesr_cli.image import plugins, png, tiff, xmp
from realesr_cli.image.formats import DEFAULT_MAX_PIXELS
from realesr_cli.image.headers import (
    HEAD_BYTES,
    describe_unknown,
    describe_unsupported,
    parse_deep_netpbm,
    parse_webp,
)
from realesr_cli.image.read import read_image
from realesr_cli.image.source import (
    Source,
    check_pixels,
    map_file,
    name_error,
    open_file,
    read_bytes,
)
from realesr_cli.image.types import ImageInfo

__all__ = ["ImageInfo", "probe", "read_made_by", "whole_size"]

_MAX_RESULT_PIXELS = 16 * DEFAULT_MAX_PIXELS
"""Results of scale 4 have at most so many."""

_MARK_BYTES = 2**20
"""The record of what made a file lies within so many bytes of its start or end."""


def probe(source: Source, *, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> ImageInfo:
    """Read the header of an image.

    Damage in the pixels goes unnoticed. Raises what `read_image` raises for the same source, as
    far as the header shows it.
    """
    if not isinstance(source, (str, Path, bytes)):
        source = read_bytes(source, max_pixels)  # Once: it may have to be read again.
    try:
        with _open(source) as stream:
            header = _probe(stream, max_pixels)
        check_pixels(header.height, header.width, max_pixels)
        return header
    except (ImageTooLargeError, MissingDecoderError) as error:
        raise name_error(error, source) from error.__cause__
    except ImageError:
        pass
    # The reader knows the reason; and what it can read after all is not an error.
    image = read_image(source, max_pixels=max_pixels)
    size = image.height, image.width
    return ImageInfo(*size, image.channels, image.bits, image.has_alpha, image.format)


def whole_size(path: Path, *, max_pixels: int = _MAX_RESULT_PIXELS) -> tuple[int, int] | None:
    """Return height and width of a file with a complete image; None if it is damaged or missing.

    Of a PNG all checksums are verified, of a TIFF the extent of every strip; others are decoded,
    unless they state more than `max_pixels`.
    """
    try:
        with open_file(path) as file:
            head = file.read(HEAD_BYTES)
            if head.startswith(png.SIGNATURE):
                header = _probe_png(head, file) if png.is_complete(file) else None
                return None if header is None else (header.height, header.width)
            if head.startswith(tiff.SIGNATURES):
                with map_file(file) as mapped:
                    header = _probe_tiff(mapped) if tiff.is_complete(mapped) else None
                return None if header is None else (header.height, header.width)
        data = read_bytes(path)
        header = probe(data, max_pixels=None)
        if _pixels(header) > max_pixels:
            return header.height, header.width
        image = read_image(data, max_pixels=max_pixels)
    except (ImageError, MissingDependencyError):
        return None
    return image.height, image.width


def _pixels(header: ImageInfo) -> int:
    return header.height * header.width


def read_made_by(source: Source) -> str | None:
    """Return the record of what made a file (`Image.made_by` when it was written).

    None if there is none or the file cannot be read. Only the start and the end of the file are
    read, where every format written here has its XMP packet.
    """
    try:
        with _open(source) as stream:
            found = xmp.find_made_by(stream.read(_MARK_BYTES))
            if found is None:
                stream.seek(max(0, stream.seek(0, 2) - _MARK_BYTES))
                found = xmp.find_made_by(stream.read())
            return found
    except (ImageError, OSError):
        return None


@contextlib.contextmanager
def _open(source: Source) -> Iterator[BinaryIO]:
    if isinstance(source, (str, Path)):
        with open_file(Path(source)) as stream:
            yield stream
    else:
        yield BytesIO(read_bytes(source))


def _probe(stream: BinaryIO, limit: int | None) -> ImageInfo:
    head = stream.read(HEAD_BYTES)
    reason = describe_unsupported(head)
    if reason is not None:
        raise UnsupportedImageError(f"this is {reason}")
    if head.startswith(png.SIGNATURE):
        return _probe_png(head, stream)
    if head.startswith(tiff.SIGNATURES):
        head += stream.read()
    plugin = plugins.find_plugin(head)
    if plugin is not None:
        stream.seek(0)
        return plugins.open_with(plugin, stream.read(), limit).info
    if head.startswith(tiff.SIGNATURES):
        return _probe_tiff(head)
    deep = parse_deep_netpbm(head)
    if deep is not None:
        return ImageInfo(deep.height, deep.width, deep.channels, 16, False, "PPM")
    webp = parse_webp(head)
    if webp is not None:
        check_pixels(webp.height, webp.width, limit)
    return _probe_pillow(head, stream)


def _probe_png(head: bytes, stream: BinaryIO) -> ImageInfo:
    header = png.read_header(head)
    chunks = png.find_chunks(stream)
    if not chunks or chunks[-1].kind != b"IEND":
        raise UnreadableImageError("the PNG is truncated: its end is missing")
    found = png.read_metadata(stream, chunks)
    size = _turn(header.height, header.width, exif_tags.orientation_of(found.exif, found.xmp))
    alpha = header.color_type in (4, 6) or any(chunk.kind == b"tRNS" for chunk in chunks)
    return ImageInfo(*size, header.colors, max(8, header.bits), alpha, "PNG")


def _probe_tiff(data: bytes) -> ImageInfo:
    file = tiff.open_tiff(data)
    layout = file.layout
    orientation = tiff.orientation_of(layout, tiff.read_metadata(file))
    size = _turn(layout.height, layout.width, orientation)
    channels = 1 if layout.photometric in (0, 1) else 3
    depth = max(layout.bits)
    bits = 32 if layout.deep and layout.sample_format == 3 else 16
    if depth <= 8 or not (layout.deep or depth == 12):
        bits = 8
    return ImageInfo(*size, channels, bits, layout.alpha_place is not None, "TIFF")


def _probe_pillow(head: bytes, stream: BinaryIO) -> ImageInfo:
    stream.seek(0)
    with pil.capture_warnings():
        image = pil.open_image(stream)
        if image is None:
            raise UnreadableImageError(describe_unknown(head))
        found = pil.read_metadata(image)
        alpha = pil.has_transparency(image)
    size = _turn(image.height, image.width, exif_tags.orientation_of(found.exif, found.xmp))
    gray = image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;")
    bits = 16 if image.mode.startswith("I;16") else 32 if image.mode == "F" else 8
    return ImageInfo(*size, 1 if gray else 3, bits, alpha, image.format)


def _turn(height: int, width: int, orientation: int) -> tuple[int, int]:
    return (width, height) if exif_tags.swaps_sides(orientation) else (height, width)
