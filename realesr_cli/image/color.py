"""Color management: tone curves brought near sRGB's for the network, and CMYK, Lab and the like
converted to sRGB.

Networks are trained on sRGB-encoded values. What matters to them is the tone curve; primaries are
left alone, so that no gamut is ever clipped and a wide-gamut image keeps its profile.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image as pillow

from realesr_cli.image import icc as profiles
from realesr_cli.image.depth import Array, band_height
from realesr_cli.image.icc import SRGB, Curve, Floats

_NEAR_SRGB = 0.06
"""Largest difference, in sRGB-encoded values, of a curve that passes as sRGB's. Gamma 2.2 differs
by 0.033, 2.0 by 0.040 and 2.4 by 0.055; Rec. 709 by 0.062, gamma 1.8 by 0.077, linear by 0.62."""


@dataclass(frozen=True)
class ToneCurve:
    """The curves of a profile, one for each channel or one for all."""

    curves: tuple[Curve, ...]

    def to_srgb(self, x: Array) -> Array:
        """Values in the profile's encoding to sRGB's.

        float32 (height, width, channels) in [0, 1], and so is the result.
        """
        return self._apply(x, lambda curve, band: SRGB.encode(curve.decode(band)))

    def from_srgb(self, x: Array) -> Array:
        """The inverse of `to_srgb`."""
        return self._apply(x, lambda curve, band: curve.encode(SRGB.decode(band)))

    def _apply(self, x: Array, function: Callable[[Curve, Floats], Floats]) -> Array:
        result = np.empty(x.shape, np.float32)
        height, width, channels = x.shape
        step = band_height(width, 8)
        for channel in range(channels):
            # A gray image may carry an RGB profile; green's curve stands for brightness then.
            place = channel if len(self.curves) == channels else len(self.curves) // 2
            curve = self.curves[place]
            for start in range(0, height, step):
                band = x[start : start + step, :, channel].astype(np.float64).clip(0, 1)
                result[start : start + step, :, channel] = function(curve, band)
        return result


def tone_curve(icc: bytes | None) -> ToneCurve | None:
    """The curves that take a profile's encoding to sRGB's and back.

    None where there is no profile, where it states no curves (or ones without an inverse), and
    where they are near enough to sRGB's: those of sRGB, Adobe RGB, Display P3 and any gamma
    between 2.0 and 2.4 are; linear ones and ProPhoto's 1.8 are not.
    """
    profile = profiles.parse(icc) if icc else None
    if profile is None or not profile.curves:
        return None
    grid = np.linspace(0, 1, 1025)
    if all(_distance(curve, grid) <= _NEAR_SRGB for curve in profile.curves):
        return None
    return ToneCurve(profile.curves)


def _distance(curve: Curve, grid: Floats) -> float:
    return float(np.abs(SRGB.encode(curve.decode(grid)) - grid).max())


def is_srgb(icc: bytes) -> bool:
    """Whether a profile means sRGB, as far as an eye can tell: its primaries and its curves."""
    profile = profiles.parse(icc)
    if profile is None or not profile.curves:
        return False
    grid = np.linspace(0, 1, 1025)
    near = all(_distance(curve, grid) < 0.01 for curve in profile.curves)
    return near and (profile.space == "GRAY" or profile.srgb_colorants)


def needs_conversion(icc: bytes | None) -> bool:
    """Whether an RGB profile describes its colors by tables alone, so that there is no curve."""
    profile = profiles.parse(icc) if icc else None
    return profile is not None and profile.tables_only


def converted(image: pillow.Image, icc: bytes | None) -> tuple[pillow.Image, str] | None:
    """An 8-bit CMYK, Lab or RGB image as sRGB through a profile, and what was done.

    None where there is no profile that fits the image. The intent is relative colorimetric with
    black-point compensation, as image editors have it.
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
    except (ImageCms.PyCMSError, OSError):
        return None
    if result is None:
        return None
    return result, f"{image.mode} converted to sRGB"


def _fitting(image: pillow.Image, icc: bytes | None) -> io.BytesIO | None:
    profile = profiles.parse(icc) if icc else None
    if icc is None or profile is None or profile.space != image.mode:
        return None
    return io.BytesIO(icc)
