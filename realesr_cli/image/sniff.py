"""What the first bytes of a file give away: its kind, and what Pillow would not tell in time."""

from __future__ import annotations

import struct

_UNSUPPORTED = {
    "avc": "HEIC/HEIF: convert it to JPEG, PNG or AVIF first",
    "svg": "SVG, a drawing and no image of pixels: render it first",
    "pdf": "PDF: export its pages as images first",
    "eps": "PostScript, which is a program and is not run: render it first",
    "jxl": "JPEG XL: convert it to PNG first",
    "exr": "OpenEXR: tone-map it to a 16-bit PNG or TIFF first",
    "hdr": "Radiance HDR: tone-map it to a 16-bit PNG or TIFF first",
    "video": "a video",
    "archive": "an archive",
    "html": "a web page",
}

_STARTS = (
    (b"%PDF", "pdf"),
    (b"%!PS", "eps"),
    (b"\xc5\xd0\xd3\xc6", "eps"),
    (b"\xff\x0a", "jxl"),
    (b"\0\0\0\x0cJXL ", "jxl"),
    (b"v/1\x01", "exr"),
    (b"#?RADIANCE", "hdr"),
    (b"#?RGBE", "hdr"),
    (b"PK\x03\x04", "archive"),
    (b"\x1f\x8b", "archive"),
    (b"\x1aE\xdf\xa3", "video"),
)

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_VIDEO_BRANDS = (b"isom", b"iso2", b"mp41", b"mp42", b"qt  ", b"M4V ")


def unsupported(data: bytes) -> str | None:
    """What a file is that is known and not handled, with the way out; None for all others."""
    for start, kind in _STARTS:
        if data.startswith(start):
            return _UNSUPPORTED[kind]
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand in _HEIF_BRANDS and b"avif" not in data[:64]:
            return _UNSUPPORTED["avc"]
        if brand in _VIDEO_BRANDS:
            return _UNSUPPORTED["video"]
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return _UNSUPPORTED["html"]
    if head.startswith((b"<svg", b"<?xml")) and b"<svg" in data[:4096].lower():
        return _UNSUPPORTED["svg"]
    return None


def looks_like_text(data: bytes) -> bool:
    """Whether the beginning reads as text."""
    head = data[:512]
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\t\r\n" for character in text)


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a WebP, whose decoder takes memory as soon as it is opened.

    Source: RFC 9649 sections 2.5 to 2.7.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        return int.from_bytes(data[27:30], "little") + 1, width
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    return None


def lost_bits(data: bytes) -> int:
    """Bits of a channel in those kinds that Pillow reduces to 8 without a word, else 8.

    AVIF: the `pixi` box (ISO/IEC 23008-12, 6.5.6). JPEG 2000: the SIZ marker (ISO/IEC 15444-1,
    A.5.1). SGI: bytes of a sample.
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
