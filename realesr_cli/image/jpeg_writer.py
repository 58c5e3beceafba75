"""JPEG of large images, encoded in bands of rows, so that memory does not grow with them.

Source: ITU-T T.81 (JPEG) B.2.1, B.2.2 and E.1.4: at a restart marker the predictors start anew, so
that bands of whole rows of blocks, encoded apart, are the intervals between the markers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

from realesr_cli.image.depth import Array

_MAX_INTERVAL = 65_535
_BAND_PIXELS = 4_000_000
_SCAN, _FRAME = 0xDA, (0xC0, 0xC1)

Encode = Callable[[Array], bytes | memoryview]
"""Pixels (rows, width, 1 or 3) to a baseline JPEG with the standard Huffman tables."""


def write(file: BinaryIO, pixels: Array, encode: Encode, *, block: int) -> None:
    """Write an image as one baseline JPEG.

    `encode` must give every band the same tables and metadata; `block` is the side of its blocks
    of color (8, or 16 where color is halved). The pixels that a reader sees are those of the
    image encoded whole.
    """
    height, width, _ = pixels.shape
    across = -(-width // block)
    rows = min(_MAX_INTERVAL // across, max(1, _BAND_PIXELS // (width * block)))
    step = rows * block
    for number, start in enumerate(range(0, height, step)):
        head, scan = _split(bytes(encode(pixels[start : start + step])))
        if number == 0:
            file.write(_adapted(head, height, rows * across))
        else:
            file.write(bytes([0xFF, 0xD0 + (number - 1) % 8]))
        file.write(scan)
    file.write(b"\xff\xd9")


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of every segment up to that of the scan."""
    position = 2
    while True:
        marker = data[position + 1]
        (length,) = struct.unpack_from(">H", data, position + 2)
        yield marker, position, position + 2 + length
        if marker == _SCAN:
            return
        position += 2 + length


def _split(data: bytes) -> tuple[bytes, bytes]:
    """What comes before the coded pixels, and those without the end of the image."""
    end = [segment[2] for segment in _segments(data)][-1]
    return data[:end], data[end:-2]


def _adapted(head: bytes, height: int, interval: int) -> bytes:
    """The header with the height of the whole image and the interval between the markers."""
    for marker, start, _ in _segments(head):
        if marker in _FRAME:
            head = head[: start + 5] + struct.pack(">H", height) + head[start + 7 :]
    scan = [segment[1] for segment in _segments(head)][-1]
    return head[:scan] + struct.pack(">HHH", 0xFFDD, 4, interval) + head[scan:]
