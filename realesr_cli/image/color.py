"""Color management: ICC profiles, their tone curves, and conversion of CMYK and Lab to sRGB.

Networks are trained on sRGB-encoded values. What matters to them is the tone curve, so images with
another curve are converted before the network and back after it. Primaries are left alone: no
gamut is clipped, and a wide-gamut image keeps its profile.

Source: ICC.1:2022 sections 7.2 (header), 7.3 (tag table), 10.6 (curveType), 10.18
(parametricCurveType) and 10.31 (XYZType).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as pillow

from realesr_cli.image.pixels import Array, band_height

Floats = NDArray[np.floating]

_NEAR_SRGB = 0.06
"""Largest difference, in sRGB-encoded values, of a curve that is treated as sRGB. Gamma 2.2 differs
by 0.033, 2.0 by 0.040 and 2.4 by 0.055; Rec. 709 by 0.062, gamma 1.8 by 0.077, linear by 0.62."""

_PARAMETERS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}
"""Number of parameters of each function type (ICC.1:2022, table 68)."""

_MAX_TAGS = 1024
_MAX_CURVE_POINTS = 65_536
_MIN_GAMMA, _MAX_GAMMA = 0.1, 10

_SRGB_COLORANTS = (
    ("rXYZ", (0.4361, 0.2225, 0.0139)),
    ("gXYZ", (0.3851, 0.7169, 0.0971)),
    ("bXYZ", (0.1431, 0.0606, 0.7141)),
)
"""The primaries that sRGB profiles state, adapted to D50."""


@dataclass(frozen=True)
class Parametric:
    """The curve (a x + b)^g + e for x >= d, and c x + f below, rising from 0 to about 1."""

    g: float
    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0
    e: float = 0.0
    f: float = 0.0

    def decode(self, encoded: Floats) -> Floats:
        """Convert encoded values in [0, 1] to linear light."""
        upper = np.power(np.maximum(self.a * encoded + self.b, 0), self.g) + self.e
        return np.where(encoded >= self.d, upper, self.c * encoded + self.f)

    def encode(self, linear: Floats) -> Floats:
        """Convert linear light to encoded values in [0, 1]; the inverse of `decode`."""
        bend = float(self.decode(np.array(self.d)))
        upper = (np.power(np.maximum(linear - self.e, 0), 1 / self.g) - self.b) / self.a
        lower = (linear - self.f) / self.c if self.c else np.full_like(linear, self.d)
        return np.clip(np.where(linear >= bend, upper, lower), 0, 1)


@dataclass(frozen=True)
class Table:
    """A curve through equally spaced points, linear between them."""

    values: tuple[float, ...]

    def decode(self, encoded: Floats) -> Floats:
        """Convert encoded values in [0, 1] to linear light."""
        return np.interp(encoded, np.linspace(0, 1, len(self.values)), self.values)

    def encode(self, linear: Floats) -> Floats:
        """Convert linear light to encoded values in [0, 1]; inverts `decode` where that rises."""
        return np.interp(linear, self.values, np.linspace(0, 1, len(self.values)))


Curve = Parametric | Table

SRGB = Parametric(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
"""IEC 61966-2-1."""


@dataclass(frozen=True)
class Profile:
    """An ICC profile: its color space (`RGB`, `GRAY`, `CMYK`, `Lab`) and where its tags are."""

    data: bytes
    space: str
    tags: dict[str, tuple[int, int]]
    """Start and end of each tag. Tags may share bytes, so they are sliced only when asked for."""

    def tag(self, name: str) -> bytes:
        """Return the bytes of a tag; empty if there is none."""
        start, end = self.tags.get(name, (0, 0))
        return self.data[start:end]

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The tone curves of a gray profile (one) or a matrix profile (three); else none."""
        names = {"GRAY": ("kTRC",), "RGB": ("rTRC", "gTRC", "bTRC")}.get(self.space, ())
        found = [_parse_curve(self.tag(name)) for name in names]
        return tuple(curve for curve in found if curve is not None) if all(found) else ()

    @property
    def tables_only(self) -> bool:
        """Whether an RGB profile describes its colors by lookup tables alone, without curves."""
        return self.space == "RGB" and "A2B0" in self.tags and not self.curves

    @property
    def srgb_colorants(self) -> bool:
        """Whether the primaries are those of sRGB, within 0.003."""
        for name, expected in _SRGB_COLORANTS:
            found = _parse_xyz(self.tag(name))
            if (
                found is None
                or max(abs(x - y) for x, y in zip(found, expected, strict=True)) > 3e-3
            ):
                return False
        return True


def parse_profile(icc: bytes | None) -> Profile | None:
    """Parse an ICC profile; None if there is none or it is damaged."""
    if icc is None or len(icc) < 132 or icc[36:40] != b"acsp":
        return None
    space = icc[16:20].decode("latin1").strip()
    (count,) = struct.unpack_from(">I", icc, 128)
    if count > _MAX_TAGS or len(icc) < 132 + 12 * count:
        return None
    tags = {}
    for index in range(count):
        name, start, size = struct.unpack_from(">4sII", icc, 132 + 12 * index)
        if start + size > len(icc):
            return None
        tags[name.decode("latin1")] = (start, start + size)
    return Profile(icc, space, tags)


def _parse_curve(tag: bytes) -> Curve | None:
    kind = tag[:4]
    curve: Curve | None = None
    if kind == b"curv" and len(tag) >= 12:
        curve = _parse_sampled_curve(tag)
    elif kind == b"para" and len(tag) >= 12:
        curve = _parse_parametric_curve(tag)
    return curve if curve is not None and _rises(curve) else None


def _rises(curve: Curve) -> bool:
    """Return whether a curve is finite and rises, so that it has an inverse."""
    with np.errstate(all="ignore"):
        values = curve.decode(np.linspace(0, 1, 257))
    if not np.isfinite(values).all() or abs(values).max() > 2:
        return False
    # Rounded parameters may leave a small step down where the two parts of a curve meet.
    return bool(np.diff(values).min() > -1e-2 and values[-1] > values[0])


def _parse_sampled_curve(tag: bytes) -> Curve | None:
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return Parametric(1.0)
    if count > _MAX_CURVE_POINTS or len(tag) < 12 + 2 * count:
        return None
    points = np.frombuffer(tag, ">u2", count, 12)
    if count == 1:
        gamma = points[0] / 256
        return Parametric(gamma) if _MIN_GAMMA < gamma < _MAX_GAMMA else None
    # A part that falls has no inverse, so it is held level.
    rising = np.maximum.accumulate(points.astype(np.float64)) / 65535
    return Table(tuple(rising.tolist())) if points[-1] > points[0] else None


def _parse_parametric_curve(tag: bytes) -> Curve | None:
    (kind,) = struct.unpack_from(">H", tag, 8)
    count = _PARAMETERS.get(kind)
    if count is None or len(tag) < 12 + 4 * count:
        return None
    g, *rest = (value / 65536 for value in struct.unpack_from(f">{count}i", tag, 12))
    a = rest[0] if rest else 1.0
    if not _MIN_GAMMA < g < _MAX_GAMMA or a <= 0:
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


def _parse_xyz(tag: bytes) -> tuple[float, float, float] | None:
    if tag[:4] != b"XYZ " or len(tag) < 20:
        return None
    x, y, z = (value / 65536 for value in struct.unpack_from(">3i", tag, 8))
    return x, y, z


@dataclass(frozen=True)
class ToneCurve:
    """The curves of a profile: one per channel, or one for all channels."""

    curves: tuple[Curve, ...]

    def to_srgb(self, x: Array) -> Array:
        """Convert values in the profile's encoding to sRGB's.

        Takes and returns float32 (height, width, channels) in [0, 1].
        """
        return self._apply(x, lambda curve, band: SRGB.encode(curve.decode(band)))

    def from_srgb(self, x: Array) -> Array:
        """Convert values in sRGB's encoding to the profile's; the inverse of `to_srgb`."""
        return self._apply(x, lambda curve, band: curve.encode(SRGB.decode(band)))

    def _apply(self, x: Array, function: Callable[[Curve, Floats], Floats]) -> Array:
        result = np.empty(x.shape, np.float32)
        height, width, channels = x.shape
        step = band_height(width, 8)
        for channel in range(channels):
            # A gray image may carry an RGB profile; then green's curve stands for brightness.
            place = channel if len(self.curves) == channels else len(self.curves) // 2
            curve = self.curves[place]
            for start in range(0, height, step):
                band = x[start : start + step, :, channel].astype(np.float64).clip(0, 1)
                with np.errstate(all="ignore"):  # Values outside a curve's domain are clipped.
                    result[start : start + step, :, channel] = function(curve, band)
        return result


def tone_curve(icc: bytes | None) -> ToneCurve | None:
    """Return the curves that convert a profile's encoding to sRGB's and back.

    None if there is no profile, if it has no curves (or none that can be inverted), and if they are
    close to sRGB's: those of sRGB, Adobe RGB, Display P3 and any gamma between 2.0 and 2.4 are;
    linear ones and ProPhoto's 1.8 are not.
    """
    profile = parse_profile(icc)
    if profile is None or not profile.curves:
        return None
    grid = np.linspace(0, 1, 1025)
    if all(_distance_to_srgb(curve, grid) <= _NEAR_SRGB for curve in profile.curves):
        return None
    return ToneCurve(profile.curves)


def _distance_to_srgb(curve: Curve, grid: Floats) -> float:
    return float(np.abs(SRGB.encode(curve.decode(grid)) - grid).max())


def is_srgb(icc: bytes | None) -> bool:
    """Return whether a profile looks the same as sRGB: its primaries and its curves."""
    profile = parse_profile(icc)
    if profile is None or not profile.curves:
        return False
    grid = np.linspace(0, 1, 1025)
    near = all(_distance_to_srgb(curve, grid) < 0.01 for curve in profile.curves)
    return near and (profile.space == "GRAY" or profile.srgb_colorants)


def needs_conversion(icc: bytes | None) -> bool:
    """Return whether an RGB profile has lookup tables only, so that no curve can be applied."""
    profile = parse_profile(icc)
    return profile is not None and profile.tables_only


def convert_to_srgb(image: pillow.Image, icc: bytes | None) -> tuple[pillow.Image, str] | None:
    """Convert an 8-bit CMYK, Lab or RGB image to sRGB through its profile.

    Returns the image and a note of what was done, or None if no profile fits the image. The
    rendering intent is relative colorimetric with black-point compensation, the default of image
    editors.
    """
    from PIL import ImageCms

    try:
        source = ImageCms.createProfile("LAB") if image.mode == "LAB" else _fitting(image, icc)
        if source is None:
            return None
        result = ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if result is None:
        return None
    return result, f"{image.mode} converted to sRGB"


def _fitting(image: pillow.Image, icc: bytes | None) -> io.BytesIO | None:
    profile = parse_profile(icc)
    if icc is None or profile is None or profile.space != image.mode:
        return None
    return io.BytesIO(icc)
