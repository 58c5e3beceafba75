"""Images written: to files, whole or not at all, to bytes, and to Pillow."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from PIL import Image as pillow

from realesr_cli.atomic import atomic_write, write_errors
from realesr_cli.errors import ImageWriteError, MissingDependencyError, RealesrWarning
from realesr_cli.image import color, exif, jpeg_writer, png, tiff_writer
from realesr_cli.image import pillow as pil
from realesr_cli.image.depth import Array, over_white, to_uint8, to_uint16
from realesr_cli.image.exif import Metadata
from realesr_cli.image.formats import (
    WriteSettings,
    canonical,
    check_settings,
    check_size,
    format_of,
    quality_of,
)

__all__ = ["WriteSettings", "encode_image", "to_pillow", "write_image"]

_DEFAULT = WriteSettings()

_MAX_JPEG_SEGMENT = 65_533
_XMP_MARK = 29
BANDED_PIXELS = 64_000_000
"""A JPEG with more pixels is encoded in bands, as Pillow copies all it encodes at once."""


class WritableImage(Protocol):
    """What is needed of an image to write it; `realesr_cli.image.types.Image` has it."""

    @property
    def pixels(self) -> Array: ...
    @property
    def alpha(self) -> Array | None: ...
    @property
    def icc(self) -> bytes | None: ...
    @property
    def exif(self) -> bytes | None: ...
    @property
    def xmp(self) -> bytes | None: ...
    @property
    def dpi(self) -> tuple[float, float] | None: ...


@dataclass(frozen=True)
class _Ready:
    """An image in a depth and with channels that its format can hold."""

    pixels: Array
    alpha: Array | None
    metadata: Metadata


def write_image(image: WritableImage, path: Path | str, settings: WriteSettings = _DEFAULT) -> None:
    """Write a file, whole or not at all, replacing one of that name.

    Depth and alpha that the format cannot hold are reduced with a RealesrWarning. Raises
    UnsupportedImage for an unknown format, ImageTooLarge for a size beyond it, ConfigError for
    settings that contradict it, and ImageWriteError, with the reason, where writing fails; nothing
    is left behind then, nor after an interruption.
    """
    format = format_of(path, settings)
    check_settings(format, settings)
    _check_size(image, format)
    with write_errors(Path(path), ImageWriteError), atomic_write(Path(path)) as file:
        _encode(file, _ready(image, format, settings), format, settings)


def encode_image(image: WritableImage, format: str, settings: WriteSettings = _DEFAULT) -> bytes:
    """The bytes of a file of that format; raises what `write_image` does."""
    format = canonical(format)
    check_settings(format, settings)
    _check_size(image, format)
    buffer = BytesIO()
    _encode(buffer, _ready(image, format, settings), format, settings)
    return buffer.getvalue()


def to_pillow(image: WritableImage) -> pillow.Image:
    """An image of Pillow's, with metadata in its `info`.

    Modes L, LA, RGB and RGBA, I;16 for 16-bit gray and F for floating-point gray; deeper color or
    alpha is rounded to 8 bits with a RealesrWarning.
    """
    gray = image.pixels.shape[2] == 1
    pixels, alpha = image.pixels, image.alpha
    if pixels.dtype != np.uint8 and not (gray and alpha is None):
        _warn("Pillow has no deep color or alpha: the image was rounded to 8 bits")
        pixels, alpha = to_uint8(pixels), None if alpha is None else to_uint8(alpha)
    result = _to_pillow(pixels, alpha)
    metadata = _metadata(image)
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


def _check_size(image: WritableImage, format: str) -> None:
    height, width, channels = image.pixels.shape
    size = (channels + (image.alpha is not None)) * image.pixels.dtype.itemsize
    check_size(format, height, width, bytes_per_pixel=size)


def _metadata(image: WritableImage) -> Metadata:
    """What the image carries, with the sizes that are stated in it brought up to date."""
    height, width = image.pixels.shape[:2]
    block = None if image.exif is None else exif.resized(image.exif, height, width)
    xmp = None if image.xmp is None else exif.resized_xmp(image.xmp, height, width)
    return Metadata(image.icc, block, xmp, image.dpi)


def _ready(image: WritableImage, format: str, settings: WriteSettings) -> _Ready:
    pixels, alpha, metadata = image.pixels, image.alpha, _metadata(image)
    if format in ("png", "tiff"):
        if format == "png" and pixels.dtype == np.float32:
            pixels, alpha = to_uint16(pixels), None if alpha is None else to_uint16(alpha)
    else:
        if alpha is not None and format in ("jpg", "bmp"):
            _warn(f"{format} has no alpha: the image was laid over white")
            pixels, alpha = over_white(pixels, alpha), None
        if pixels.dtype != np.uint8:
            bits = pixels.dtype.itemsize * 8
            _warn(f"{format} has 8 bits a channel: the image's {bits} were rounded")
            pixels, alpha = to_uint8(pixels), None if alpha is None else to_uint8(alpha)
    if settings.strip_metadata:
        return _Ready(_without_profile(pixels, metadata.icc), alpha, Metadata())
    return _Ready(pixels, alpha, _held(metadata, format))


def _without_profile(pixels: Array, icc: bytes | None) -> Array:
    """Pixels that look the same (as nearly as sRGB can) when nothing tells their profile."""
    if icc is None or color.is_srgb(icc):
        return pixels
    managed = None
    if pixels.dtype == np.uint8:
        managed = color.converted(_to_pillow(pixels, None), icc)
    if managed is None:
        _warn("the color profile was left out: colors may look different without it")
        return pixels
    return np.asarray(managed[0])


def _held(metadata: Metadata, format: str) -> Metadata:
    """The part of the metadata that fits into the format."""
    if format == "bmp":
        if metadata.icc is not None and not color.is_srgb(metadata.icc):
            _warn("bmp holds no color profile: colors may look different without it")
        return Metadata(dpi=metadata.dpi)
    if format != "jpg":
        return metadata
    block, xmp = metadata.exif, metadata.xmp
    if block is not None and len(block) + 6 > _MAX_JPEG_SEGMENT:
        _warn("the EXIF block is larger than jpg allows and was left out")
        block = None
    if xmp is not None and len(xmp) + _XMP_MARK > _MAX_JPEG_SEGMENT:
        _warn("the XMP packet is larger than jpg allows and was left out")
        xmp = None
    return dataclasses.replace(metadata, exif=block, xmp=xmp)


def _encode(file: BinaryIO, ready: _Ready, format: str, settings: WriteSettings) -> None:
    level = 6 if settings.compress_level is None else settings.compress_level
    if format == "png":
        png.write(file, ready.pixels, ready.alpha, ready.metadata, level)
    elif format == "tiff":
        tiff_writer.write(file, ready.pixels, ready.alpha, ready.metadata, level)
    elif format == "jpg" and ready.pixels[..., 0].size > BANDED_PIXELS:
        options = _options(ready, format, settings)
        halved = ready.pixels.shape[2] == 3 and options["subsampling"] != "4:4:4"
        jpeg_writer.write(
            file,
            ready.pixels,
            lambda band: _encoded_by_pillow(band, None, format, options),
            block=16 if halved else 8,
        )
    else:
        options = _options(ready, format, settings)
        file.write(_encoded_by_pillow(ready.pixels, ready.alpha, format, options))


def _encoded_by_pillow(
    pixels: Array, alpha: Array | None, format: str, options: dict[str, Any]
) -> memoryview:
    name = {"jpg": "JPEG", "webp": "WEBP", "avif": "AVIF", "bmp": "BMP"}[format]
    pillow.init()
    if name not in pillow.SAVE:
        raise MissingDependencyError(
            f"this build of Pillow cannot write {format}: install Pillow as a wheel, or choose "
            "another format"
        )
    img = _to_pillow(pixels, alpha)
    buffer = BytesIO()
    try:
        # The encoder writes to memory first: told of a file it would write around Python, and
        # the reason of a failure (a full disk) would be lost. For AVIF Pillow parses the EXIF.
        with pil.capture_warnings() if format == "avif" else contextlib.nullcontext():
            img.save(buffer, name, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise ImageWriteError(f"the {format} encoder refuses the image: {error}") from error
    return buffer.getbuffer()


def _options(ready: _Ready, format: str, settings: WriteSettings) -> dict[str, Any]:
    metadata = ready.metadata
    options: dict[str, Any] = {}
    if format in ("jpg", "webp", "avif"):
        quality = quality_of(format, settings)
        options = {"quality": quality, "icc_profile": metadata.icc, "xmp": metadata.xmp}
        if metadata.exif is not None:
            options["exif"] = b"Exif\0\0" + metadata.exif
        # No `optimize` for jpg: Pillow's buffer for it is too small for noise at high quality.
        if format != "webp":  # Fine color detail is worth its bytes where quality is.
            options["subsampling"] = "4:4:4" if quality >= 90 else "4:2:0"
    if format == "webp":
        options["lossless"] = settings.lossless
        options["exact"] = settings.lossless
    if format == "avif" and ready.pixels.shape[2] == 1:
        del options["subsampling"]
    if format in ("jpg", "bmp"):
        dpi = metadata.dpi
        options["dpi"] = dpi if dpi is not None and max(dpi) < 65536 else (0, 0)  # not stated
    return {key: value for key, value in options.items() if value is not None}


def _to_pillow(pixels: Array, alpha: Array | None) -> pillow.Image:
    if alpha is not None:
        return pillow.fromarray(np.dstack([pixels, alpha]))
    return pillow.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _warn(text: str) -> None:
    warnings.warn(text, RealesrWarning, stacklevel=4)
