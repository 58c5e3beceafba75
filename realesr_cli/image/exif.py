"""EXIF and XMP: the orientation taken out of them, stale sizes and thumbnails put right.

Sources: Exif 2.32 section 4.6 (tags) and XMP part 2 (the tiff: and exif: name spaces). The EXIF
block is changed where it lies, so that everything else in it, maker notes with their absolute
offsets included, stays byte for byte.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realesr_cli.image import ifd
from realesr_cli.image.depth import Array

ORIENTATION = 274
EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965

_WIDTHS = (256, 40962)
_HEIGHTS = (257, 40963)
_THUMBNAIL_AT, _THUMBNAIL_SIZE = 513, 514
_PREFIX = b"Exif\0\0"

# What describes how a TIFF stores its pixels, or is carried apart (orientation, resolution, XMP,
# profile); the rest of a TIFF's tags describes the image.
# fmt: off
_TIFF_STRUCTURE = frozenset((
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281,
    282, 283, 284, 288, 289, 290, 291, 292, 293, 296, 301, 317, 318, 319, 320, 321, 322, 323,
    324, 325, 330, 332, 333, 334, 336, 338, 339, 340, 341, 342, 343, 346, 347, 400, 512, 513,
    514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 559, 700, 34377, 34675, 37724,
    EXIF_IFD, GPS_IFD, INTEROP_IFD,
))
# fmt: on
_MAX_TIFF_VALUE = 32_768


@dataclass(frozen=True)
class Metadata:
    """What a file carries beside its pixels; `dpi` is pixels per inch across and down."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


def orient(array: Array, orientation: int) -> Array:
    """The pixels (height, width, ...) turned as an EXIF orientation of 1 to 8 says.

    Source: Exif 2.32 section 4.6.4, tag 274; other values leave the image as it is.
    """
    if orientation in (5, 7):
        array = array.swapaxes(0, 1)
    turned = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1],
        8: lambda a: np.rot90(a, 1),
    }.get(orientation, lambda a: a)(array)
    return np.ascontiguousarray(turned)


def swaps_sides(orientation: int) -> bool:
    """Whether an orientation exchanges height and width."""
    return orientation in (5, 6, 7, 8)


def without_prefix(exif: bytes | None) -> bytes | None:
    """The block from its byte order mark on, or None where nothing is there."""
    while exif and exif.startswith(_PREFIX):
        exif = exif[len(_PREFIX) :]
    return exif or None


def orientation_of(exif: bytes | None, xmp: bytes | None) -> int:
    """The orientation EXIF states, else XMP's, else 1. Damaged EXIF states nothing."""
    value = 0
    if exif is not None:
        try:
            block = ifd.parse(exif)
            value = block.number(block.directory(block.first), ORIENTATION, 0)
        except ifd.MalformedDirectoryError:
            value = 0
    if value == 0 and xmp is not None:
        match = _xmp_pattern(b"tiff:Orientation").search(xmp)
        value = int(match[2]) if match else 0
    return value if 1 <= value <= 8 else 1


def upright(exif: bytes) -> bytes:
    """The block with orientation 1 and no thumbnail.

    Raises ifd.Malformed where the block is damaged.
    """
    data = bytearray(exif)
    block = ifd.parse(exif)
    main = block.directory(block.first)
    if ORIENTATION in main:
        _put(data, block, main.entries[ORIENTATION], ifd.SHORT, 1)
    if main.next and not block.big:
        _drop_thumbnail(data, block, main)
    return bytes(data)


def resized(exif: bytes, height: int, width: int) -> bytes:
    """The block with the sizes it states, where it states any, set to these.

    A damaged block is returned as it is.
    """
    data = bytearray(exif)
    try:
        block = ifd.parse(exif)
        for directory in _directories(block):
            for tags, value in ((_WIDTHS, width), (_HEIGHTS, height)):
                for tag in tags:
                    if tag in directory:
                        entry = directory.entries[tag]
                        short = entry.kind == ifd.SHORT and value < 65536
                        _put(data, block, entry, ifd.SHORT if short else ifd.LONG, value)
    except ifd.MalformedDirectoryError:
        return exif
    return bytes(data)


def upright_xmp(xmp: bytes) -> bytes:
    """The packet with orientation 1, where it states one."""
    return _xmp_pattern(b"tiff:Orientation").sub(rb"\g<1>1", xmp)


def resized_xmp(xmp: bytes, height: int, width: int) -> bytes:
    """The packet with the sizes it states, where it states any, set to these."""
    for names, value in (
        ((b"tiff:ImageWidth", b"exif:PixelXDimension"), width),
        ((b"tiff:ImageLength", b"exif:PixelYDimension"), height),
    ):
        for name in names:
            xmp = _xmp_pattern(name).sub(rb"\g<1>%d" % value, xmp)
    return xmp


def from_tiff(block: ifd.IfdBlock, main: ifd.Directory) -> bytes | None:
    """The tags of a TIFF that describe the image, as an EXIF block; None where there are none.

    Raises ifd.Malformed where a directory inside is damaged.
    """
    order = block.order
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(order + "HI", 42, 8)
    kept, parts = _portable(block, main)
    if not kept and not parts:
        return None
    return head + _nested(kept, parts, order, len(head))


def to_tiff(exif: bytes) -> tuple[ifd.Order, list[ifd.IfdEntry], dict[int, list[ifd.IfdEntry]]]:
    """Byte order, tags of the main directory and of those inside it, ready to go into a TIFF.

    Raises ifd.Malformed where the block is damaged.
    """
    block = ifd.parse(exif)
    kept, parts = _portable(block, block.directory(block.first))
    return block.order, kept, parts


def place_parts(
    parts: dict[int, list[ifd.IfdEntry]], order: ifd.Order, position: int
) -> tuple[bytes, list[ifd.IfdEntry]]:
    """Inner directories laid out from an offset on, and the entries that point to them.

    The directory for interoperability hangs below that of EXIF.
    """
    data, pointers = b"", []
    inner = dict(parts)
    interop = inner.pop(INTEROP_IFD, None)
    if interop is not None:
        pointer = ifd.integers(order, INTEROP_IFD, ifd.LONG, position)
        data += ifd.build(interop, order, position)
        inner[EXIF_IFD] = [*inner.get(EXIF_IFD, ()), pointer]
    for tag, entries in inner.items():
        pointers.append(ifd.integers(order, tag, ifd.LONG, position + len(data)))
        data += ifd.build(entries, order, position + len(data))
    return data, pointers


def _nested(
    kept: list[ifd.IfdEntry], parts: dict[int, list[ifd.IfdEntry]], order: ifd.Order, position: int
) -> bytes:
    # The main directory's own size does not depend on where the inner ones lie, so it is built
    # twice: once to be measured.
    _, pointers = place_parts(parts, order, 0)
    size = len(ifd.build([*kept, *pointers], order, position))
    data, pointers = place_parts(parts, order, position + size)
    return ifd.build([*kept, *pointers], order, position) + data


def _portable(
    block: ifd.IfdBlock, main: ifd.Directory
) -> tuple[list[ifd.IfdEntry], dict[int, list[ifd.IfdEntry]]]:
    kept = [
        entry
        for entry in main.entries.values()
        if entry.tag not in _TIFF_STRUCTURE
        and entry.kind <= 12
        and len(entry.data) <= _MAX_TIFF_VALUE
    ]
    parts = {}
    for tag, directory in _inner(block, main):
        inside = [
            entry
            for entry in directory.entries.values()
            if entry.kind <= 12 and entry.tag != INTEROP_IFD
        ]
        if inside:
            parts[tag] = inside
    return kept, parts


def _inner(block: ifd.IfdBlock, main: ifd.Directory) -> Iterator[tuple[int, ifd.Directory]]:
    for tag in (EXIF_IFD, GPS_IFD):
        position = block.number(main, tag, 0)
        if not position:
            continue
        directory = block.directory(position)
        yield tag, directory
        below = block.number(directory, INTEROP_IFD, 0)
        if tag == EXIF_IFD and below:
            yield INTEROP_IFD, block.directory(below)


def _directories(block: ifd.IfdBlock) -> Iterator[ifd.Directory]:
    main = block.directory(block.first)
    yield main
    for _, directory in _inner(block, main):
        yield directory


def _put(data: bytearray, block: ifd.IfdBlock, entry: ifd.IfdEntry, kind: int, value: int) -> None:
    form = {ifd.SHORT: "H", ifd.LONG: "I"}[kind]
    if block.big:
        struct.pack_into(block.order + "HHQ8x", data, entry.position, entry.tag, kind, 1)
        struct.pack_into(block.order + form, data, entry.position + 12, value)
        return
    struct.pack_into(block.order + "HHI4x", data, entry.position, entry.tag, kind, 1)
    struct.pack_into(block.order + form, data, entry.position + 8, value)


def _drop_thumbnail(data: bytearray, block: ifd.IfdBlock, main: ifd.Directory) -> None:
    used = np.zeros(len(data) + 1, bool)
    used[:8] = True
    for directory in _directories(block):
        _mark(used, directory)
    try:
        second = block.directory(main.next)
        stale: NDArray[np.bool_] = np.zeros_like(used)
        _mark(stale, second)
        start = block.number(second, _THUMBNAIL_AT, 0)
        stale[start : start + block.number(second, _THUMBNAIL_SIZE, 0)] = True
    except ifd.MalformedDirectoryError:
        stale = np.zeros_like(used)
    np.frombuffer(data, np.uint8)[(stale & ~used)[:-1]] = 0
    struct.pack_into(block.order + "I", data, main.position + main.size - 4, 0)
    # Only what is known to be stale is cut off: maker notes may point at bytes nobody else names.
    free = (stale & ~used)[: len(data)]
    end = len(data)
    while end and free[end - 1]:
        end -= 1
    del data[end:]


def _mark(used: NDArray[np.bool_], directory: ifd.Directory) -> None:
    used[directory.position : directory.position + directory.size] = True
    for entry in directory.entries.values():
        used[entry.data_position : entry.data_position + len(entry.data)] = True


def _xmp_pattern(name: bytes) -> re.Pattern[bytes]:
    # As an attribute (name="6") and as an element (<name>6<).
    return re.compile(rb"(" + name + rb"""(?:\s*=\s*["']|>\s*))(\d+)""")
