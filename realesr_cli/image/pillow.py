"""Pillow without its warnings and its size limit: images opened, and turned into arrays."""

from __future__ import annotations

import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import PIL
from PIL import Image as pillow

from realesr_cli.errors import ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from realesr_cli.image import color
from realesr_cli.image.depth import Array, unit_floats
from realesr_cli.image.exif import Metadata, without_prefix

_RUNS_PROGRAMS = ("EPS",)
"""Pillow hands these to Ghostscript, which an image from anywhere shall not reach."""

QUIET_DECODERS = frozenset(("AVIF", "BMP", "JPEG", "MPO", "PNG", "PPM", "WEBP"))
"""Formats whose decoders give no warnings once they are open, so that threads decode at a time."""

_lock = threading.RLock()
_here = os.path.dirname(PIL.__file__)


@dataclass
class CapturedWarnings:
    """What Pillow warned of while it was listened to."""

    notes: list[str] = field(default_factory=list)


@contextmanager
def capture_warnings() -> Iterator[CapturedWarnings]:
    """Collect Pillow's warnings instead of showing or raising them; others pass through.

    Filters of warnings belong to the process, so one thread at a time is in here.
    """
    heard = CapturedWarnings()
    with _lock:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield heard
        for warning in caught:
            if warning.filename.startswith(_here):
                heard.notes.append(f"the reader says: {' '.join(str(warning.message).split())}")
            else:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )


def open_quietly(stream: BinaryIO) -> pillow.Image | None:
    """An image with its header read and its pixels not yet; None where no plugin knows it.

    Goes through Pillow's public table of plugins, as `PIL.Image.open` compares the size with a
    limit that belongs to the host program.
    """
    prefix = stream.read(16)
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
                raise UnreadableImageError(f"its header is damaged: {error}") from error
    return None


def metadata(image: pillow.Image) -> Metadata:
    """Profile, EXIF, XMP and resolution as Pillow read them. The pixels must be loaded."""
    info = image.info
    exif = info.get("exif")
    if exif is None and "Raw profile type exif" in info:
        lines = str(info["Raw profile type exif"]).split("\n")[3:]
        try:
            exif = bytes.fromhex("".join(lines))
        except ValueError:
            exif = None
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode("utf-8")
    icc = info.get("icc_profile") or None
    return Metadata(icc, without_prefix(exif), xmp or None, _resolution(info.get("dpi")))


def _resolution(dpi: Any) -> tuple[float, float] | None:
    try:
        across, down = float(dpi[0]), float(dpi[1])
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return None
    # 0 and 1 stand for "not stated" in the headers of JFIF and BMP.
    return (across, down) if 1 < across < 1e6 and 1 < down < 1e6 else None


@dataclass(frozen=True)
class Planes:
    """Pixels (height, width, 1 or 3), alpha, the profile they are in, and notes."""

    pixels: Array
    alpha: Array | None
    icc: bytes | None
    notes: tuple[str, ...] = ()


def planes(image: pillow.Image, icc: bytes | None, *, sample_bits: int = 8) -> Planes:
    """The arrays of a loaded image of any mode.

    `sample_bits` is the depth of gray in the file where that is below 8 bits. Raises
    UnsupportedImage for modes that hold no image in a known range.
    """
    mode = image.mode
    if mode in ("1", "L"):
        gray = np.asarray(image.convert("L") if mode == "1" else image)
        return Planes(gray[..., None], _keyed(image, gray[..., None], sample_bits), icc)
    if mode.startswith("I;16"):
        gray = np.asarray(image).astype(np.uint16)
        return Planes(gray[..., None], _keyed(image, gray[..., None], 16), icc)
    if mode == "F":
        return Planes(unit_floats(np.asarray(image))[..., None], None, icc)
    if mode in ("LA", "La"):
        both = np.asarray(image.convert("LA"))
        return Planes(_own(both[..., :1]), _own(both[..., 1]), icc)
    if mode in ("P", "PA"):
        return _palette(image, icc)
    if mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        return _foreign(image, icc)
    if mode in ("RGB", "RGBA", "RGBX", "RGBa"):
        return _color(image, icc)
    raise UnsupportedImageError(
        f"pixels of Pillow's mode {mode!r} have no known range: convert to 8-bit or 16-bit first"
    )


def _own(array: Array) -> Array:
    return np.ascontiguousarray(array)


def _keyed(image: pillow.Image, pixels: Array, sample_bits: int) -> Array | None:
    """Alpha of an image one of whose colors is declared transparent."""
    key = image.info.get("transparency")
    if key is None or isinstance(key, bytes):
        return None
    if sample_bits in (2, 4):  # Pillow stretches the pixels, and leaves the key as in the file.
        key = key * 255 // (2**sample_bits - 1)
    elif sample_bits == 1:  # Some versions stretch this one.
        key = 255 if key else 0
    clear = (pixels == np.array(key)).all(-1)
    top = np.iinfo(pixels.dtype).max
    return np.where(clear, 0, top).astype(pixels.dtype)


def _palette(image: pillow.Image, icc: bytes | None) -> Planes:
    clear = image.has_transparency_data
    colors = np.asarray(image.convert("RGBA" if clear else "RGB"))
    alpha = _own(colors[..., 3]) if clear else None
    colors = colors[..., :3]
    if (colors == colors[..., :1]).all():
        colors = colors[..., :1]
    return Planes(_own(colors), alpha, icc)


def _foreign(image: pillow.Image, icc: bytes | None) -> Planes:
    managed = color.converted(image, icc)
    if managed is not None:
        result, note = managed
        return Planes(np.asarray(result), None, None, (note,))
    if image.mode == "YCbCr":
        return Planes(np.asarray(image.convert("RGB")), None, icc)
    if image.mode == "LAB":
        raise UnsupportedImageError("Lab colors cannot be converted by this build of Pillow")
    note = f"{image.mode} converted to sRGB without a profile: colors are approximate"
    return Planes(np.asarray(image.convert("RGB")), None, None, (note,))


def _color(image: pillow.Image, icc: bytes | None) -> Planes:
    alpha = None
    if image.mode in ("RGBA", "RGBa"):
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
    notes: tuple[str, ...] = ()
    rgb = image.convert("RGB") if image.mode != "RGB" else image
    if alpha is None:
        alpha = _keyed(image, np.asarray(rgb), 8)
    if color.needs_conversion(icc):
        managed = color.converted(rgb, icc)
        if managed is not None:
            rgb, icc = managed[0], None
            notes = ("colors converted to sRGB: the profile has tables and no curves",)
    return Planes(np.asarray(rgb), alpha, icc, notes)


def load(image: pillow.Image) -> None:
    """Decode the pixels. Raises UnreadableImage, naming the reason, where that fails."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # Damaged files make the plugins raise nearly anything.
        raise UnreadableImageError(f"its pixels cannot be decoded: {error}") from error
