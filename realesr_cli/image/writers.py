"""Writers of PNG, TIFF and large JPEG that go band by band, so that memory does not grow with size.

Sources: PNG specification, third edition (W3C), sections 5 (chunks) and 9 (filters); TIFF 6.0 and
Adobe's technical note on deflate; ITU-T T.81 (JPEG) B.2.1, B.2.2 and E.1.4.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from realesr_cli.image import exif, ifd, tiff
from realesr_cli.image.pixels import Array, band_height, interleave
from realesr_cli.image.png import INCH, SIGNATURE, XMP_KEYWORD
from realesr_cli.image.types import Encodable, Metadata, TextChunks

_PNG_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_TIFF_UNCOMPRESSED, _TIFF_DEFLATE = 1, 8
_JPG_MAX_INTERVAL = 65_535
_JPG_BAND_PIXELS = 4_000_000
_JPG_SCAN, _JPG_FRAME = 0xDA, (0xC0, 0xC1)


# -- PNG ---------------------------------------------------------------------------------------


def write_png(file: BinaryIO, image: Encodable, level: int = 6) -> None:
    """Write a PNG of uint8 or uint16 pixels, deflated with `level` (0 to 9)."""
    height, width, channels = image.pixels.shape
    channels += image.alpha is not None
    bits = image.pixels.dtype.itemsize * 8
    color_type = _PNG_COLOR_TYPES[channels]
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    file.write(SIGNATURE + _chunk(b"IHDR", header))
    for kind, content in _metadata_chunks(image.metadata):
        file.write(_chunk(kind, content))
    pixel_bytes = channels * bits // 8
    above = np.zeros(width * pixel_bytes, np.uint8)
    deflate = zlib.compressobj(level)
    step = band_height(width, pixel_bytes)
    for start in range(0, height, step):
        band = interleave(image.pixels, image.alpha, start, start + step)
        raw = np.ascontiguousarray(band, dtype=f">u{bits // 8}")
        raw = raw.reshape(len(band), -1).view(np.uint8)
        packed = deflate.compress(_filter(raw, above, pixel_bytes).data)
        above = raw[-1]
        if packed:
            file.write(_chunk(b"IDAT", packed))
    file.write(_chunk(b"IDAT", deflate.flush()))
    file.write(_chunk(b"IEND", b""))


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _metadata_chunks(metadata: Metadata) -> TextChunks:
    chunks = []
    if metadata.icc is not None:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc, 9)))
    if metadata.dpi is not None:
        across, down = (round(value / INCH) for value in metadata.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", across, down, 1)))
    if metadata.exif is not None:
        chunks.append((b"eXIf", metadata.exif))
    if metadata.xmp is not None:
        chunks.append((b"iTXt", XMP_KEYWORD + b"\0\0\0\0\0" + metadata.xmp))
    return (*chunks, *metadata.text)


def _filter(raw: Array, above: Array, step: int) -> Array:
    """Filter rows (n, bytes), each with the filter of least absolute sum, whose number precedes it.

    `above` is the row before the first, `step` the number of bytes per pixel. Source: PNG
    specification 9.2 (the filters) and 12.7 (how to choose one).
    """
    up = np.concatenate([above[None], raw[:-1]])
    left, corner = np.zeros_like(raw), np.zeros_like(raw)
    left[:, step:] = raw[:, :-step]
    corner[:, step:] = up[:, :-step]
    guesses = (left, up, (up & left) + ((up ^ left) >> 1), _paeth(left, up, corner))
    best = np.full(len(raw), 2**62, np.int64)
    rows = np.empty((len(raw), raw.shape[1] + 1), np.uint8)
    for number, guess in enumerate((np.uint8(0), *guesses)):
        difference = raw - guess
        cost = np.abs(difference.view(np.int8).astype(np.int16)).sum(1, dtype=np.int64)
        better = cost < best
        best[better] = cost[better]
        rows[better, 0] = number
        rows[better, 1:] = difference[better]
    return rows


def _paeth(left: Array, up: Array, corner: Array) -> Array:
    across = up.astype(np.int16) - corner
    down = left.astype(np.int16) - corner
    to_left, to_up, to_corner = np.abs(across), np.abs(down), np.abs(across + down)
    rest = np.where(to_up <= to_corner, up, corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, rest)


# -- TIFF --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Strips:
    rows: int
    offsets: list[int]
    sizes: list[int]


def write_tiff(file: BinaryIO, image: Encodable, level: int = 6) -> None:
    """Write a TIFF of uint8, uint16 or float32 pixels to a file that can seek.

    The byte order is that of the EXIF block, whose values are copied unchanged; level 0 leaves the
    pixels uncompressed. The caller has checked that 4 GiB suffice.
    """
    order, kept, parts = _tiff_exif(image.metadata)
    mark = b"II" if order == "<" else b"MM"
    file.write(mark + struct.pack(order + "HI", 42, 0))
    strips = _write_strips(file, image, order, level)
    position = _pad(file)
    inner, pointers = exif.place_parts(parts, order, position)
    file.write(inner)
    first = _pad(file)
    entries = [*kept, *pointers, *_structure_tags(image, strips, order, level)]
    entries += _metadata_tags(image.metadata, order)
    file.write(ifd.build(entries, order, first))
    file.seek(4)
    file.write(struct.pack(order + "I", first))
    file.seek(0, 2)


def _tiff_exif(
    metadata: Metadata,
) -> tuple[ifd.Order, list[ifd.IfdEntry], dict[int, list[ifd.IfdEntry]]]:
    if metadata.exif is None:
        return "<", [], {}
    try:
        return exif.to_tiff(metadata.exif)
    except ifd.MalformedDirectoryError:
        return "<", [], {}


def _pad(file: BinaryIO) -> int:
    """Write a byte if the position is odd: directories start at even offsets (TIFF 6.0, 2)."""
    position = file.tell()
    if position % 2:
        file.write(b"\0")
        position += 1
    return position


def _write_strips(file: BinaryIO, image: Encodable, order: ifd.Order, level: int) -> _Strips:
    height, width, channels = image.pixels.shape
    kind = image.pixels.dtype.newbyteorder(order)
    step = min(height, band_height(width, (channels + 1) * kind.itemsize))
    strips = _Strips(step, [], [])
    for start in range(0, height, step):
        band = interleave(image.pixels, image.alpha, start, start + step)
        if level and kind.kind == "u":
            differences = band.copy()
            differences[:, 1:] -= band[:, :-1]
            band = differences
        raw = np.ascontiguousarray(band, dtype=kind).tobytes()
        packed = zlib.compress(raw, level) if level else raw
        strips.offsets.append(file.tell())
        strips.sizes.append(len(packed))
        file.write(packed)
    return strips


def _structure_tags(
    image: Encodable, strips: _Strips, order: ifd.Order, level: int
) -> list[ifd.IfdEntry]:
    height, width, channels = image.pixels.shape
    samples = channels + (image.alpha is not None)
    bits = image.pixels.dtype.itemsize * 8
    floats = image.pixels.dtype.kind == "f"

    def short(tag: int, *values: int) -> ifd.IfdEntry:
        return ifd.integers(order, tag, ifd.SHORT, *values)

    def long(tag: int, *values: int) -> ifd.IfdEntry:
        return ifd.integers(order, tag, ifd.LONG, *values)

    entries = [
        long(256, width),
        long(257, height),
        short(258, *[bits] * samples),
        short(259, _TIFF_DEFLATE if level else _TIFF_UNCOMPRESSED),
        short(262, 2 if channels == 3 else 1),
        long(273, *strips.offsets),
        short(exif.ORIENTATION, 1),
        short(277, samples),
        long(278, strips.rows),
        long(279, *strips.sizes),
        short(284, 1),
        short(317, 2 if level and not floats else 1),
        short(339, *[3 if floats else 1] * samples),
    ]
    if image.alpha is not None:
        entries.append(short(338, 2))
    return entries


def _metadata_tags(metadata: Metadata, order: ifd.Order) -> list[ifd.IfdEntry]:
    entries = []
    if metadata.dpi is not None:
        across, down = metadata.dpi
        entries += [ifd.rational(order, 282, across), ifd.rational(order, 283, down)]
        entries.append(ifd.integers(order, 296, ifd.SHORT, 2))
    if metadata.icc is not None:
        entries.append(ifd.make_entry(tiff.ICC, ifd.UNDEFINED, metadata.icc))
    if metadata.xmp is not None:
        entries.append(ifd.make_entry(tiff.XMP, ifd.BYTE, metadata.xmp))
    return entries


# -- JPEG --------------------------------------------------------------------------------------

EncodeBand = Callable[[Array], bytes | memoryview]
"""Encode pixels (rows, width, 1 or 3) as a baseline JPEG with the standard Huffman tables."""


def write_jpg(file: BinaryIO, pixels: Array, encode: EncodeBand, *, block: int) -> None:
    """Write an image as one baseline JPEG whose bands of rows are encoded separately.

    At a restart marker the predictors start anew, so bands of whole rows of blocks are the
    intervals between the markers. `encode` must give every band the same tables and metadata;
    `block` is the side of its blocks of color (8, or 16 if color is halved). Readers see the same
    pixels as in the image encoded at once.
    """
    height, width, _ = pixels.shape
    across = -(-width // block)
    rows = min(_JPG_MAX_INTERVAL // across, max(1, _JPG_BAND_PIXELS // (width * block)))
    step = rows * block
    for number, start in enumerate(range(0, height, step)):
        head, scan = _split_jpg(bytes(encode(pixels[start : start + step])))
        if number == 0:
            file.write(_adapt_head(head, height, rows * across))
        else:
            file.write(bytes([0xFF, 0xD0 + (number - 1) % 8]))
        file.write(scan)
    file.write(b"\xff\xd9")


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of every segment up to that of the scan."""
    position = 2
    while True:
        marker = data[position + 1]
        (length,) = struct.unpack_from(">H", data, position + 2)
        yield marker, position, position + 2 + length
        if marker == _JPG_SCAN:
            return
        position += 2 + length


def _split_jpg(data: bytes) -> tuple[bytes, bytes]:
    """Return the header, and the coded pixels without the end marker."""
    end = [segment[2] for segment in _segments(data)][-1]
    return data[:end], data[end:-2]


def _adapt_head(head: bytes, height: int, interval: int) -> bytes:
    """Return the header with the height of the whole image and the interval between markers."""
    for marker, start, _ in _segments(head):
        if marker in _JPG_FRAME:
            head = head[: start + 5] + struct.pack(">H", height) + head[start + 7 :]
    scan = [segment[1] for segment in _segments(head)][-1]
    return head[:scan] + struct.pack(">HHH", 0xFFDD, 4, interval) + head[scan:]
