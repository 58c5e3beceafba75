"""EXIF: its orientation applied to the pixels, stale sizes and thumbnails corrected.

Source: Exif 2.32 section 4.6 (tags). The block is edited in place, so that everything else in it,
including maker notes with their absolute offsets, stays byte for byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from realesr_cli.image import ifd, xmp
from realesr_cli.image.pixels import Array

ORIENTATION = 274
EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965

MAX_BYTES = 2**23
"""A larger EXIF block is left out; those of cameras, with previews, have some 100 KiB."""

_WIDTHS = (256, 40962)
_HEIGHTS = (257, 40963)
_THUMBNAIL_AT, _THUMBNAIL_SIZE = 513, 514
_PREFIX = b"Exif\0\0"

# Tags that describe how a TIFF stores its pixels, or that are carried separately (orientation,
# resolution, XMP, profile). The other tags of a TIFF describe the image.
# fmt: off
_TIFF_STRUCTURE = frozenset((
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281,
    282, 283, 284, 288, 289, 290, 291, 292, 293, 296, 301, 317, 318, 319, 320, 321, 322, 323,
    324, 325, 330, 332, 333, 334, 336, 338, 339, 340, 341, 342, 343, 346, 347, 400, 512, 513,
    514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 559, 700, 34377, 34675, 37724,
    EXIF_IFD, GPS_IFD, INTEROP_IFD,
))
# fmt: on
_RAW_TAGS = frozenset((33421, 33422, *range(50706, 52600)))
"""Tags of raw files (TIFF/EP, DNG), by which readers would take a result for one."""

_MAX_TIFF_VALUE = 32_768
_DESCRIPTION = 270


def orient(array: Array, orientation: int) -> Array:
    """Return pixels (height, width, ...) turned upright from an EXIF orientation of 1 to 8.

    Source: Exif 2.32 section 4.6.4, tag 274. Other values leave the pixels unchanged.
    """
    if orientation in (5, 7):
        array = array.swapaxes(0, 1)
    turned = {
        2: array[:, ::-1],
        3: array[::-1, ::-1],
        4: array[::-1],
        6: np.rot90(array, -1),
        7: array[::-1, ::-1],
        8: np.rot90(array),
    }.get(orientation, array)
    return np.ascontiguousarray(turned)


def swaps_sides(orientation: int) -> bool:
    """Return whether an orientation exchanges height and width."""
    return orientation in (5, 6, 7, 8)


def without_prefix(exif: bytes | None) -> bytes | None:
    """Return the block from its byte order mark on, or None if it is empty."""
    while exif and exif.startswith(_PREFIX):
        exif = exif[len(_PREFIX) :]
    return exif or None


def orientation_of(exif: bytes | None, packet: bytes | None) -> int:
    """Return the orientation that EXIF states, else that of the XMP packet, else 1.

    Damaged EXIF states none.
    """
    value = 0
    if exif is not None:
        try:
            block = ifd.parse(exif)
            value = block.number(block.directory(block.first), ORIENTATION, 0)
        except ifd.MalformedDirectoryError:
            value = 0
    value = value or xmp.orientation_of(packet)
    return value if 1 <= value <= 8 else 1


def dpi_of(exif: bytes | None) -> tuple[float, float] | None:
    """Return the resolution that EXIF states in pixels per inch; None if it is damaged."""
    try:
        block = ifd.parse(exif or b"")
        return resolution(block, block.directory(block.first))
    except ifd.MalformedDirectoryError:
        return None


def resolution(block: ifd.IfdBlock, main: ifd.Directory) -> tuple[float, float] | None:
    """Return the resolution that a directory states in pixels per inch; None if it states none."""
    unit = {2: 1.0, 3: 2.54}.get(block.number(main, 296, 2))
    across, down = block.ratio(main, 282), block.ratio(main, 283)
    return (across * unit, down * unit) if unit and across and down else None


def make_upright(exif: bytes) -> bytes:
    """Return the block with orientation 1 and without its thumbnail.

    Raises ifd.MalformedDirectoryError if the block is damaged.
    """
    if len(exif) > MAX_BYTES:
        raise ifd.MalformedDirectoryError(f"it has {len(exif):,} bytes")
    data = bytearray(exif)
    block = ifd.parse(exif)
    main = block.directory(block.first)
    if ORIENTATION in main:
        _put(data, block, main.entries[ORIENTATION], ifd.SHORT, 1)
    if main.next and not block.big:
        _drop_thumbnail(data, block, main)
    return bytes(data)


def resize(exif: bytes, height: int, width: int) -> bytes:
    """Return the block with the sizes that it states set to these.

    A damaged block is returned unchanged.
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


def from_tiff(block: ifd.IfdBlock, main: ifd.Directory) -> bytes | None:
    """Return the tags of a TIFF that describe the image as an EXIF block; None if there are none.

    Raises ifd.MalformedDirectoryError if a directory inside is damaged.
    """
    order = block.order
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(order + "HI", 42, 8)
    kept, parts = _portable(block, main)
    if not kept and not parts:
        return None
    return head + _nest(kept, parts, order, len(head))


def to_tiff(exif: bytes) -> tuple[ifd.Order, list[ifd.IfdEntry], dict[int, list[ifd.IfdEntry]]]:
    """Return byte order, tags of the main directory and of the inner ones, for writing a TIFF.

    Raises ifd.MalformedDirectoryError if the block is damaged.
    """
    block = ifd.parse(exif)
    kept, parts = _portable(block, block.directory(block.first))
    return block.order, kept, parts


def place_parts(
    parts: dict[int, list[ifd.IfdEntry]], order: ifd.Order, position: int, *, big: bool = False
) -> tuple[bytes, list[ifd.IfdEntry]]:
    """Lay out inner directories from an offset on; return their bytes and the entries that point
    to them. The interoperability directory belongs to that of EXIF."""
    data, pointers = b"", []
    kind = ifd.LONG8 if big else ifd.LONG
    inner = dict(parts)
    interop = inner.pop(INTEROP_IFD, None)
    if interop is not None:
        pointer = ifd.integers(order, INTEROP_IFD, kind, position)
        data += ifd.build(interop, order, position, big=big)
        inner[EXIF_IFD] = [*inner.get(EXIF_IFD, ()), pointer]
    for tag, entries in inner.items():
        pointers.append(ifd.integers(order, tag, kind, position + len(data)))
        data += ifd.build(entries, order, position + len(data), big=big)
    return data, pointers


def _nest(
    kept: list[ifd.IfdEntry], parts: dict[int, list[ifd.IfdEntry]], order: ifd.Order, position: int
) -> bytes:
    # The size of the main directory does not depend on where the inner ones lie, so it is built
    # twice: first to measure it.
    _, pointers = place_parts(parts, order, 0)
    size = len(ifd.build([*kept, *pointers], order, position))
    data, pointers = place_parts(parts, order, position + size)
    return ifd.build([*kept, *pointers], order, position) + data


def _portable(
    block: ifd.IfdBlock, main: ifd.Directory
) -> tuple[list[ifd.IfdEntry], dict[int, list[ifd.IfdEntry]]]:
    """Select the tags that describe the image, of the main directory and of the inner ones."""
    kept = [
        entry
        for entry in main.entries.values()
        if entry.tag not in _TIFF_STRUCTURE
        and entry.tag not in _RAW_TAGS
        and entry.kind <= 12
        and entry.size <= _MAX_TIFF_VALUE
        and not (entry.tag == _DESCRIPTION and _describes_layout(entry.data))
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
    if sum(entry.size for part in (kept, *parts.values()) for entry in part) > MAX_BYTES:
        raise ifd.MalformedDirectoryError("its values overlap")
    return kept, parts


def _describes_layout(description: bytes) -> bool:
    """Return whether tifffile, ImageJ or OME wrote an ImageDescription.

    It describes the layout of the pixels, which readers would believe of the enlarged image too.
    """
    if description.startswith((b"ImageJ=", b"<?xml")):
        return True
    return description.startswith(b"{") and b'"shape":' in description


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
    """Replace the value of an entry by one SHORT or LONG, in place."""
    head, size = ("HHQ8x", 20) if block.big else ("HHI4x", 12)
    if entry.position + size > len(data):
        raise ifd.MalformedDirectoryError("it ends inside its last entry")
    form = {ifd.SHORT: "H", ifd.LONG: "I"}[kind]
    struct.pack_into(block.order + head, data, entry.position, entry.tag, kind, 1)
    struct.pack_into(block.order + form, data, entry.position + (12 if block.big else 8), value)


def _drop_thumbnail(data: bytearray, block: ifd.IfdBlock, main: ifd.Directory) -> None:
    """Unlink the second directory and blank the bytes that only it uses."""
    end_of_main = main.position + main.size
    if end_of_main > len(data):
        raise ifd.MalformedDirectoryError("it ends inside its main directory")
    used = _cover(len(data), [(0, 8), *_spans(_directories(block))])
    stale: NDArray[np.bool_] = np.zeros_like(used)
    try:
        second = block.directory(main.next)
        start = block.number(second, _THUMBNAIL_AT, 0)
        size = block.number(second, _THUMBNAIL_SIZE, 0)
        stale = _cover(len(data), [*_spans([second]), (start, start + size)]) & ~used
    except ifd.MalformedDirectoryError:
        pass
    np.frombuffer(data, np.uint8)[stale] = 0
    struct.pack_into(block.order + "I", data, end_of_main - 4, 0)
    # Only bytes known to be stale are cut off: maker notes may point at bytes that no tag covers.
    kept = np.flatnonzero(~stale)
    del data[int(kept[-1]) + 1 if len(kept) else 0 :]


def _spans(directories: Iterable[ifd.Directory]) -> Iterator[tuple[int, int]]:
    """Yield start and end of each directory and of each of its values."""
    for directory in directories:
        yield directory.position, directory.position + directory.size
        for entry in directory.entries.values():
            yield entry.data_position, entry.data_position + entry.size


def _cover(length: int, spans: Iterable[tuple[int, int]]) -> NDArray[np.bool_]:
    """Return which bytes lie in a span. Its cost does not grow with the overlap of the spans."""
    limits = np.clip(np.array(list(spans), dtype=np.int64), 0, length)
    depth = np.zeros(length + 1, np.int16)  # at most three directories of 4096 entries
    np.add.at(depth, limits[:, 0], 1)
    np.subtract.at(depth, limits[:, 1], 1)
    return np.asarray(np.cumsum(depth, out=depth)[:-1] > 0)
