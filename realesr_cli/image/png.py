"""PNG files read: chunks and metadata, and 16-bit color.

Source: PNG specification, third edition (W3C), sections 5 (chunks), 8 (interlacing), 9 (filters)
and 11. Pillow decodes what has 8 bits per channel and 16-bit gray, OpenCV 16-bit color. Both get
the pixels without the metadata, which is parsed here: no decoder inflates a hostile text chunk.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, NamedTuple

import numpy as np

from realesr_cli.errors import UnreadableImageError, UnsupportedImageError
from realesr_cli.image import pillow as pil
from realesr_cli.image.pixels import Array
from realesr_cli.image.plugins import load_opencv
from realesr_cli.image.source import check_pixels
from realesr_cli.image.types import Decoded, Metadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
XMP_KEYWORD = b"XML:com.adobe.xmp"
_EXIF_KEYWORD = b"Raw profile type exif"
_STALE_KEYWORDS = (XMP_KEYWORD, _EXIF_KEYWORD, b"Raw profile type APP1", b"Raw profile type xmp")
"""Texts that are carried as EXIF and XMP instead, with the orientation applied."""

_TEXT_KINDS = (b"tEXt", b"zTXt", b"iTXt")
_MAX_INFLATED = 2**24
_MAX_TEXT = 2**24
_MAX_CHUNKS = 2**18
INCH = 0.0254
"""Meters, in which PNG states the resolution."""

# First column, first row, and the steps between columns and rows of the passes (section 8.2).
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
)  # fmt: skip


@dataclass(frozen=True)
class PngHeader:
    """The contents of the first chunk."""

    height: int
    width: int
    bits: int
    color_type: int
    interlaced: bool

    @property
    def channels(self) -> int:
        """Samples per pixel, including alpha; the index into a palette counts as one."""
        return _CHANNELS[self.color_type]

    @property
    def colors(self) -> int:
        """Color channels of the image; a palette has three."""
        return 1 if self.color_type in (0, 4) else 3


class Chunk(NamedTuple):
    """Where a chunk lies: its kind, the offset of its contents, and their length."""

    kind: bytes
    start: int
    length: int

    @property
    def ancillary(self) -> bool:
        """Whether the image can be decoded without the chunk."""
        return bool(self.kind[0] & 32)


def read_header(data: bytes) -> PngHeader:
    """Read the header of a PNG. Raises UnreadableImageError if it is damaged."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise UnreadableImageError("the PNG header is missing or truncated")
    width, height, bits, color_type, _, _, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    if not width or not height or color_type not in _CHANNELS or bits not in (1, 2, 4, 8, 16):
        raise UnreadableImageError("the PNG header is damaged")
    return PngHeader(height, width, bits, color_type, bool(interlace))


def find_chunks(file: BinaryIO) -> list[Chunk]:
    """List the chunks of an open file up to IEND, or to where the file ends.

    Raises UnreadableImageError if there are far too many.
    """
    found: list[Chunk] = []
    size = file.seek(0, 2)
    position = file.seek(len(SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if position + 12 + length > size:
            break
        if len(found) == _MAX_CHUNKS:
            raise UnreadableImageError(f"the PNG is damaged: it has over {_MAX_CHUNKS:,} chunks")
        found.append(Chunk(kind, position + 8, length))
        if kind == b"IEND":
            break
        position = file.seek(length + 4, 1)
    return found


def is_complete(file: BinaryIO) -> bool:
    """Return whether a PNG has pixels and an end, and every chunk passes its checksum."""
    chunks = find_chunks(file)
    kinds = {chunk.kind for chunk in chunks}
    return {b"IDAT", b"IEND"} <= kinds and all(_read(file, chunk) is not None for chunk in chunks)


def _read(file: BinaryIO, chunk: Chunk) -> bytes | None:
    """Return the contents of a chunk, or None if they fail their checksum."""
    file.seek(chunk.start)
    content, checksum = file.read(chunk.length), file.read(4)
    stored = int.from_bytes(checksum, "big")
    return content if zlib.crc32(content, zlib.crc32(chunk.kind)) == stored else None


def read_metadata(file: BinaryIO, chunks: list[Chunk]) -> Metadata:
    """Read profile, EXIF, XMP, resolution and texts; what is damaged or oversized is left out."""
    first: dict[bytes, bytes] = {}
    texts: list[tuple[bytes, bytes]] = []
    for chunk in chunks:
        if chunk.kind in (b"iCCP", b"eXIf", b"pHYs") and chunk.kind not in first:
            content = _read(file, chunk) if chunk.length <= _MAX_INFLATED else None
            if content is not None:  # The first one counts (section 5.6: at most one each).
                first[chunk.kind] = content
        elif chunk.kind in _TEXT_KINDS and chunk.length <= _MAX_TEXT:
            content = _read(file, chunk)
            if content is not None:
                texts.append((chunk.kind, content))
    icc = _inflate(first.get(b"iCCP", b"").partition(b"\0")[2][1:])
    exif, dpi = first.get(b"eXIf"), None
    if len(first.get(b"pHYs", b"")) == 9:
        across, down, unit = struct.unpack(">IIB", first[b"pHYs"])
        dpi = pil.parse_dpi((across * INCH, down * INCH)) if unit == 1 else None
    xmp, raw_exif = (_find_text(texts, keyword) for keyword in (XMP_KEYWORD, _EXIF_KEYWORD))
    if exif is None and raw_exif is not None:
        exif = pil.parse_raw_profile(raw_exif.decode("latin1"))
    return Metadata(icc, exif, xmp, dpi, tuple(_kept_texts(texts)))


def _kept_texts(texts: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    total = 0
    for kind, content in texts:
        total += len(content)
        if content.partition(b"\0")[0] not in _STALE_KEYWORDS and total <= _MAX_TEXT:
            yield kind, content


def _find_text(texts: list[tuple[bytes, bytes]], keyword: bytes) -> bytes | None:
    """Return the first text with this keyword, inflated if it is compressed."""
    for kind, content in texts:
        name, _, rest = content.partition(b"\0")
        if name == keyword:
            return _parse_text(kind, rest)
    return None


def _parse_text(kind: bytes, content: bytes) -> bytes | None:
    if kind == b"tEXt":
        return content or None
    if kind == b"zTXt":
        return _inflate(content[1:])
    compressed = content[:1] == b"\1"
    _, _, text = content[2:].partition(b"\0")  # language tag
    _, _, text = text.partition(b"\0")  # translated keyword
    return _inflate(text) if compressed else text or None


def _inflate(content: bytes) -> bytes | None:
    """Inflate metadata; None if it is empty, damaged or larger than any real metadata."""
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(content, _MAX_INFLATED)
    except zlib.error:
        return None
    return text if text and inflate.eof else None


def decode(data: bytes, limit: int | None) -> Decoded:
    """Decode a PNG of at most `limit` pixels; an animation's still image.

    Raises UnreadableImageError if it is truncated or damaged, ImageTooLargeError above the limit
    and MissingDependencyError if OpenCV is needed and cannot be loaded.
    """
    header = read_header(data)
    check_pixels(header.height, header.width, limit)
    file = BytesIO(data)
    chunks = find_chunks(file)
    metadata = read_metadata(file, chunks)
    notes = tuple(_animation_notes(data, chunks))
    if header.bits == 16 and header.channels > 1:
        pixels, alpha = _decode_deep(data, header, chunks)
        return Decoded(pixels, alpha, metadata, "PNG", notes)
    bare = _without(data, [c for c in chunks if c.ancillary and c.kind != b"tRNS"])
    decoded = pil.decode(bare, limit, sample_bits=header.bits, metadata=metadata)
    return dataclasses.replace(decoded, notes=(*notes, *decoded.notes))


def _animation_notes(data: bytes, chunks: list[Chunk]) -> Iterator[str]:
    for chunk in chunks:
        if chunk.kind == b"acTL":
            frames = int.from_bytes(data[chunk.start : chunk.start + 4], "big")
            yield f"first frame of {frames} taken" if frames > 1 else "first frame taken"
            return


def _without(data: bytes, chunks: list[Chunk]) -> bytes:
    """Return the file without some of its chunks; what follows the last whole chunk stays."""
    parts, position = [], 0
    for chunk in chunks:
        parts.append(data[position : chunk.start - 8])
        position = chunk.start + chunk.length + 4
    return b"".join([*parts, data[position:]]) if parts else data


def _decode_deep(data: bytes, header: PngHeader, chunks: list[Chunk]) -> tuple[Array, Array | None]:
    """Decode 16-bit color, or gray with alpha, with OpenCV."""
    if not chunks or chunks[-1].kind != b"IEND":
        raise UnreadableImageError("the PNG is truncated: its end is missing")
    file = BytesIO(data)
    stream, key = [], b""
    for chunk in chunks:
        if chunk.kind in (b"IDAT", b"tRNS"):
            content = _read(file, chunk)
            if content is None and not chunk.ancillary:
                raise UnreadableImageError("the PNG is damaged: an IDAT chunk fails its checksum")
            if chunk.kind == b"IDAT":
                stream.append(content or b"")
            else:
                key = key or content or b""
    _check_complete(stream, header)
    # Without tRNS, from which OpenCV would make alpha of another depth.
    bare = _without(data, [chunk for chunk in chunks if chunk.ancillary])
    samples = _decode_opencv(bare, header)
    pixels = np.ascontiguousarray(samples[..., : header.colors])
    if header.channels in (2, 4):
        return pixels, np.ascontiguousarray(samples[..., -1])
    if len(key) != 2 * header.colors:
        return pixels, None
    clear = (pixels == np.frombuffer(key, ">u2")).all(-1)
    return pixels, np.where(clear, 0, 65535).astype(np.uint16)


def _check_complete(stream: list[bytes], header: PngHeader) -> None:
    """Raise UnreadableImageError if rows are missing: OpenCV would return them black."""
    passes = _ADAM7 if header.interlaced else ((0, 0, 1, 1),)
    missing = 0
    for left, top, across, down in passes:
        columns = -(-(header.width - left) // across)
        rows = -(-(header.height - top) // down)
        if columns > 0 and rows > 0:
            missing += rows * (1 + columns * header.channels * 2)
    inflate = zlib.decompressobj()
    try:
        for content in stream:
            pending = content
            while pending and missing > 0 and not inflate.eof:
                missing -= len(inflate.decompress(pending, 2**20))
                pending = inflate.unconsumed_tail
    except zlib.error as error:
        raise UnreadableImageError(f"the PNG is damaged: {error}") from None
    if missing > 0:
        raise UnreadableImageError("the PNG is truncated: rows of pixels are missing")


def _decode_opencv(data: bytes, header: PngHeader) -> Array:
    cv2 = load_opencv("to read 16-bit PNG")
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UnsupportedImageError(f"OpenCV cannot decode this 16-bit PNG: {error}") from None
    if decoded is None:
        raise UnreadableImageError("the PNG is damaged: OpenCV cannot decode it")
    if decoded.ndim == 2:
        decoded = decoded[..., None]
    if header.channels >= 3:
        decoded = decoded[..., [2, 1, 0, 3][: header.channels]]
    elif header.channels == 2:  # OpenCV returns gray with alpha as BGRA.
        decoded = decoded[..., [0, -1]]
    shape = (header.height, header.width, header.channels)
    if decoded.dtype != np.uint16 or decoded.shape != shape:
        raise UnsupportedImageError(
            f"expected 16 bits and shape {shape} from OpenCV, got {decoded.dtype} {decoded.shape}"
        )
    return np.asarray(decoded)
