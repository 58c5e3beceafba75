"""Writers of PNG, TIFF and JPEG that go band by band, so that memory does not grow with size.

Sources: PNG specification, third edition (W3C), sections 5 (chunks) and 9 (filters); TIFF 6.0 and
Adobe's technical note on deflate; ITU-T T.81 (JPEG) B.2.1, B.2.2 and E.1.4.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from realesr_cli.image import deflate, exif, ifd, tiff
from realesr_cli.image.pixels import Array, band_height, interleave
from realesr_cli.image.png import INCH, SIGNATURE, XMP_KEYWORD
from realesr_cli.image.types import Band, Encodable, ImageStream, Metadata, TextChunks, regroup

_PNG_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_TIFF_UNCOMPRESSED, _TIFF_DEFLATE = 1, 8
_ZLIB_HEADER = b"\x78\x9c"
_MAX_CHUNK = 2**30

CLASSIC_TIFF_BYTES = 2**32 - 2**24
"""Uncompressed pixels of more bytes need a BigTIFF; the rest of 4 GiB is left to the metadata."""

_JPG_MAX_INTERVAL = 65_535
_JPG_BAND_PIXELS = 4_000_000
_JPG_SCAN, _JPG_FRAME = 0xDA, (0xC0, 0xC1)


# -- PNG ---------------------------------------------------------------------------------------


def write_png(file: BinaryIO, image: Encodable, level: int = 6) -> None:
    """Write a PNG of uint8 or uint16 pixels, deflated with `level` (0 to 9)."""
    rows = image.rows
    channels = rows.channels + rows.has_alpha
    header = (rows.width, rows.height, rows.bits, _PNG_COLOR_TYPES[channels], 0, 0, 0)
    file.write(SIGNATURE + make_chunk(b"IHDR", struct.pack(">IIBBBBB", *header)))
    for kind, content in _metadata_chunks(image.metadata):
        file.write(make_chunk(kind, content))
    pixel_bytes = channels * rows.dtype.itemsize
    step = max(1, deflate.BLOCK_BYTES // (rows.width * pixel_bytes))
    work = functools.partial(_pack_png, pixel_bytes=pixel_bytes, level=level)
    checksum = 1
    file.write(make_chunk(b"IDAT", _ZLIB_HEADER))
    for packed, adler, size in deflate.map_ordered(work, _png_blocks(rows, step)):
        checksum = deflate.join_adler32(checksum, adler, size)
        for start in range(0, len(packed), _MAX_CHUNK):
            file.write(make_chunk(b"IDAT", packed[start : start + _MAX_CHUNK]))
    file.write(make_chunk(b"IDAT", struct.pack(">I", checksum)))
    file.write(make_chunk(b"IEND", b""))


def _png_blocks(rows: ImageStream, step: int) -> Iterator[tuple[Band, Band | None, bool]]:
    """Yield blocks of rows, each with the row above it and whether it is the last."""
    above: Band | None = None
    done = 0
    for band in regroup(rows.bands(), step):
        done += len(band[0])
        yield band, above, done == rows.height
        above = band[0][-1:], None if band[1] is None else band[1][-1:]


def _pack_png(
    block: tuple[Band, Band | None, bool], pixel_bytes: int, level: int
) -> tuple[bytes, int, int]:
    """Filter and deflate a block; return it with checksum and size of what was deflated."""
    band, before, last = block
    raw = _png_rows(band)
    above = np.zeros(raw.shape[1], np.uint8) if before is None else _png_rows(before)[0]
    filtered = np.empty((len(raw), raw.shape[1] + 1), np.uint8)
    step = band_height(raw.shape[1], 1)
    for start in range(0, len(raw), step):
        part = raw[start : start + step]
        _filter(part, above, pixel_bytes, filtered[start : start + step])
        above = part[-1]
    data = filtered.reshape(-1).data
    packed = deflate.deflate(data, deflate.choose_strategy(data, level), last=last)
    return packed, deflate.adler32(data), len(data)


def _png_rows(band: Band) -> Array:
    """Return rows as the bytes (n, bytes) of a PNG, 16 bits in big-endian order."""
    samples = interleave(*band)
    raw = np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder(">"))
    return raw.reshape(len(samples), -1).view(np.uint8)


def make_chunk(kind: bytes, content: bytes) -> bytes:
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


def _filter(raw: Array, above: Array, step: int, rows: Array) -> None:
    """Filter rows (n, bytes) into `rows`, each by the filter of least absolute sum.

    The number of the filter comes first. `above` is the row before the first, `step` the number
    of bytes per pixel. Source: PNG specification 9.2 (the filters) and 12.7 (how to choose one).
    """
    # With zeros to the left and the row above, all neighbors are views.
    padded = np.zeros((len(raw) + 1, step + raw.shape[1]), np.uint8)
    padded[0, step:], padded[1:, step:] = above, raw
    left, up, corner = padded[1:, :-step], padded[:-1, step:], padded[:-1, :-step]
    guesses = (left, up, (up & left) + ((up ^ left) >> 1), _paeth(left, up, corner))
    candidates = [raw, *(raw - guess for guess in guesses)]
    # 32 bits hold the sum of 2**25 bytes, and are added up twice as fast as 64.
    kind = np.uint32 if raw.shape[1] <= 2**25 else np.uint64
    costs = [np.minimum(c, 0 - c).sum(1, dtype=kind) for c in candidates]
    best = np.argmin(costs, axis=0)
    rows[:, 0] = best
    for number, candidate in enumerate(candidates):
        chosen = best == number
        if chosen.any():
            rows[chosen, 1:] = candidate[chosen]


def _paeth(left: Array, up: Array, corner: Array) -> Array:
    """Return the predictor of PNG 9.4 in bytes only, which is fast."""
    to_left = np.maximum(up, corner) - np.minimum(up, corner)
    to_up = np.maximum(left, corner) - np.minimum(left, corner)
    # If the corner lies between the others, their sum less the corner is this far from it; else
    # it is further from it than from one of them.
    to_corner = np.maximum(to_left, to_up) - np.minimum(to_left, to_up)
    between = (corner < np.maximum(left, up)) & (corner > np.minimum(left, up))
    by_corner = between & (to_corner < np.minimum(to_left, to_up))
    rest = up ^ ((up ^ left) & _mask(to_left <= to_up))
    return np.asarray(rest ^ ((rest ^ corner) & _mask(by_corner)))


def _mask(condition: Array) -> Array:
    """Return 255 where a condition holds and 0 elsewhere: faster than `np.where`."""
    return condition.view(np.uint8) * np.uint8(255)


# -- TIFF --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Strips:
    rows: int
    offsets: list[int]
    sizes: list[int]


def write_tiff(file: BinaryIO, image: Encodable, level: int = 6) -> None:
    """Write a TIFF of uint8, uint16 or float32 pixels to a file that can seek.

    The byte order is that of the EXIF block, whose values are copied unchanged; level 0 leaves the
    pixels uncompressed. Where 4 GiB might not suffice, a BigTIFF is written.
    """
    order, kept, parts = _tiff_exif(image.metadata)
    mark = b"II" if order == "<" else b"MM"
    big = image.rows.nbytes > CLASSIC_TIFF_BYTES
    file.write(
        mark + struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0) if big else (42,)), 0)
    )
    strips = _write_strips(file, image.rows, order, level)
    position = _pad(file)
    inner, pointers = exif.place_parts(parts, order, position, big=big)
    file.write(inner)
    first = _pad(file)
    entries = [*kept, *pointers, *_structure_tags(image.rows, strips, order, level)]
    entries += _metadata_tags(image.metadata, order)
    file.write(ifd.build(entries, order, first, big=big))
    file.seek(8 if big else 4)
    file.write(struct.pack(order + ("Q" if big else "I"), first))
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


def _write_strips(file: BinaryIO, rows: ImageStream, order: ifd.Order, level: int) -> _Strips:
    row_bytes = rows.width * (rows.channels + 1) * rows.dtype.itemsize
    step = min(rows.height, band_height(row_bytes, 1))
    strips = _Strips(step, [], [])
    work = functools.partial(_pack_strips, step=step, order=order, level=level)
    block = step * max(1, deflate.BLOCK_BYTES // (step * row_bytes))
    for packed in deflate.map_ordered(work, regroup(rows.bands(), block)):
        for strip in packed:
            strips.offsets.append(file.tell())
            strips.sizes.append(len(strip))
            file.write(strip)
    return strips


def _pack_strips(band: Band, step: int, order: ifd.Order, level: int) -> list[bytes]:
    """Return rows as compressed strips of `step` rows."""
    samples = interleave(*band)
    if level and samples.dtype.kind == "u":
        differences = samples.copy()
        differences[:, 1:] -= samples[:, :-1]
        samples = differences
    raw = np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder(order))
    data = raw.reshape(len(raw), -1).view(np.uint8)
    strips = [data[i : i + step].reshape(-1).data for i in range(0, len(data), step)]
    if not level:
        return [bytes(strip) for strip in strips]
    way = deflate.choose_strategy(data.reshape(-1).data, level)
    return [deflate.wrap(deflate.deflate(s, way), deflate.adler32(s)) for s in strips]


def _structure_tags(
    rows: ImageStream, strips: _Strips, order: ifd.Order, level: int
) -> list[ifd.IfdEntry]:
    channels, samples = rows.channels, rows.channels + rows.has_alpha
    bits, floats = rows.bits, rows.dtype.kind == "f"
    offset_kind = ifd.LONG8 if rows.nbytes > CLASSIC_TIFF_BYTES else ifd.LONG

    def short(tag: int, *values: int) -> ifd.IfdEntry:
        return ifd.integers(order, tag, ifd.SHORT, *values)

    def long(tag: int, *values: int) -> ifd.IfdEntry:
        return ifd.integers(order, tag, ifd.LONG, *values)

    entries = [
        long(256, rows.width),
        long(257, rows.height),
        short(258, *[bits] * samples),
        short(259, _TIFF_DEFLATE if level else _TIFF_UNCOMPRESSED),
        short(262, 2 if channels == 3 else 1),
        ifd.integers(order, 273, offset_kind, *strips.offsets),
        short(exif.ORIENTATION, 1),
        short(277, samples),
        long(278, strips.rows),
        long(279, *strips.sizes),
        short(284, 1),
        short(317, 2 if level and not floats else 1),
        short(339, *[3 if floats else 1] * samples),
    ]
    if rows.has_alpha:
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


def write_jpg(file: BinaryIO, rows: ImageStream, encode: EncodeBand, *, block: int) -> None:
    """Write an image as one baseline JPEG whose bands of rows are encoded separately.

    At a restart marker the predictors start anew, so bands of whole rows of blocks are the
    intervals between the markers. `encode` must give every band the same tables and metadata;
    `block` is the side of its blocks of color (8, or 16 if color is halved). Readers see the same
    pixels as in the image encoded at once.
    """
    across = -(-rows.width // block)
    count = min(_JPG_MAX_INTERVAL // across, max(1, _JPG_BAND_PIXELS // (rows.width * block)))
    bands = (pixels for pixels, _ in regroup(rows.bands(), count * block))
    if rows.height <= count * block:
        file.write(encode(next(bands)))
        return
    for number, data in enumerate(deflate.map_ordered(encode, bands)):
        head, scan = _split_jpg(bytes(data))
        if number == 0:
            file.write(_adapt_head(head, rows.height, count * across))
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
