"""PPM and PGM files with more than 8 bits, which Pillow reduces to 8 where they have color.

Source: the Netpbm format specifications ppm(5) and pgm(5), binary variants P5 and P6.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from realesr_cli.errors import UnreadableImageError
from realesr_cli.image.depth import Array

_GAP = rb"(?:\s|#[^\n]*\n)+"
_HEADER = re.compile(rb"P([56])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)\s")


@dataclass(frozen=True)
class PnmHeader:
    """Size, channels and largest value, and where the pixels begin."""

    height: int
    width: int
    channels: int
    top: int
    start: int


def read_header(data: bytes) -> PnmHeader | None:
    """The header of a binary PPM or PGM with two bytes a sample; None for anything else."""
    match = _HEADER.match(data[:65536])
    if match is None:
        return None
    kind, width, height, top = (int(group) for group in match.groups())
    if not 255 < top < 65536 or not width or not height:
        return None
    return PnmHeader(height, width, 3 if kind == 6 else 1, top, match.end())


def read_deep(data: bytes, header: PnmHeader) -> Array:
    """uint16 pixels (height, width, 1 or 3), stretched to 0..65535.

    Raises UnreadableImage where rows are missing or values exceed the stated largest one.
    """
    shape = (header.height, header.width, header.channels)
    count = int(np.prod(shape, dtype=np.int64))
    if len(data) - header.start < 2 * count:
        raise UnreadableImageError("the file is cut off: rows of pixels are missing")
    samples = np.frombuffer(data, ">u2", count, header.start).reshape(shape)
    if header.top == 65535:
        return samples.astype(np.uint16)
    if samples.max() > header.top:
        raise UnreadableImageError(
            f"the file is damaged: it holds values above its own {header.top}"
        )
    wide = samples.astype(np.uint32) * 65535 + header.top // 2
    return (wide // header.top).astype(np.uint16)
