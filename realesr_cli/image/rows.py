"""Large PNG and TIFF files read row by row, so that memory does not grow with the image.

Of a PNG some filtered rows are inflated, and a small PNG of them, preceded by the row above, is
decoded: filters look no further up. A TIFF is mapped into memory, strip by strip.
"""

from __future__ import annotations

import dataclasses
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from realesr_cli.errors import ImageError, UnreadableImageError
from realesr_cli.image import png, tiff
from realesr_cli.image.color import needs_conversion
from realesr_cli.image.exif import orientation_of, without_prefix
from realesr_cli.image.pixels import Array
from realesr_cli.image.read import apply_orientation
from realesr_cli.image.source import check_pixels, map_file, name_error, open_file
from realesr_cli.image.types import Band, Decoded, ImageStream
from realesr_cli.image.writers import make_chunk

_BAND_BYTES = 2**23
_READ_BYTES = 2**18


def open_rows(path: Path, *, max_pixels: int | None = None) -> ImageStream | None:
    """Return the image of a file as a stream, or None if it can only be read as a whole.

    That are PNG and TIFF files of 8 or 16 bits in gray or RGB, without alpha, upright, not
    interlaced, and with pixels that no color profile changes. Raises ImageTooLargeError above
    `max_pixels`; the stream raises UnreadableImageError where the file turns out to be damaged.
    """
    try:
        with open_file(path) as file:
            head = file.read(64)
            if head.startswith(png.SIGNATURE):
                return _open_png(path, file, head, max_pixels)
        return _open_tiff(path, max_pixels) if head.startswith(tiff.SIGNATURES) else None
    except UnreadableImageError:
        return None  # Whoever reads it as a whole says why.
    except ImageError as error:
        raise name_error(error, path) from error.__cause__


def _stream(path: Path, bands: Any, like: Decoded, size: tuple[int, int]) -> ImageStream | None:
    """Return the stream of an image whose attributes are those of the decoded part of it."""
    found = like.metadata
    orientation = like.orientation or orientation_of(without_prefix(found.exif), found.xmp)
    if orientation > 1:
        return None
    part = apply_orientation(like)

    def named() -> Iterator[Band]:
        try:
            for band in bands():
                yield band, None
        except ImageError as error:
            raise name_error(error, path) from error.__cause__

    return ImageStream(*size, part.channels, part.dtype, False, named, part.about)


# -- PNG ---------------------------------------------------------------------------------------


def _open_png(path: Path, file: BinaryIO, head: bytes, limit: int | None) -> ImageStream | None:
    header = png.read_header(head)
    chunks = png.find_chunks(file)
    kinds = {chunk.kind for chunk in chunks}
    check_pixels(header.height, header.width, limit)
    plain = header.color_type in (0, 2) and header.bits in (8, 16) and not header.interlaced
    if not plain or kinds & {b"tRNS", b"acTL"} or not {b"IDAT", b"IEND"} <= kinds:
        return None
    metadata = png.read_metadata(file, chunks)
    if needs_conversion(metadata.icc):
        return None
    row = np.zeros(header.width * header.colors * header.bits // 8, np.uint8)
    sample = png.decode(_small_png(header, row, b""), None)
    like = dataclasses.replace(sample, metadata=metadata)
    size = header.height, header.width
    return _stream(path, lambda: _png_bands(path, header, chunks), like, size)


def _png_bands(path: Path, header: png.PngHeader, chunks: list[png.Chunk]) -> Iterator[Array]:
    above = np.zeros(header.width * header.colors * header.bits // 8, np.uint8)
    size = len(above) + 1
    step = max(1, _BAND_BYTES // size)
    done, held = 0, bytearray()
    with open_file(path) as file:
        parts = _inflate(file, [chunk for chunk in chunks if chunk.kind == b"IDAT"])
        while done < header.height:
            wanted = min(step, header.height - done)
            while len(held) < wanted * size:
                part = next(parts, None)
                if part is None:
                    raise UnreadableImageError("the PNG is truncated: rows of pixels are missing")
                held += part
            rows = bytes(held[: wanted * size])
            del held[: wanted * size]
            pixels = png.decode(_small_png(header, above, rows), None).pixels[1:]
            last = np.ascontiguousarray(pixels[-1], dtype=pixels.dtype.newbyteorder(">"))
            above = last.reshape(-1).view(np.uint8)
            done += wanted
            yield pixels
        for _ in parts:  # Up to the checksum of the last chunk.
            pass


def _inflate(file: BinaryIO, chunks: list[png.Chunk]) -> Iterator[bytes]:
    """Yield the contents of the IDAT chunks, inflated."""
    inflate = zlib.decompressobj()
    for chunk in chunks:
        file.seek(chunk.start)
        checksum = zlib.crc32(chunk.kind)
        for start in range(0, chunk.length, _READ_BYTES):
            data = file.read(min(_READ_BYTES, chunk.length - start))
            checksum = zlib.crc32(data, checksum)
            while data:
                try:
                    yield inflate.decompress(data, _BAND_BYTES)
                except zlib.error as error:
                    raise UnreadableImageError(f"the PNG is damaged: {error}") from None
                data = inflate.unconsumed_tail
        if checksum != int.from_bytes(file.read(4), "big"):
            raise UnreadableImageError("the PNG is damaged: an IDAT chunk fails its checksum")


def _small_png(header: png.PngHeader, above: Array, rows: bytes) -> bytes:
    """Return a PNG of a row of pixels and filtered rows below it."""
    height = 1 + len(rows) // (len(above) + 1)
    fields = header.width, height, header.bits, header.color_type, 0, 0, 0
    data = zlib.compress(b"\0" + above.tobytes() + rows, 0)
    chunks = (b"IHDR", struct.pack(">IIBBBBB", *fields)), (b"IDAT", data), (b"IEND", b"")
    return png.SIGNATURE + b"".join(make_chunk(*chunk) for chunk in chunks)


# -- TIFF --------------------------------------------------------------------------------------


def _open_tiff(path: Path, limit: int | None) -> ImageStream | None:
    with open_file(path) as opened, map_file(opened) as data:
        file = tiff.open_tiff(data)
        layout = file.layout
        check_pixels(layout.height, layout.width, limit)
        metadata, pages = tiff.read_metadata(file), tiff.count_pages(file)
        plain = (
            set(layout.bits) <= {8, 16}
            and len(set(layout.bits)) == 1
            and layout.sample_format == 1
            and layout.photometric == {1: 1, 3: 2}.get(layout.samples)
            and layout.predictor in (1, 2)
            and layout.fill_order == 1
            and not layout.planar
        )
        if (
            not plain
            or layout.compression not in tiff.BYTE_COMPRESSIONS
            or needs_conversion(metadata.icc)
        ):
            return None
        tiff.check_extent(file)
        like = Decoded(
            np.zeros((1, 2, layout.colors), layout.dtype),
            None,
            metadata,
            "TIFF",
            (f"first page of {pages} taken",) if pages > 1 else (),
            tiff.orientation_of(layout, metadata),
        )
    return _stream(path, lambda: _tiff_bands(path), like, (layout.height, layout.width))


def _tiff_bands(path: Path) -> Iterator[Array]:
    with open_file(path) as opened, map_file(opened) as data:
        file = _split_strip(tiff.open_tiff(data))
        for _, band in tiff.read_bands(file, 0, file.layout.samples):
            yield np.ascontiguousarray(band, dtype=band.dtype.newbyteorder("="))
            if hasattr(data, "madvise"):  # Pages that were read need not stay in memory.
                data.madvise(mmap.MADV_DONTNEED)


def _split_strip(file: tiff.TiffFile) -> tiff.TiffFile:
    """Return a file whose only strip is uncompressed as one of many strips."""
    layout = file.layout
    if layout.compression != 1 or layout.tiled or layout.segment[0] < layout.height:
        return file
    row = layout.width * layout.samples * layout.dtype.itemsize
    step = min(layout.height, max(1, _BAND_BYTES // row))
    tops = range(0, layout.height, step)
    offsets = tuple(layout.offsets[0] + top * row for top in tops)
    sizes = tuple(min(step, layout.height - top) * row for top in tops)
    split = dataclasses.replace(layout, segment=(step, layout.width), offsets=offsets, sizes=sizes)
    return dataclasses.replace(file, layout=split)
