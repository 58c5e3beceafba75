"""Decoding with Pillow, without its warnings and its size limit."""

from __future__ import annotations

import dataclasses
import logging
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import PIL
from PIL import Image as pillow

from realesr_cli.errors import ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from realesr_cli.image import color
from realesr_cli.image import exif as exif_tags
from realesr_cli.image.headers import describe_unknown, parse_webp, stored_bits
from realesr_cli.image.pixels import Array, to_unit_floats
from realesr_cli.image.source import check_pixels
from realesr_cli.image.types import Decoded, Metadata

_RUNS_PROGRAMS = ("EPS",)
"""Pillow passes these to Ghostscript, which must never see an image of unknown origin."""

_QUIET_DECODERS = frozenset(("AVIF", "BMP", "JPEG", "MPO", "PNG", "PPM", "WEBP"))
"""Formats that cause no warnings while pixels are decoded, so that threads can decode at once."""

_MAX_SEGMENTS = 4096

_lock = threading.RLock()
_here = os.path.dirname(PIL.__file__)


@dataclass
class CapturedWarnings:
    """Pillow's warnings as notes."""

    notes: list[str] = field(default_factory=list)


@contextmanager
def capture_warnings() -> Iterator[CapturedWarnings]:
    """Collect Pillow's warnings instead of showing or raising them; others pass through.

    What Pillow logs is not printed, unless the host program has set up logging.

    Warning filters belong to the process, so only one thread at a time is in here.
    """
    captured = CapturedWarnings()
    logger, silent = logging.getLogger("PIL"), logging.NullHandler()
    with _lock:
        logger.addHandler(silent)  # Without any handler, errors are printed.
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                yield captured
        finally:
            logger.removeHandler(silent)
        for warning in caught:
            if warning.filename.startswith(_here):
                captured.notes.append(f"Pillow: {' '.join(str(warning.message).split())}")
            else:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )


def open_image(stream: BinaryIO) -> pillow.Image | None:
    """Open an image without decoding its pixels; None if no plugin knows its format.

    Goes through Pillow's public table of plugins, because `PIL.Image.open` compares the size with a
    limit that belongs to the host program. Raises UnreadableImageError for a damaged header.
    """
    prefix = stream.read(16)
    if prefix.startswith(b"\xff\xd8"):
        _check_segments(stream)
    tried: set[str] = set(_RUNS_PROGRAMS)
    for prepare in (pillow.preinit, pillow.init):
        prepare()
        for name in pillow.ID:
            if name in tried:
                continue
            tried.add(name)
            factory, accept = pillow.OPEN[name]
            try:
                accepted = accept is None or accept(prefix)
                if isinstance(accepted, str) or not accepted:
                    continue
                stream.seek(0)
                return factory(stream, "")
            except pillow.DecompressionBombError as error:
                raise ImageTooLargeError(f"{error}") from None
            except (SyntaxError, IndexError, TypeError, KeyError, struct.error):
                continue
            except MemoryError:
                raise
            except Exception as error:  # Damaged files make the plugins raise nearly anything.
                raise UnreadableImageError(f"the header is damaged: {_line(error)}") from error
    return None


def _check_segments(stream: BinaryIO) -> None:
    """Raise UnreadableImageError for a JPEG with more segments before its pixels than is sane.

    Pillow would go through millions of them.
    """
    stream.seek(2)
    for _ in range(_MAX_SEGMENTS):
        head = stream.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] == 0xDA:  # damaged, or where pixels start
            return
        stream.seek(max(0, int.from_bytes(head[2:], "big") - 2), 1)
    raise UnreadableImageError(f"the header is damaged: it has over {_MAX_SEGMENTS} segments")


def _check_embedded(data: bytes, limit: int | None) -> None:
    """Raise ImageTooLargeError for a PNG inside an icon that is larger than the limit.

    The size that an icon states may be wrong, and Pillow decodes what it finds.
    """
    at = data.find(b"\x89PNG\r\n\x1a\n")
    while at >= 0 and at + 24 <= len(data):
        width, height = struct.unpack_from(">II", data, at + 16)
        check_pixels(height, width, limit)
        at = data.find(b"\x89PNG\r\n\x1a\n", at + 8)


def load(image: pillow.Image) -> None:
    """Decode the pixels. Raises UnreadableImageError with the reason if that fails."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # Damaged files make the plugins raise nearly anything.
        raise UnreadableImageError(f"the pixels cannot be decoded: {_line(error)}") from error


def _line(error: Exception) -> str:
    """Return an error's message on one line of bounded length."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def decode(
    data: bytes, limit: int | None, *, sample_bits: int = 8, metadata: Metadata | None = None
) -> Decoded:
    """Decode the first frame of any format that Pillow reads.

    `sample_bits` is the depth of gray in the file if that is below 8 bits. `metadata` replaces what
    Pillow finds. Raises UnreadableImageError, UnsupportedImageError, or ImageTooLargeError above
    `limit` pixels.
    """
    with capture_warnings() as captured:
        image = open_image(BytesIO(data))
        if image is None:
            raise UnreadableImageError(describe_unknown(data))
        check_pixels(image.height, image.width, limit)
        if image.format in ("ICO", "ICNS"):
            _check_embedded(data, limit)
        frames = () if image.format == "TIFF" else _frame_notes(image)
        if image.format not in _QUIET_DECODERS:
            load(image)
    load(image)
    found = read_metadata(image) if metadata is None else metadata
    planes = to_planes(image, found.icc, sample_bits=sample_bits)
    notes = [*frames, *planes.notes, *captured.notes]
    stored = stored_bits(data)
    if stored > 8 and planes.pixels.dtype == np.uint8:
        notes.append(f"{stored} bits per channel reduced to 8")
    found = dataclasses.replace(found, icc=planes.icc)
    webp = parse_webp(data)
    lossless = webp is not None and webp.lossless
    return Decoded(
        planes.pixels, planes.alpha, found, image.format, tuple(notes), lossless=lossless
    )


def _frame_notes(image: pillow.Image) -> tuple[str, ...]:
    what = "first frame"
    try:
        if image.format == "GIF":  # Counting its frames means going through all of them.
            return (f"{what} taken",) if getattr(image, "is_animated", False) else ()
        frames = int(getattr(image, "n_frames", 1))
        image.seek(0)
    except Exception:  # A later frame is damaged; the first one is all that is needed.
        return (f"{what} taken",)
    if image.format == "MPO":  # Phones store depth and brightness maps after the main image.
        what = "main image"
    return (f"{what} of {frames} taken",) if frames > 1 else ()


def read_metadata(image: pillow.Image) -> Metadata:
    """Return profile, EXIF, XMP and resolution of a loaded image."""
    info = image.info
    exif = info.get("exif")
    if exif is None and "Raw profile type exif" in info:
        exif = parse_raw_profile(str(info["Raw profile type exif"]))
    exif = exif_tags.without_prefix(exif)
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode("utf-8")
    dpi = parse_dpi(info.get("dpi"))
    if image.format in ("JPEG", "MPO") and info.get("jfif_unit") not in (1, 2):
        # Pillow makes up 72 dpi where neither JFIF nor EXIF states a resolution.
        dpi = parse_dpi(exif_tags.dpi_of(exif))
    return Metadata(info.get("icc_profile") or None, exif, xmp or None, dpi)


def parse_raw_profile(text: str) -> bytes | None:
    """Parse EXIF as ImageMagick writes it into a PNG text: three lines, then hexadecimal digits."""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:])) or None
    except ValueError:
        return None


def parse_dpi(dpi: Any) -> tuple[float, float] | None:
    """Return a resolution in pixels per inch; None if it is not stated or not plausible."""
    try:
        across, down = float(dpi[0]), float(dpi[1])
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return None
    # 0 and 1 stand for "not stated" in the headers of JFIF and BMP.
    return (across, down) if 1 < across < 1e6 and 1 < down < 1e6 else None


@dataclass(frozen=True)
class Planes:
    """Pixels (height, width, 1 or 3), alpha, the profile that they are in, and notes."""

    pixels: Array
    alpha: Array | None
    icc: bytes | None
    notes: tuple[str, ...] = ()


def to_planes(image: pillow.Image, icc: bytes | None, *, sample_bits: int = 8) -> Planes:
    """Return the arrays of a loaded image of any mode.

    `sample_bits` is the depth of gray in the file if that is below 8 bits. Raises
    UnsupportedImageError for modes whose values have no known range.
    """
    mode = image.mode
    if mode in ("1", "L"):
        gray = np.asarray(image.convert("L") if mode == "1" else image)
        return Planes(gray[..., None], _key_alpha(image, gray[..., None], sample_bits), icc)
    if mode.startswith("I;16"):
        gray = np.asarray(image).astype(np.uint16)
        return Planes(gray[..., None], _key_alpha(image, gray[..., None], 16), icc)
    if mode == "F":
        return Planes(to_unit_floats(np.asarray(image))[..., None], None, icc)
    if mode in ("LA", "La"):
        both = np.asarray(image.convert("LA"))
        return Planes(_own(both[..., :1]), _own(both[..., 1]), icc)
    if mode in ("P", "PA"):
        return _convert_palette(image, icc)
    if mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        return _convert_foreign(image, icc)
    if mode in ("RGB", "RGBA", "RGBX", "RGBa"):
        return _convert_color(image, icc)
    raise UnsupportedImageError(
        f"pixels of Pillow's mode {mode!r} have no known range; convert the image to 8 or 16 bits"
    )


def _own(array: Array) -> Array:
    return np.ascontiguousarray(array)


def _key_alpha(image: pillow.Image, pixels: Array, sample_bits: int) -> Array | None:
    """Return alpha of an image that declares one of its colors transparent."""
    key = image.info.get("transparency")
    if key is None or isinstance(key, bytes):
        return None
    if sample_bits in (2, 4):  # Pillow scales the pixels, but not the key.
        key = key * 255 // (2**sample_bits - 1)
    elif sample_bits == 1:  # Some versions scale this one.
        key = 255 if key else 0
    clear = (pixels == np.array(key)).all(-1)
    top = np.iinfo(pixels.dtype).max
    return np.where(clear, 0, top).astype(pixels.dtype)


def has_transparency(image: pillow.Image) -> bool:
    """Return whether an image has any alpha. Raises UnreadableImageError without its palette."""
    if image.mode == "P" and image.palette is None:
        raise UnreadableImageError("the palette is missing")
    return image.has_transparency_data


def _convert_palette(image: pillow.Image, icc: bytes | None) -> Planes:
    clear = has_transparency(image)
    colors = np.asarray(image.convert("RGBA" if clear else "RGB"))
    alpha = _own(colors[..., 3]) if clear else None
    colors = colors[..., :3]
    if (colors == colors[..., :1]).all():
        colors = colors[..., :1]
    return Planes(_own(colors), alpha, icc)


def _convert_foreign(image: pillow.Image, icc: bytes | None) -> Planes:
    managed = color.convert_to_srgb(image, icc)
    if managed is not None:
        result, note = managed
        return Planes(np.asarray(result), None, None, (note,))
    if image.mode == "YCbCr":
        return Planes(np.asarray(image.convert("RGB")), None, icc)
    if image.mode == "LAB":
        raise UnsupportedImageError("this build of Pillow cannot convert Lab colors")
    note = f"{image.mode} converted to sRGB without a profile: colors are approximate"
    return Planes(np.asarray(image.convert("RGB")), None, None, (note,))


def _convert_color(image: pillow.Image, icc: bytes | None) -> Planes:
    alpha = None
    if image.mode in ("RGBA", "RGBa"):
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
    notes: tuple[str, ...] = ()
    rgb = image.convert("RGB") if image.mode != "RGB" else image
    if alpha is None:
        alpha = _key_alpha(image, np.asarray(rgb), 8)
    if color.needs_conversion(icc):
        managed = color.convert_to_srgb(rgb, icc)
        if managed is not None:
            rgb, icc = managed[0], None
            notes = ("colors converted to sRGB: the profile has lookup tables and no curves",)
    return Planes(np.asarray(rgb), alpha, icc, notes)
