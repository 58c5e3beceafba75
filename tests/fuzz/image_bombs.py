"""Generators of small files that cost an unwary reader gigabytes or minutes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import image_samples as samples
from PIL import Image as pillow

from realesr_cli.image import ifd


def _png(*chunks: tuple[bytes, bytes], bits: int = 8) -> bytes:
    array = samples.noise(4, 4, 3, f"u{bits // 8}")
    return samples.png_bytes(array, 2, *chunks, bits=bits)


def profile_of_shared_tags() -> bytes:
    """22 KB: 1,000 tags (and once 9,000) that each span the whole profile."""
    return _png((b"iCCP", b"name\0\0" + zlib.compress(_profile(1000))))


def profile_of_many_tags() -> bytes:
    """A profile with 9,000 tags of 1 MB each."""
    return _png((b"iCCP", b"name\0\0" + zlib.compress(_profile(9000))))


def _profile(count: int, size: int = 1_000_000) -> bytes:
    table = b"".join(struct.pack(">4sII", b"%04d" % (i % 9999), 128, size) for i in range(count))
    head = bytearray(samples.LINEAR[:128])
    body = bytes(head) + struct.pack(">I", count) + table
    return body.ljust(128 + size, b"\0")


def profile_curve_of_all_points() -> bytes:
    """A tone curve with eight million points."""
    points = b"curv\0\0\0\0" + struct.pack(">I", 8_000_000) + bytes(range(256)) * 62_500
    icc = samples.gray_profile(points)
    return samples.png_bytes(
        samples.noise(4, 4, 1), 0, (b"iCCP", b"name\0\0" + zlib.compress(icc)), bits=8
    )


def profiles_repeated() -> bytes:
    """100 profiles that each inflate to 60 MB."""
    chunk = (b"iCCP", b"name\0\0" + zlib.compress(bytes(60_000_000)))
    return _png(*[chunk] * 100)


def texts_inflated() -> bytes:
    """Texts that inflate to 5 GB together."""
    text = zlib.compress(bytes(50_000_000))
    chunks = [(b"zTXt", b"a%d\0\0" % i + text) for i in range(50)]
    chunks += [(b"iTXt", b"b%d\0\1\0\0\0" % i + text) for i in range(50)]
    return _png(*chunks)


def packet_inflated() -> bytes:
    """An XMP packet that inflates to 100 MB."""
    text = zlib.compress(bytes(100_000_000))
    return _png((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + text), bits=16)


def raw_profile_inflated() -> bytes:
    """EXIF as text that inflates to 50 MB."""
    text = zlib.compress(b"\nexif\n  9\n" + b"41" * 25_000_000)
    return _png((b"zTXt", b"Raw profile type exif\0\0" + text))


def chunks_without_end() -> bytes:
    """300,000 empty chunks."""
    data = _png()
    return data[:33] + samples.png_chunk(b"abCd", b"") * 300_000 + data[33:]


def exif_of_shared_values(order: str = "<") -> bytes:
    """2 MB of EXIF in which 4,000 values each span the whole block."""
    size = 2_000_000
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    entries = b"".join(
        struct.pack(order + "HHII", 40_000 + i, 7, size - 60_000, 50_000) for i in range(4000)
    )
    block = head + struct.pack(order + "H", 4000) + entries + struct.pack(order + "I", 8)
    return block.ljust(size, b"x")


def exif_in_png() -> bytes:
    """The block in a PNG."""
    return _png((b"eXIf", exif_of_shared_values()))


def exif_in_webp() -> bytes:
    """The block in a WebP."""
    image = pillow.fromarray(samples.noise(8, 8, 3))
    return samples.pillow_bytes(image, "WEBP", exif=b"Exif\0\0" + exif_of_shared_values(">"))


def exif_of_all_bytes() -> bytes:
    """An EXIF block of 60 MB."""
    return _png((b"eXIf", samples.exif_block(thumbnail=b"t" * 99) + bytes(60_000_000)))


def _tiff(tags: dict[int, tuple[int, ...]], content: bytes, *extra: ifd.IfdEntry) -> bytes:
    entries = [ifd.integers("<", tag, ifd.LONG, *values) for tag, values in tags.items()]
    at = 8 + len(content) + len(content) % 2
    return (
        (b"II*\0" + struct.pack("<I", at) + content).ljust(at, b"\0")
        + ifd.build([*entries, *extra], "<", at)
    )  # fmt: skip


def tiff_of_shared_values() -> bytes:
    """A TIFF whose 3,900 unknown tags each span the file."""
    content = bytes(2_000_000)
    tags = {256: (4,), 257: (4,), 258: (8,), 259: (1,), 262: (1,), 273: (8,), 278: (4,), 279: (16,)}
    data = bytearray(_tiff(tags, content))
    at = 8 + len(content)
    entries = bytes(data[at + 2 : at + 2 + 12 * len(tags)])
    entries += b"".join(struct.pack("<HHII", 40_000 + i, 7, 1_900_000, 8) for i in range(3_900))
    directory = struct.pack("<H", len(tags) + 3_900) + entries + bytes(4)
    return bytes(data[:at]) + directory


def directories_overlapping() -> bytes:
    """180 KB: 9,000 directories of 4,000 entries that overlap."""
    tags = {256: (4,), 257: (4,), 258: (8,), 259: (1,), 262: (1,), 273: (8,), 278: (4,), 279: (16,)}
    content = bytes(16)
    first = bytearray(_tiff(tags, content))
    base = len(first) + len(first) % 2
    first = first.ljust(base, b"\0")
    struct.pack_into("<I", first, 24 + 2 + 12 * len(tags), base)
    body = bytearray(180_000)
    count, step = 4000, 14
    for i in range(9_000):
        place = i * step
        if place + 2 + 12 * count + 4 > len(body):
            break
        struct.pack_into("<H", body, place, count)
        struct.pack_into("<I", body, place + 2 + 12 * count, base + place + step)
    return bytes(first + body)


def samples_by_the_dozen() -> bytes:
    """195 bytes: 16 samples of float64 per pixel, 27 GiB in all."""
    many = [ifd.integers("<", 258, ifd.SHORT, *[64] * 16), ifd.integers("<", 339, ifd.SHORT, 3)]
    side = 15_000
    tags = {
        256: (side,), 257: (side,), 259: (8,), 262: (1,), 273: (8,), 277: (16,), 278: (side,),
        279: (16,),
    }  # fmt: skip
    return _tiff(tags, zlib.compress(b""), *many)


def strips_shared() -> bytes:
    """A million strips in the same bytes."""
    count = 900_000
    strip = zlib.compress(bytes(64))
    tags = {256: (16,), 257: (count,), 259: (8,), 262: (2,), 277: (3,), 278: (1,)}
    tags |= {273: (8,) * count, 279: (len(strip),) * count}
    depth = ifd.integers("<", 258, ifd.SHORT, 16, 16, 16)
    return _tiff(tags, strip, depth)


def strip_inflated() -> bytes:
    """A strip that inflates to 150 MB beyond its 64 pixels."""
    tags = {256: (8,), 257: (8,), 259: (8,), 262: (2,), 273: (8,), 277: (3,), 278: (8,)}
    content = zlib.compress(bytes(150_000_000))
    depth = ifd.integers("<", 258, ifd.SHORT, 16, 16, 16)
    return _tiff(tags | {279: (len(content),)}, content, depth)


def offsets_of_64_bits() -> bytes:
    """A BigTIFF whose first directory lies beyond what a C integer can hold."""
    return b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63 + 9) + bytes(64)


def digits() -> bytes:
    """A PGM of a width with 5,000 digits."""
    return b"P5 " + b"9" * 5000 + b" 4 65535\n" + bytes(64)


def digits_in_packet() -> bytes:
    """An orientation with 5,000 digits."""
    packet = b'<x tiff:Orientation="%s"/>' % (b"1" * 5000)
    return _png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))


def packet_of_beginnings() -> bytes:
    """An XMP packet that seems to state its orientation a million times."""
    packet = b"tiff:Orientation " * 900_000
    return _png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))


def packet_of_spaces() -> bytes:
    """An XMP packet of spaces after the name of a property."""
    packet = b"tiff:Orientation" + b" " * 5_000_000 + b"realesr:madeBy" + b" " * 5_000_000
    return _png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))


def frames_without_end() -> bytes:
    """A GIF of 300,000 frames."""
    data = samples.pillow_bytes(pillow.new("L", (4, 4)), "GIF")
    start = data.index(b",")
    return data[:start] + data[start:-1] * 300_000 + b";"


def segments_without_end() -> bytes:
    """A JPEG with a million comments."""
    data = samples.pillow_bytes(pillow.new("RGB", (8, 8)), "JPEG")
    return data[:2] + b"\xff\xfe\0\2" * 1_000_000 + data[2:]


def text_without_end() -> bytes:
    """20 MB of text."""
    return b"<?xml version='1.0'?>" + b" " * 20_000_000


BOMBS: tuple[Callable[[], bytes], ...] = (
    chunks_without_end,
    digits,
    digits_in_packet,
    directories_overlapping,
    exif_in_png,
    exif_in_webp,
    exif_of_all_bytes,
    frames_without_end,
    offsets_of_64_bits,
    packet_inflated,
    packet_of_beginnings,
    packet_of_spaces,
    profile_curve_of_all_points,
    profile_of_many_tags,
    profile_of_shared_tags,
    profiles_repeated,
    raw_profile_inflated,
    samples_by_the_dozen,
    segments_without_end,
    strip_inflated,
    strips_shared,
    text_without_end,
    texts_inflated,
    tiff_of_shared_values,
)
