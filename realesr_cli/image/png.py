"""PNG: its chunks checked and read, 16-bit color decoded, and files of any depth written.

Source: PNG specification, third edition (W3C), sections 5 (chunks), 8 (interlacing), 9 (filters)
and 11. Pillow has no 16-bit color, hence the reader for that and one writer for everything.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from realesr_cli.errors import UnreadableImageError, UnsupportedImageError
from realesr_cli.image.depth import Array, band_height, interleaved
from realesr_cli.image.exif import Metadata
from realesr_cli.image.opencv import load_opencv

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_MAX_METADATA = 2**26
_INCH = 0.0254
# First column, first row, and the steps between columns and rows of the seven passes (section 8.2).
_ADAM7: tuple[tuple[int, int, int, int], ...] = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


@dataclass(frozen=True)
class PngHeader:
    """What the first chunk states."""

    height: int
    width: int
    bits: int
    color_type: int
    interlaced: bool

    @property
    def channels(self) -> int:
        """Samples of a pixel, alpha included; a palette's index counts as one."""
        return _CHANNELS[self.color_type]


def read_header(data: bytes) -> PngHeader:
    """The header of a PNG. Raises UnreadableImage where it is damaged."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise UnreadableImageError("the PNG header is missing or cut off")
    width, height, bits, color_type, _, _, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    if not width or not height or color_type not in _CHANNELS or bits not in (1, 2, 4, 8, 16):
        raise UnreadableImageError("the PNG header is damaged")
    return PngHeader(height, width, bits, color_type, bool(interlace))


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of every chunk, in order.

    Raises UnreadableImage where the file ends early or a chunk the image cannot do without
    fails its checksum; ancillary chunks that fail it are left out.
    """
    position = len(SIGNATURE)
    while True:
        if position + 12 > len(data):
            raise UnreadableImageError("the PNG is cut off: its end is missing")
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        content = data[position + 8 : position + 8 + length]
        if position + 12 + length > len(data):
            raise UnreadableImageError(
                f"the PNG is cut off inside its {kind.decode('latin1')} chunk"
            )
        (stored,) = struct.unpack_from(">I", data, position + 8 + length)
        if zlib.crc32(content, zlib.crc32(kind)) == stored:
            yield kind, content
        elif not kind[0] & 32:
            raise UnreadableImageError(
                f"the PNG's {kind.decode('latin1')} chunk fails its checksum"
            )
        if kind == b"IEND":
            return
        position += 12 + length


def skim(stream: BinaryIO) -> dict[bytes, bytes]:
    """The metadata chunks of an open file by kind, its pixels jumped over.

    Raises UnreadableImage where the file ends early.
    """
    found: dict[bytes, bytes] = {}
    stream.seek(len(SIGNATURE))
    while len(head := stream.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"IEND":
            return found
        if kind in (b"eXIf", b"tRNS", b"iTXt") and length <= _MAX_METADATA:
            content = stream.read(length)
            if kind != b"iTXt" or content.startswith(_XMP_KEYWORD + b"\0"):
                found[kind] = content
            stream.seek(4, 1)
        else:
            stream.seek(length + 4, 1)
    raise UnreadableImageError("the PNG is cut off: its end is missing")


def xmp_of(content: bytes) -> bytes | None:
    """The XMP packet of an iTXt chunk, or None where it holds another text."""
    if not content.startswith(_XMP_KEYWORD + b"\0"):
        return None
    return _international_text(content[len(_XMP_KEYWORD) + 1 :])


def read_deep(
    data: bytes, header: PngHeader
) -> tuple[Array, Array | None, Metadata, tuple[str, ...]]:
    """A 16-bit PNG: pixels (height, width, 1 or 3), alpha, metadata and notes.

    Raises UnreadableImage where the file is cut off or damaged, and MissingDependency where
    OpenCV is needed and cannot load.
    """
    parts = list(chunks(data))
    stream = [content for kind, content in parts if kind == b"IDAT"]
    _check_complete(stream, header)
    bare = [(b"IHDR", data[16:29]), *((b"IDAT", content) for content in stream), (b"IEND", b"")]
    samples = _decode(SIGNATURE + b"".join(_chunk(*part) for part in bare), header)
    colors = 1 if header.color_type in (0, 4) else 3
    pixels = np.ascontiguousarray(samples[..., :colors])
    alpha = None
    if header.channels in (2, 4):
        alpha = np.ascontiguousarray(samples[..., -1])
    named = dict(reversed(parts))
    if alpha is None and len(named.get(b"tRNS", b"")) == 2 * colors:
        clear = np.frombuffer(named[b"tRNS"], ">u2")
        alpha = np.where((pixels == clear).all(-1), 0, 65535).astype(np.uint16)
    notes = ("an animation: its still image was taken",) if b"acTL" in named else ()
    return pixels, alpha, _metadata(parts), notes


def write(
    file: BinaryIO, pixels: Array, alpha: Array | None, metadata: Metadata, level: int = 6
) -> None:
    """Write a PNG of uint8 or uint16 pixels (height, width, 1 or 3) band by band.

    The memory needed beside the pixels does not grow with them.
    """
    height, width, channels = pixels.shape
    channels += alpha is not None
    bits = pixels.dtype.itemsize * 8
    header = struct.pack(">IIBBBBB", width, height, bits, _COLOR_TYPES[channels], 0, 0, 0)
    file.write(SIGNATURE + _chunk(b"IHDR", header))
    for kind, content in _metadata_chunks(metadata):
        file.write(_chunk(kind, content))
    pixel_bytes = channels * bits // 8
    above = np.zeros(width * pixel_bytes, np.uint8)
    deflate = zlib.compressobj(level)
    step = band_height(width, pixel_bytes)
    for start in range(0, height, step):
        band = interleaved(pixels, alpha, start, start + step)
        raw = np.ascontiguousarray(band, dtype=f">u{bits // 8}")
        raw = raw.reshape(len(band), -1).view(np.uint8)
        packed = deflate.compress(_filtered(raw, above, pixel_bytes).data)
        above = raw[-1]
        if packed:
            file.write(_chunk(b"IDAT", packed))
    file.write(_chunk(b"IDAT", deflate.flush()))
    file.write(_chunk(b"IEND", b""))


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _check_complete(stream: list[bytes], header: PngHeader) -> None:
    """OpenCV returns what it could decode; an image that lacks rows shall be an error instead."""
    missing = _expected_bytes(header)
    inflate = zlib.decompressobj()
    try:
        for content in stream:
            pending = content
            while pending and missing > 0 and not inflate.eof:
                missing -= len(inflate.decompress(pending, 2**20))
                pending = inflate.unconsumed_tail
    except zlib.error as error:
        raise UnreadableImageError(f"the PNG's pixels are damaged ({error})") from None
    if missing > 0:
        raise UnreadableImageError("the PNG is cut off: rows of pixels are missing")


def _expected_bytes(header: PngHeader) -> int:
    size = header.channels * header.bits // 8
    if not header.interlaced:
        return header.height * (1 + header.width * size)
    total = 0
    for left, top, across, down in _ADAM7:
        columns = -(-(header.width - left) // across)
        rows = -(-(header.height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + columns * size)
    return total


def _decode(data: bytes, header: PngHeader) -> Array:
    cv2 = load_opencv("to read 16-bit PNG")
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UnsupportedImageError(f"OpenCV cannot decode this 16-bit PNG: {error}") from None
    if decoded is None:
        raise UnreadableImageError("the PNG's pixels are damaged")
    if decoded.ndim == 2:
        decoded = decoded[..., None]
    if header.channels >= 3:
        decoded = decoded[..., [2, 1, 0, 3][: header.channels]]
    elif header.channels == 2:  # OpenCV has no gray with alpha and repeats the gray three times.
        decoded = decoded[..., [0, -1]]
    shape = (header.height, header.width, header.channels)
    if decoded.dtype != np.uint16 or decoded.shape != shape:
        raise UnsupportedImageError(
            f"OpenCV made {decoded.dtype} {decoded.shape} of a 16-bit {shape}"
        )
    return np.asarray(decoded)


def _metadata(parts: list[tuple[bytes, bytes]]) -> Metadata:
    icc = exif = xmp = dpi = None
    for kind, content in parts:
        if kind == b"iCCP":
            icc = _inflated(content.partition(b"\0")[2][1:])
        elif kind == b"eXIf":
            exif = content
        elif kind == b"iTXt":
            xmp = xmp_of(content) or xmp
        elif kind == b"pHYs" and len(content) == 9:
            across, down, unit = struct.unpack(">IIB", content)
            if unit == 1 and across and down:
                dpi = (across * _INCH, down * _INCH)
    return Metadata(icc, exif, xmp, dpi)


def _international_text(content: bytes) -> bytes | None:
    compressed = content[:1] == b"\1"
    _, _, text = content[2:].partition(b"\0")  # language tag
    _, _, text = text.partition(b"\0")  # translated keyword
    return _inflated(text) if compressed else text


def _inflated(content: bytes) -> bytes | None:
    """The text, or None where it is damaged or larger than any metadata is."""
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(content, _MAX_METADATA)
    except zlib.error:
        return None
    return text if inflate.eof else None


def _metadata_chunks(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    if metadata.icc is not None:
        yield b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc, 9)
    if metadata.dpi is not None:
        across, down = (round(value / _INCH) for value in metadata.dpi)
        yield b"pHYs", struct.pack(">IIB", across, down, 1)
    if metadata.exif is not None:
        yield b"eXIf", metadata.exif
    if metadata.xmp is not None:
        yield b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + metadata.xmp


def _filtered(raw: Array, above: Array, step: int) -> Array:
    """Rows (n, bytes) with the filter of least absolute sum each, its number in front.

    Source: PNG specification 9.2 (the filters) and 12.7 (how to choose one). `above` is the row
    before the first, `step` the bytes of a pixel.
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
