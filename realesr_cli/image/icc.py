"""ICC profiles: what their header and tags say, the tone curves above all.

Source: ICC.1:2022 sections 7.2 (header), 7.3 (tag table), 10.6 (curveType), 10.18
(parametricCurveType) and 10.31 (XYZType).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

_PARAMETERS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}


@dataclass(frozen=True)
class Parametric:
    """The curve (a x + b)^g + e from d on and c x + f below, rising from 0 to about 1."""

    g: float
    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0
    e: float = 0.0
    f: float = 0.0

    def decode(self, encoded: Floats) -> Floats:
        """Encoded values in [0, 1] to linear light."""
        upper = np.power(np.maximum(self.a * encoded + self.b, 0), self.g) + self.e
        return np.where(encoded >= self.d, upper, self.c * encoded + self.f)

    def encode(self, linear: Floats) -> Floats:
        """Linear light to encoded values in [0, 1]; the inverse of `decode`."""
        bend = float(self.decode(np.array(self.d)))
        upper = (np.power(np.maximum(linear - self.e, 0), 1 / self.g) - self.b) / self.a
        lower = (linear - self.f) / self.c if self.c else np.full_like(linear, self.d)
        return np.clip(np.where(linear >= bend, upper, lower), 0, 1)


@dataclass(frozen=True)
class Table:
    """A curve through equally spaced points, straight between them."""

    values: tuple[float, ...]

    def decode(self, encoded: Floats) -> Floats:
        """Encoded values in [0, 1] to linear light."""
        return np.interp(encoded, np.linspace(0, 1, len(self.values)), self.values)

    def encode(self, linear: Floats) -> Floats:
        """Linear light to encoded values in [0, 1]; the inverse of `decode` where that rises."""
        return np.interp(linear, self.values, np.linspace(0, 1, len(self.values)))


Curve = Parametric | Table

SRGB = Parametric(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
"""IEC 61966-2-1."""

_SRGB_COLUMNS = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
"""What sRGB profiles state as the colorants, adapted to D50."""


@dataclass(frozen=True)
class Profile:
    """The color space a profile is for (`RGB`, `GRAY`, `CMYK`, `Lab`) and its tags."""

    space: str
    tags: dict[str, bytes]

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The tone curves of a gray profile (one) or a matrix profile (three); else none."""
        names = {"GRAY": ("kTRC",), "RGB": ("rTRC", "gTRC", "bTRC")}.get(self.space, ())
        found = [_curve(self.tags.get(name, b"")) for name in names]
        return tuple(curve for curve in found if curve is not None) if all(found) else ()

    @property
    def tables_only(self) -> bool:
        """Whether an RGB profile describes its colors by tables alone, without curves."""
        return self.space == "RGB" and "A2B0" in self.tags and not self.curves

    @property
    def srgb_colorants(self) -> bool:
        """Whether the primaries are those of sRGB, to three thousandths."""
        columns = [_xyz(self.tags.get(name, b"")) for name in ("rXYZ", "gXYZ", "bXYZ")]
        return all(
            column is not None
            and max(abs(x - y) for x, y in zip(column, known, strict=True)) < 3e-3
            for column, known in zip(columns, _SRGB_COLUMNS, strict=True)
        )


def parse(icc: bytes) -> Profile | None:
    """The profile, or None where the bytes are none or are damaged."""
    if len(icc) < 132 or icc[36:40] != b"acsp":
        return None
    space = icc[16:20].decode("latin1").strip()
    (count,) = struct.unpack_from(">I", icc, 128)
    if len(icc) < 132 + 12 * count:
        return None
    tags = {}
    for index in range(count):
        name, start, size = struct.unpack_from(">4sII", icc, 132 + 12 * index)
        if start + size > len(icc):
            return None
        tags[name.decode("latin1")] = icc[start : start + size]
    return Profile(space, tags)


def _curve(tag: bytes) -> Curve | None:
    kind = tag[:4]
    if kind == b"curv" and len(tag) >= 12:
        return _sampled_curve(tag)
    if kind == b"para" and len(tag) >= 12:
        return _parametric_curve(tag)
    return None


def _sampled_curve(tag: bytes) -> Curve | None:
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return Parametric(1.0)
    if len(tag) < 12 + 2 * count:
        return None
    points = np.frombuffer(tag, ">u2", count, 12)
    if count == 1:
        return Parametric(points[0] / 256) if points[0] else None
    # A curve that falls somewhere has no inverse: hold it level there.
    rising = np.maximum.accumulate(points.astype(np.float64)) / 65535
    return Table(tuple(rising.tolist())) if points[-1] > points[0] else None


def _parametric_curve(tag: bytes) -> Curve | None:
    (kind,) = struct.unpack_from(">H", tag, 8)
    count = _PARAMETERS.get(kind)
    if count is None or len(tag) < 12 + 4 * count:
        return None
    g, *rest = (value / 65536 for value in struct.unpack_from(f">{count}i", tag, 12))
    a = rest[0] if rest else 1.0
    if g <= 0 or a <= 0:
        return None
    if kind == 0:
        return Parametric(g)
    b = rest[1]
    if kind in (1, 2):
        level = rest[2] if kind == 2 else 0.0
        return Parametric(g, a, b, e=level, f=level)
    c, d = rest[2], rest[3]
    e, f = (rest[4], rest[5]) if kind == 4 else (0.0, 0.0)
    return Parametric(g, a, b, c, d, e, f) if c >= 0 else None


def _xyz(tag: bytes) -> tuple[float, float, float] | None:
    if tag[:4] != b"XYZ " or len(tag) < 20:
        return None
    x, y, z = (value / 65536 for value in struct.unpack_from(">3i", tag, 8))
    return x, y, z
