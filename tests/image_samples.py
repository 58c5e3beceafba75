"""Images, profiles and files for the tests of the image package, made here byte by byte."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image as pillow

ICC_HEADER = 128


def noise(height: int, width: int, channels: int, dtype: Any = np.uint8, seed: int = 0) -> Any:
    """Random pixels over the whole range of the type."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.random((height, width, channels)).astype(dtype)
    top = np.iinfo(dtype).max
    return rng.integers(0, top + 1, (height, width, channels), dtype=dtype)


def pillow_bytes(image: pillow.Image, kind: str, **options: Any) -> bytes:
    """A file as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png_bytes(array: Any, color_type: int, *extra: tuple[bytes, bytes], bits: int = 16) -> bytes:
    """A PNG without filters, written independently of the package."""
    height, width = array.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + array[y].astype(f">u{bits // 8}").tobytes() for y in range(height))
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def curve_tag(*values: int) -> bytes:
    """A `curv` tag: none for identity, one for gamma times 256, more for a table."""
    return b"curv\0\0\0\0" + struct.pack(f">I{len(values)}H", len(values), *values)


def parametric_tag(kind: int, *values: float) -> bytes:
    """A `para` tag of the given function type."""
    fixed = [round(value * 65536) for value in values]
    return b"para\0\0\0\0" + struct.pack(f">HH{len(fixed)}i", kind, 0, *fixed)


def xyz_tag(x: float, y: float, z: float) -> bytes:
    """An `XYZ ` tag."""
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in (x, y, z)))


SRGB_COLUMNS = {
    "rXYZ": (0.43607, 0.22249, 0.01392),
    "gXYZ": (0.38515, 0.71687, 0.09708),
    "bXYZ": (0.14307, 0.06061, 0.71410),
}
ADOBE_COLUMNS = {
    "rXYZ": (0.60974, 0.31111, 0.01947),
    "gXYZ": (0.20528, 0.62567, 0.06087),
    "bXYZ": (0.14919, 0.06322, 0.74457),
}


def profile(space: str, tags: dict[str, bytes]) -> bytes:
    """An ICC profile (version 4) with these tags."""
    table, data = b"", b""
    start = ICC_HEADER + 4 + 12 * len(tags)
    for name, content in tags.items():
        padded = content + b"\0" * (-len(content) % 4)
        table += struct.pack(">4sII", name.encode(), start + len(data), len(content))
        data += padded
    body = struct.pack(">I", len(tags)) + table + data
    header = bytearray(ICC_HEADER)
    struct.pack_into(">I", header, 0, ICC_HEADER + len(body))
    struct.pack_into(">I", header, 8, 0x04200000)
    header[12:16], header[16:20], header[20:24] = b"mntr", space.ljust(4).encode(), b"XYZ "
    header[36:40] = b"acsp"
    struct.pack_into(">3i", header, 68, 63190, 65536, 54061)
    return bytes(header) + body


def rgb_profile(curve: bytes, columns: dict[str, tuple[float, float, float]]) -> bytes:
    """A matrix profile with one curve for all channels, as an editor would embed it."""
    text = "made for a test".encode("utf-16-be")
    words = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    tags = {"desc": words, "cprt": words, "wtpt": xyz_tag(0.9642, 1, 0.8249)}
    tags |= {name: xyz_tag(*column) for name, column in columns.items()}
    tags |= dict.fromkeys(("rTRC", "gTRC", "bTRC"), curve)
    return profile("RGB", tags)


def gray_profile(curve: bytes) -> bytes:
    """A gray profile."""
    return profile("GRAY", {"wtpt": xyz_tag(0.9642, 1, 0.8249), "kTRC": curve})


LINEAR = rgb_profile(curve_tag(), SRGB_COLUMNS)
ADOBE = rgb_profile(curve_tag(563), ADOBE_COLUMNS)
SRGB = rgb_profile(
    parametric_tag(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045), SRGB_COLUMNS
)


def exif_block(order: str = "<", *, orientation: int = 6, thumbnail: bytes = b"") -> bytes:
    """EXIF with maker, orientation, sizes, a maker note that knows its own offset, and GPS."""
    mark = {"<": b"II", ">": b"MM"}[order]

    def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
        return struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")

    def short(value: int) -> bytes:
        return struct.pack(order + "H", value)

    def long(value: int) -> bytes:
        return struct.pack(order + "I", value)

    main_at, main_count = 8, 5
    maker_at = main_at + 2 + 12 * main_count + 4
    maker = b"A maker of cameras\0\0"
    exif_at = maker_at + len(maker)
    note_at = exif_at + 2 + 12 * 4 + 4
    note = b"note" + long(note_at) + bytes(range(24))
    gps_at = note_at + len(note)
    gps = struct.pack(order + "H", 1) + entry(1, 2, 2, b"N\0") + long(0)
    thumb_ifd_at = gps_at + len(gps)
    block = mark + short(42) + long(main_at) + short(main_count)
    block += entry(271, 2, len(maker) - 1, long(maker_at))
    block += entry(274, 3, 1, short(orientation))
    block += entry(305, 2, 4, b"sw1\0")
    block += entry(34665, 4, 1, long(exif_at))
    block += entry(34853, 4, 1, long(gps_at))
    block += long(thumb_ifd_at if thumbnail else 0) + maker
    block += short(4)
    block += entry(33437, 5, 1, long(note_at + 8))
    block += entry(37500, 7, len(note), long(note_at))
    block += entry(40962, 3, 1, short(40))
    block += entry(40963, 3, 1, short(30))
    block += long(0) + note + gps
    if thumbnail:
        data_at = thumb_ifd_at + 2 + 24 + 4
        block += short(2) + entry(513, 4, 1, long(data_at))
        block += entry(514, 4, 1, long(len(thumbnail))) + long(0) + thumbnail
    return block


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://'
    b'ns.adobe.com/exif/1.0/" tiff:Orientation="1" tiff:ImageWidth="40"><exif:PixelYDimension>30'
    b"</exif:PixelYDimension></rdf:Description></rdf:RDF></x:xmpmeta>"
)
