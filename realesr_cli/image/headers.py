"""What the first bytes of a file say: its kind, and what Pillow reports too late or never.

Sources: RFC 9649 (WebP), sections 2.5 to 2.7; the Netpbm format specifications ppm(5) and pgm(5),
binary variants P5 and P6; ISO/IEC 18181-1 (JPEG XL), annex D; ISO/IEC 23008-12 (HEIF).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np

from realesr_cli.errors import UnreadableImageError
from realesr_cli.image.pixels import Array

HEAD_BYTES = 4096
"""Bytes from the start of a file that decide what it is."""

_STARTS = (
    (b"%PDF", "a PDF; export its pages as images first"),
    (b"%!PS", "PostScript, a program that is not run here; render it to an image first"),
    (
        b"\xc5\xd0\xd3\xc6",
        "PostScript, a program that is not run here; render it to an image first",
    ),
    (b"v/1\x01", "an OpenEXR image; tone-map it to a 16-bit PNG or TIFF first"),
    (b"#?RADIANCE", "a Radiance HDR image; tone-map it to a 16-bit PNG or TIFF first"),
    (b"#?RGBE", "a Radiance HDR image; tone-map it to a 16-bit PNG or TIFF first"),
    (b"8BPS\0\2", "a large Photoshop document (PSB); export it as PNG or TIFF first"),
    (b"gimp xcf", "a GIMP document; export it as PNG or TIFF first"),
    (b"PK\x03\x04", "an archive; extract its images first"),
    (b"\x1f\x8b", "an archive; extract its images first"),
    (b"\x1aE\xdf\xa3", "a video; extract its frames as images first"),
)

_VIDEO_BRANDS = (b"isom", b"iso2", b"mp41", b"mp42", b"qt  ", b"M4V ")


def describe_unsupported(data: bytes) -> str | None:
    """Return what a file of a known but unsupported kind is and what to do; None for others."""
    for start, text in _STARTS:
        if data.startswith(start):
            return text
    if data[4:8] == b"ftyp" and data[8:12] in _VIDEO_BRANDS:
        return "a video; extract its frames as images first"
    if data.startswith(b"8BPS") and len(data) >= 26 and int.from_bytes(data[22:24], "big") > 8:
        return "a Photoshop document with 16 or 32 bits per channel; export it as PNG or TIFF first"
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page, not an image"
    if head.startswith((b"<svg", b"<?xml")) and b"<svg" in data[:4096].lower():
        return "an SVG drawing, not pixels; render it to an image first"
    return None


def describe_unknown(data: bytes) -> str:
    """Return why bytes of no known kind cannot be read."""
    if _looks_like_text(data):
        return "not an image: the file contains text"
    return "not an image of a known format, or damaged at its start"


def _looks_like_text(data: bytes) -> bool:
    head = data[:512]
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # not just a character that is cut in two
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\t\r\n" for character in text)


@dataclass(frozen=True)
class WebpHeader:
    """Size of a WebP, and whether its (first) frame is compressed losslessly."""

    height: int
    width: int
    lossless: bool


def parse_webp(data: bytes) -> WebpHeader | None:
    """Read the header of a WebP; None for other files.

    Its decoder allocates memory as soon as it is opened, so the size has to be known before.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        return WebpHeader(
            int.from_bytes(data[27:30], "little") + 1, width, _first_frame(data) == b"VP8L"
        )
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return WebpHeader((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, True)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return WebpHeader(height & 0x3FFF, width & 0x3FFF, False)
    return None


def _first_frame(data: bytes) -> bytes:
    """Return the kind of the first chunk with pixels in an extended WebP."""
    position = 30
    for _ in range(64):  # profile, animation parameters and unknown chunks come before it
        kind = data[position : position + 4]
        if kind in (b"VP8L", b"VP8 ", b""):
            return kind
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        # The chunks of a frame follow its header of 16 bytes.
        position += 8 + (16 if kind == b"ANMF" else size + size % 2)
    return b""


def stored_bits(data: bytes) -> int:
    """Return the bits per channel in formats that Pillow silently reduces to 8; else 8.

    AVIF: the `pixi` box (ISO/IEC 23008-12, 6.5.6). JPEG 2000: the SIZ marker (ISO/IEC 15444-1,
    A.5.1). SGI: bytes per sample.
    """
    head = data[:65536]
    if data[4:8] == b"ftyp":
        at = head.find(b"pixi")
        return head[at + 9] if 0 < at < len(head) - 9 else 8
    if data.startswith(b"\xff\x4f\xff\x51") or data[4:8] == b"jP  ":
        at = head.find(b"\xff\x4f\xff\x51")
        return (head[at + 42] & 0x7F) + 1 if 0 <= at < len(head) - 42 else 8
    if data.startswith(b"\x01\xda"):
        return 16 if data[3:4] == b"\x02" else 8
    return 8


_GAP = rb"(?:\s|#[^\n]*\n)+"
_NETPBM = re.compile(
    rb"P([56])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,5})\s"
)


@dataclass(frozen=True)
class NetpbmHeader:
    """Size, channels and largest value of a PPM or PGM, and where its pixels start."""

    height: int
    width: int
    channels: int
    top: int
    start: int


def parse_deep_netpbm(data: bytes) -> NetpbmHeader | None:
    """Read the header of a binary PPM or PGM with two bytes per sample; None for other files."""
    match = _NETPBM.match(data[:65536])
    if match is None:
        return None
    kind, width, height, top = (int(group) for group in match.groups())
    if not 255 < top < 65536 or not width or not height:
        return None
    return NetpbmHeader(height, width, 3 if kind == 6 else 1, top, match.end())


def decode_deep_netpbm(data: bytes, header: NetpbmHeader) -> Array:
    """Return uint16 pixels (height, width, 1 or 3), scaled to 0..65535.

    Raises UnreadableImageError if rows are missing or values exceed the stated largest one.
    """
    shape = (header.height, header.width, header.channels)
    count = header.height * header.width * header.channels
    if len(data) - header.start < 2 * count:
        raise UnreadableImageError("the file is truncated: rows of pixels are missing")
    samples = np.frombuffer(data, ">u2", count, header.start).reshape(shape)
    if header.top == 65535:
        return samples.astype(np.uint16)
    if samples.max() > header.top:
        raise UnreadableImageError(f"the file is damaged: it has values above its own {header.top}")
    wide = samples.astype(np.uint32) * 65535 + header.top // 2
    return (wide // header.top).astype(np.uint16)


@dataclass(frozen=True)
class JxlHeader:
    """Size of a JPEG XL after its orientation, and bits per channel (0 if not known)."""

    height: int
    width: int
    bits: int


_RATIOS = ((0, 0), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


class _Bits:
    """Bits of a JPEG XL codestream, least significant first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data[:64], "little")

    def take(self, count: int) -> int:
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        return value

    def choose(self, *counts: int) -> int:
        """Read a number whose length is one of four."""
        return self.take(counts[self.take(2)])


def parse_jxl(data: bytes) -> JxlHeader | None:
    """Read the header of a JPEG XL codestream or container; None for other files.

    Its decoder decodes all pixels at once, so the size has to be known before.
    """
    stream = _jxl_codestream(data)
    if not stream.startswith(b"\xff\x0a"):
        return None
    bits = _Bits(stream[2:])
    height, width = _jxl_size(bits)
    if bits.take(1):  # all defaults: 8 bits, orientation 1
        return JxlHeader(height, width, 8)
    orientation = 1
    if bits.take(1):
        orientation = bits.take(3) + 1
        if bits.take(1):  # intrinsic size
            _jxl_size(bits)
        if bits.take(1) or bits.take(1):  # A preview or an animation precedes the bit depth.
            return JxlHeader(*_turn(height, width, orientation), 0)
    if bits.take(1):
        depth = (32, 16, 24, 0)[bits.take(2)]
    else:
        depth = (8, 10, 12, 0)[(kind := bits.take(2))] or (bits.take(6) + 1 if kind == 3 else 0)
    return JxlHeader(*_turn(height, width, orientation), depth)


def _turn(height: int, width: int, orientation: int) -> tuple[int, int]:
    return (width, height) if orientation > 4 else (height, width)


def _jxl_size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)
    height = (bits.take(5) + 1) * 8 if small else bits.choose(9, 13, 18, 30) + 1
    across, down = _RATIOS[bits.take(3)]
    if down:
        return height, height * across // down
    return height, (bits.take(5) + 1) * 8 if small else bits.choose(9, 13, 18, 30) + 1


def _jxl_codestream(data: bytes) -> bytes:
    """Return the start of the codestream, from its boxes if the file is a container."""
    if data[4:8] != b"JXL ":
        return data[:128]
    stream, position = b"", 0
    for _ in range(64):
        size = int.from_bytes(data[position : position + 4], "big")
        kind, start = data[position + 4 : position + 8], position + 8
        if size == 1:
            size, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        end = position + size if size else len(data)  # 0: up to the end of the file
        if kind == b"jxlc":
            return data[start : min(end, start + 128)]
        if kind == b"jxlp":  # a part, after its index
            stream += data[start + 4 : min(end, start + 132)]
        if len(stream) >= 64 or end <= position + 8:
            break
        position = end
    return stream
