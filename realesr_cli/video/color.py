"""Color tags and static HDR metadata: read from a frame, never left to a guess of FFmpeg."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from realesr_cli.errors import VideoError

if TYPE_CHECKING:
    import av

    from realesr_cli.video.settings import VideoSettings

_UNSPECIFIED = 2
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
"""Matrices of ITU-T H.273 that FFmpeg's scaler computes."""
_MATRIX_CODES = {"bt601": 6, "bt709": 1, "bt2020": 9}
_RANGES = {"tv": 1, "pc": 2}
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True)
class ColorTags:
    """Codes of ITU-T H.273: what the numbers of a YUV frame mean."""

    matrix: int
    range: int
    """1 limited, 2 full."""
    primaries: int
    transfer: int

    @property
    def scaler_matrix(self) -> int:
        """The matrix as FFmpeg's scaler calls it: both forms of BT.601 are one."""
        return 5 if self.matrix == 6 else self.matrix

    def describe(self) -> str:
        """Return `bt709 limited`."""
        return f"{_MATRICES[self.matrix]} {'full' if self.range == 2 else 'limited'}"


@dataclass(frozen=True)
class HdrMetadata:
    """Static HDR metadata of SMPTE ST 2086 and CTA-861.3."""

    primaries: tuple[tuple[Fraction, Fraction], ...] = ()
    """x and y of red, green, blue and white."""
    luminance: tuple[Fraction, Fraction] | None = None
    """Darkest and brightest, in cd/m2."""
    light_level: tuple[int, int] | None = None
    """MaxCLL and MaxFALL."""


def read_color(frame: av.VideoFrame, settings: VideoSettings, *, rgb: bool) -> ColorTags:
    """Return explicit tags: as set, as in the file, else as players guess them by the size.

    Without tags FFmpeg would take any size for BT.601. Raises VideoError for an unknown matrix.
    """
    full = rgb or frame.format.name.startswith("yuvj")
    matrix, range_ = int(frame.colorspace), int(frame.color_range)
    if settings.color != "auto":
        matrix = _MATRIX_CODES[settings.color]
    elif rgb:
        matrix = 1
    elif matrix == _UNSPECIFIED:
        large = frame.height >= 720 or frame.width >= 1280
        matrix = 1 if large else 5 if frame.height == 576 else 6
    if matrix not in _MATRICES:
        raise VideoError(f"color matrix {matrix} of H.273 is not supported", advice="video-color")
    if settings.range != "auto":
        range_ = _RANGES[settings.range]
    elif range_ not in (1, 2):
        range_ = 2 if full else 1
    usual = {1: (1, 1), 5: (5, 6), 6: (6, 6), 7: (7, 7), 9: (9, 14), 4: (6, 6)}[matrix]
    tags = []
    for value, default in zip((frame.color_primaries, frame.color_trc), usual, strict=True):
        tags.append(int(value) if int(value) not in (0, _UNSPECIFIED) else default)
    if rgb:
        range_ = 1  # Of the result: RGB itself has no range.
    return ColorTags(matrix, range_, *tags)


def read_hdr(frame: av.VideoFrame) -> HdrMetadata | None:
    """Read AVMasteringDisplayMetadata (22 integers) and AVContentLightMetadata (2)."""
    import av.sidedata.sidedata as sidedata

    primaries: tuple[tuple[Fraction, Fraction], ...] = ()
    luminance = light = None
    items: Any = frame.side_data
    for item in items:
        if item.type == sidedata.Type.MASTERING_DISPLAY_METADATA:
            numbers = struct.unpack("=22i", bytes(item)[:88])
            values = [
                Fraction(a, b or 1) for a, b in zip(numbers[:20:2], numbers[1:20:2], strict=True)
            ]
            if numbers[20]:
                primaries = tuple(zip(values[0:8:2], values[1:8:2], strict=True))
            if numbers[21]:
                luminance = (values[8], values[9])
        elif item.type == sidedata.Type.CONTENT_LIGHT_LEVEL:
            light = struct.unpack("=2I", bytes(item)[:8])
    if primaries or luminance or light:
        return HdrMetadata(primaries, luminance, light)
    return None


def hdr_params(params: str, hdr: HdrMetadata) -> str:
    """Return static HDR metadata in the words of an encoder."""
    svt = params == "svtav1-params"
    found = []
    if len(hdr.primaries) == 4 and hdr.luminance is not None:
        red, green, blue, white = hdr.primaries
        points = zip(["G", "B", "R", "WP"], (green, blue, red, white), strict=True)
        low, high = hdr.luminance
        if svt:
            place = "".join(f"{k}({float(x):.5f},{float(y):.5f})" for k, (x, y) in points)
            place += f"L({float(high):.4f},{float(low):.4f})"
        else:
            place = "".join(f"{k}({round(x * 50000)},{round(y * 50000)})" for k, (x, y) in points)
            place += f"L({round(high * 10000)},{round(low * 10000)})"
        name = "master-display" if params == "x265-params" else "mastering-display"
        found.append(f"{name}={place}")
    if hdr.light_level is not None:
        name = {"x265-params": "max-cll", "x264-params": "cll"}.get(params, "content-light")
        found.append(f"{name}={hdr.light_level[0]},{hdr.light_level[1]}")
    if params == "x265-params" and found:
        found += ["hdr10=1", "repeat-headers=1"]
    return ":".join(found)
