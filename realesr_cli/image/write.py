"""Writing images: to files (atomically), to bytes, and to Pillow."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image as pillow

from realesr_cli.atomic import atomic_write, write_errors
from realesr_cli.errors import ImageWriteError, RealesrWarning
from realesr_cli.image import color, exif, xmp
from realesr_cli.image.encode import join_alpha
from realesr_cli.image.formats import (
    EncodeOptions,
    Format,
    WriteSettings,
    check_settings,
    check_size,
    find_format,
    format_of,
)
from realesr_cli.image.pixels import Array, over_white, to_uint8, to_uint16
from realesr_cli.image.types import Attributes, Band, Encodable, Image, ImageStream, Metadata
from realesr_cli.text import format_bytes

__all__ = ["WriteSettings", "encode_image", "to_pillow", "write_image"]

_DEFAULT = WriteSettings()
_DEFAULT_COMPRESS_LEVEL = 6
_EXIF_HEADER, _XMP_HEADER = 6, 29
"""Bytes that precede an EXIF block and an XMP packet in a segment of a JPEG."""


def write_image(
    image: Image | ImageStream, path: Path | str, settings: WriteSettings = _DEFAULT
) -> None:
    """Write a file atomically, replacing one of that name.

    Depth and alpha that the format does not support are reduced with a RealesrWarning. Of an
    `ImageStream` PNG, TIFF and JPEG hold only some rows. Raises UnsupportedImageError for an
    unknown format, ImageTooLargeError for a size beyond its limits, ConfigError for settings that
    contradict it, and ImageWriteError with the reason if writing fails, or what the stream raises;
    nothing is left behind then, nor after an interruption.
    """
    format = _check(image, format_of(path, settings), settings)
    with write_errors(Path(path), ImageWriteError), atomic_write(Path(path)) as file:
        _encode(file, image, format, settings)


def encode_image(
    image: Image | ImageStream, format: str, settings: WriteSettings = _DEFAULT
) -> bytes:
    """Return the bytes of a file of that format; raises what `write_image` raises."""
    found = _check(image, format, settings)
    buffer = BytesIO()
    _encode(buffer, image, found, settings)
    return buffer.getvalue()


def to_pillow(image: Image) -> pillow.Image:
    """Return a Pillow image, with metadata in its `info`.

    Its mode is L, LA, RGB or RGBA, I;16 for 16-bit gray and F for floating-point gray; deeper color
    or alpha is rounded to 8 bits with a RealesrWarning.
    """
    gray = image.pixels.shape[2] == 1
    pixels, alpha = image.pixels, image.alpha
    if pixels.dtype != np.uint8 and not (gray and alpha is None):
        _warn("Pillow has no deep color or alpha; the image is rounded to 8 bits")
        pixels, alpha = to_uint8(pixels), None if alpha is None else to_uint8(alpha)
    result = pillow.fromarray(join_alpha(pixels, alpha))
    metadata = _metadata(image.about, (image.height, image.width))
    if metadata.exif is not None:
        result.info["exif"] = b"Exif\0\0" + metadata.exif
    for key, value in (
        ("icc_profile", metadata.icc),
        ("xmp", metadata.xmp),
        ("dpi", metadata.dpi),
    ):
        if value is not None:
            result.info[key] = value
    return result


def _check(image: Image | ImageStream, name: str, settings: WriteSettings) -> Format:
    """Return the format, or raise if settings or size do not fit it."""
    check_settings(name, settings)
    size = (image.channels + image.has_alpha) * image.dtype.itemsize
    check_size(name, image.height, image.width, bytes_per_pixel=size)
    return find_format(name)


def _encode(
    file: BinaryIO, image: Image | ImageStream, format: Format, settings: WriteSettings
) -> None:
    about = image.about
    lossless = settings.lossless
    if about.format in format.sources and settings.quality is None:
        lossless = lossless or about.lossless  # A lossless source stays lossless.
    quality = settings.quality or format.default_quality or 0
    level = settings.compress_level
    level = _DEFAULT_COMPRESS_LEVEL if level is None else level
    options = EncodeOptions(quality, lossless, level)
    if settings.max_bytes is not None and isinstance(image, ImageStream):
        image = image.collect()  # It may be encoded several times.
    ready = _prepare(image, format, settings)
    if settings.max_bytes is None:
        format.encode(file, ready, options)
    elif lossless or format.default_quality is None:
        file.write(_encode_within(ready, format, options, settings.max_bytes))
    else:
        file.write(_fit_quality(ready, format, options, settings.max_bytes))


def _encode_within(
    ready: Encodable, format: Format, options: EncodeOptions, max_bytes: int
) -> bytes:
    """Encode an image; raise ImageWriteError if the file is larger than `max_bytes`."""
    buffer = BytesIO()
    format.encode(buffer, ready, options)
    size = buffer.tell()
    if size <= max_bytes:
        return buffer.getvalue()
    how = (
        f"at quality {options.quality}"
        if format.default_quality and not options.lossless
        else "losslessly"
    )
    raise ImageWriteError(
        f"the {format.name} file has {format_bytes(size)} {how}, more than max_bytes = "
        f"{max_bytes}; choose a lossy format, or make the image smaller"
    )


def _fit_quality(ready: Encodable, format: Format, options: EncodeOptions, max_bytes: int) -> bytes:
    """Encode at the highest quality, up to that of the options, whose file has `max_bytes`."""
    low, high, best = 1, options.quality, None
    quality = high  # Mostly the file is small enough already.
    while low <= high:
        buffer = BytesIO()
        format.encode(buffer, ready, dataclasses.replace(options, quality=quality))
        if buffer.tell() <= max_bytes:
            best, low = buffer.getvalue(), quality + 1
        else:
            high = quality - 1
        quality = (low + high) // 2
    if best is not None:
        return best
    return _encode_within(ready, format, dataclasses.replace(options, quality=1), max_bytes)


def _prepare(image: Image | ImageStream, format: Format, settings: WriteSettings) -> Encodable:
    """Reduce an image to the depth, channels and metadata that the format supports."""
    rows = ImageStream.of(image) if isinstance(image, Image) else image
    about = image.about
    steps: list[Callable[[Array, Array | None], Band]] = []
    metadata = _metadata(about, (rows.height, rows.width))
    dtype, has_alpha = rows.dtype, rows.has_alpha
    if has_alpha and not format.alpha:
        what = "alpha is left out" if about.hidden_color else "the image is composited over white"
        _warn(f"{format.name} has no alpha; {what}")
        steps.append(_drop_alpha if about.hidden_color else _composite)
        has_alpha = False
    if rows.bits not in format.bits and 16 in format.bits:
        steps.append(lambda pixels, alpha: _convert(to_uint16, pixels, alpha))
        dtype = np.dtype(np.uint16)
    elif rows.bits not in format.bits:
        _warn(f"{format.name} has 8 bits per channel; the image's {rows.bits} bits are rounded")
        steps.append(lambda pixels, alpha: _convert(to_uint8, pixels, alpha))
        dtype = np.dtype(np.uint8)
    if settings.strip_metadata or not format.icc:
        convert = _without_profile(metadata.icc, dtype, rows.channels)
        if convert is not None:
            steps.append(lambda pixels, alpha: (convert(pixels), alpha))
        metadata = dataclasses.replace(metadata, icc=None)

    def bands() -> Iterator[Band]:
        for band in rows.bands():
            for step in steps:
                band = step(*band)
            yield band

    reduced = dataclasses.replace(rows, bands=bands, dtype=dtype, has_alpha=has_alpha)
    kept = Metadata() if settings.strip_metadata else _supported(metadata, format)
    return Encodable(reduced, kept, about.hidden_color)


def _drop_alpha(pixels: Array, alpha: Array | None) -> Band:
    return pixels, None


def _composite(pixels: Array, alpha: Array | None) -> Band:
    return (pixels if alpha is None else over_white(pixels, alpha)), None


def _convert(function: Callable[[Array], Array], pixels: Array, alpha: Array | None) -> Band:
    return function(pixels), None if alpha is None else function(alpha)


def _metadata(about: Attributes, size: tuple[int, int]) -> Metadata:
    """Return the metadata with the sizes that it states corrected, and the record of its making."""
    block = None if about.exif is None else exif.resize(about.exif, *size)
    packet = None if about.xmp is None else xmp.resize(about.xmp, *size)
    packet = xmp.replace_made_by(packet, about.made_by)
    return Metadata(about.icc, block, packet, about.dpi, about.text)


def _without_profile(
    icc: bytes | None, dtype: np.dtype[Any], channels: int
) -> Callable[[Array], Array] | None:
    """Return what makes pixels look the same, as far as sRGB allows, without their profile."""
    if icc is None or color.is_srgb(icc):
        return None

    def convert(pixels: Array) -> Array:
        managed = color.convert_to_srgb(pillow.fromarray(join_alpha(pixels, None)), icc)
        assert managed is not None
        return np.asarray(managed[0])

    sample = pillow.new("RGB", (1, 1))
    if dtype == np.uint8 and channels == 3 and color.convert_to_srgb(sample, icc) is not None:
        return convert
    _warn("the color profile is left out; colors may look different without it")
    return None


def _supported(metadata: Metadata, format: Format) -> Metadata:
    """Return the part of the metadata that the format stores."""
    block, packet = metadata.exif, metadata.xmp
    limit = format.max_segment
    if not format.exif_xmp:
        block = packet = None
    if limit is not None and block is not None and len(block) + _EXIF_HEADER > limit:
        _warn(f"the EXIF block is too large for {format.name} and is left out")
        block = None
    if limit is not None and packet is not None and len(packet) + _XMP_HEADER > limit:
        packet = xmp.replace_made_by(packet, None)  # Its own record goes first.
    if limit is not None and packet is not None and len(packet) + _XMP_HEADER > limit:
        _warn(f"the XMP packet is too large for {format.name} and is left out")
        packet = None
    text = metadata.text if format.text else ()
    return dataclasses.replace(metadata, exif=block, xmp=packet, text=text)


def _warn(text: str) -> None:
    warnings.warn(text, RealesrWarning, stacklevel=4)
