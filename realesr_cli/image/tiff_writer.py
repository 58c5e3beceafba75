"""TIFF files written: gray or RGB, alpha or not, 8 or 16 bits or float, deflated, with metadata.

Source: TIFF 6.0 and Adobe's technical note on deflate. Pillow writes no 16-bit color, hence one
writer for every depth; it goes band by band, so its memory does not grow with the image.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from realesr_cli.image import ifd
from realesr_cli.image.depth import Array, band_height, interleaved
from realesr_cli.image.exif import ORIENTATION, Metadata, place_parts, to_tiff
from realesr_cli.image.tiff import ICC, XMP

_NONE, _DEFLATE = 1, 8


@dataclass(frozen=True)
class _Strips:
    rows: int
    offsets: list[int]
    sizes: list[int]


def write(
    file: BinaryIO, pixels: Array, alpha: Array | None, metadata: Metadata, level: int = 6
) -> None:
    """Write uint8, uint16 or float32 pixels (height, width, 1 or 3) to a file that can seek.

    The byte order is that of the EXIF block, whose values are copied as they stand; level 0
    leaves the pixels uncompressed. The caller has checked that 4 GiB suffice.
    """
    order, kept, parts = _exif_of(metadata)
    mark = b"II" if order == "<" else b"MM"
    file.write(mark + struct.pack(order + "HI", 42, 0))
    strips = _write_strips(file, pixels, alpha, order, level)
    position = _padded(file)
    inner, pointers = place_parts(parts, order, position)
    file.write(inner)
    first = _padded(file)
    entries = [*kept, *pointers, *_structure(pixels, alpha, strips, order, level)]
    entries += _described(metadata, order)
    file.write(ifd.build(entries, order, first))
    file.seek(4)
    file.write(struct.pack(order + "I", first))
    file.seek(0, 2)


def _exif_of(
    metadata: Metadata,
) -> tuple[ifd.Order, list[ifd.IfdEntry], dict[int, list[ifd.IfdEntry]]]:
    if metadata.exif is None:
        return "<", [], {}
    try:
        return to_tiff(metadata.exif)
    except ifd.MalformedDirectoryError:
        return "<", [], {}


def _padded(file: BinaryIO) -> int:
    position = file.tell()
    if position % 2:  # Directories begin on even offsets (TIFF 6.0, section 2).
        file.write(b"\0")
        position += 1
    return position


def _write_strips(
    file: BinaryIO, pixels: Array, alpha: Array | None, order: ifd.Order, level: int
) -> _Strips:
    height, width, channels = pixels.shape
    kind = pixels.dtype.newbyteorder(order)
    step = min(height, band_height(width, (channels + 1) * kind.itemsize))
    strips = _Strips(step, [], [])
    for start in range(0, height, step):
        band = interleaved(pixels, alpha, start, start + step)
        if level and pixels.dtype.kind == "u":
            ahead = band.copy()
            ahead[:, 1:] -= band[:, :-1]
            band = ahead
        raw = np.ascontiguousarray(band, dtype=kind).tobytes()
        packed = zlib.compress(raw, level) if level else raw
        strips.offsets.append(file.tell())
        strips.sizes.append(len(packed))
        file.write(packed)
    return strips


def _structure(
    pixels: Array, alpha: Array | None, strips: _Strips, order: ifd.Order, level: int
) -> list[ifd.IfdEntry]:
    height, width, channels = pixels.shape
    samples = channels + (alpha is not None)
    bits = pixels.dtype.itemsize * 8
    floats = pixels.dtype.kind == "f"

    def short(tag: int, *values: int) -> ifd.IfdEntry:
        return ifd.integers(order, tag, ifd.SHORT, *values)

    def long(tag: int, *values: int) -> ifd.IfdEntry:
        return ifd.integers(order, tag, ifd.LONG, *values)

    entries = [
        long(256, width),
        long(257, height),
        short(258, *[bits] * samples),
        short(259, _DEFLATE if level else _NONE),
        short(262, 2 if channels == 3 else 1),
        long(273, *strips.offsets),
        short(ORIENTATION, 1),
        short(277, samples),
        long(278, strips.rows),
        long(279, *strips.sizes),
        short(284, 1),
        short(317, 2 if level and not floats else 1),
        short(339, *[3 if floats else 1] * samples),
    ]
    if alpha is not None:
        entries.append(short(338, 2))
    return entries


def _described(metadata: Metadata, order: ifd.Order) -> list[ifd.IfdEntry]:
    entries = []
    if metadata.dpi is not None:
        across, down = metadata.dpi
        entries += [ifd.rational(order, 282, across), ifd.rational(order, 283, down)]
        entries.append(ifd.integers(order, 296, ifd.SHORT, 2))
    if metadata.icc is not None:
        entries.append(ifd.IfdEntry(ICC, ifd.UNDEFINED, len(metadata.icc), metadata.icc))
    if metadata.xmp is not None:
        entries.append(ifd.IfdEntry(XMP, ifd.BYTE, len(metadata.xmp), metadata.xmp))
    return entries
