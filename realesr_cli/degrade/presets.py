"""Named degradations: the published ones and gentler ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from realesr_cli.degrade.config import (
    Blur,
    DegradationConfig,
    Final,
    Jpeg,
    Noise,
    Resize,
    Shuffled,
    Stage,
)
from realesr_cli.errors import ConfigError
from realesr_cli.plain import merge
from realesr_cli.settings import from_plain, to_plain
from realesr_cli.text import did_you_mean, format_value

# The JPEG of the last stage is that of `Final`, which can precede or follow the final resize.
_NO_JPEG = Jpeg(probability=0.0)

_FIRST = Stage()
_SECOND = Stage(
    blur=Blur(probability=0.8, sigma=(0.2, 1.5)),
    resize=Resize(up=0.3, down=0.4, keep=0.3, scale=(0.3, 1.2), relative_to="lq"),
    noise=Noise(sigma=(1.0, 25.0), poisson_scale=(0.05, 2.5)),
    jpeg=_NO_JPEG,
)

# Real-ESRGAN's options and code, which made the published weights.
_REALESRGAN = DegradationConfig(stages=(_FIRST, _SECOND), usm=True)


def _as_in_paper(stage: Stage) -> Stage:
    """Return the stage with kernel exponents drawn as in the paper, uniform over their range."""
    return replace(stage, blur=replace(stage.blur, beta_sampling="uniform"))


def _as_in_mmagic(stage: Stage) -> Stage:
    """Return the stage as MMagic runs it: libjpeg, OpenCV's area average, weaker Poisson noise."""
    return Stage(
        blur=replace(stage.blur, beta_sampling="nested"),
        resize=replace(stage.resize, relative_to="current", modes=("box", "bilinear", "bicubic")),
        # MMagic counts photons on images in 0..255, hence 255 times as many.
        noise=replace(stage.noise, levels=256 * 255),
        jpeg=replace(stage.jpeg, encoder="libjpeg"),
    )


_LIGHT = Stage(
    blur=Blur(probability=0.5, sinc=0.05, sizes=(7, 9, 11), sigma=(0.2, 1.0)),
    resize=Resize(up=0.1, down=0.4, keep=0.5, scale=(0.5, 1.2)),
    noise=Noise(probability=0.5, sigma=(1.0, 6.0), poisson_scale=(0.05, 0.6)),
    jpeg=Jpeg(probability=0.3, quality=(75.0, 95.0)),
)

_MEDIUM = (
    Stage(
        blur=Blur(probability=0.8, sigma=(0.2, 2.0)),
        resize=Resize(up=0.2, down=0.5, keep=0.3, scale=(0.3, 1.4)),
        noise=Noise(probability=0.8, sigma=(1.0, 15.0), poisson_scale=(0.05, 1.5)),
        jpeg=Jpeg(probability=0.8, quality=(50.0, 95.0)),
    ),
    Stage(
        blur=Blur(probability=0.5, sigma=(0.2, 1.0)),
        resize=Resize(up=0.3, down=0.3, keep=0.4, scale=(0.5, 1.2), relative_to="lq"),
        noise=Noise(probability=0.5, sigma=(1.0, 10.0), poisson_scale=(0.05, 1.0)),
        jpeg=_NO_JPEG,
    ),
)

PRESETS: dict[str, DegradationConfig] = {
    "realesrgan": _REALESRGAN,
    "realesrgan-paper": replace(
        _REALESRGAN, stages=(_as_in_paper(_FIRST), _as_in_paper(_SECOND)), usm=False
    ),
    "mmagic": replace(
        _REALESRGAN,
        stages=(_as_in_mmagic(_FIRST), _as_in_mmagic(_SECOND)),
        final=Final(
            modes=("box", "bilinear", "bicubic"),
            jpeg=Jpeg(quality=(5.0, 50.0), encoder="libjpeg"),
        ),
    ),
    "bsrgan": DegradationConfig(shuffled=Shuffled()),
    "esrgan": DegradationConfig(final=Final(modes=("matlab",), sinc=0.0, jpeg=_NO_JPEG)),
    "first-order": DegradationConfig(stages=(replace(_FIRST, jpeg=_NO_JPEG),), usm=True),
    "light": DegradationConfig(
        stages=(_LIGHT,),
        final=Final(
            modes=("area", "bilinear", "bicubic", "matlab"),
            sinc=0.2,
            jpeg=Jpeg(probability=0.7, quality=(75.0, 95.0)),
        ),
    ),
    "medium": DegradationConfig(
        stages=_MEDIUM,
        final=Final(sinc=0.5, jpeg=Jpeg(quality=(50.0, 95.0))),
    ),
}

DESCRIPTIONS: dict[str, str] = {
    "realesrgan": "second-order, as used for the published Real-ESRGAN weights",
    "realesrgan-paper": "second-order as in the paper: no sharpening, uniform kernel exponents",
    "mmagic": "second-order as in MMagic: libjpeg, stronger final JPEG, weaker Poisson noise",
    "bsrgan": "BSRGAN: blurs, downscales, noise and JPEG in random order",
    "esrgan": "MATLAB bicubic only, as in ESRGAN and most benchmarks",
    "first-order": "one stage of Real-ESRGAN, and its final resize and JPEG",
    "light": "one gentle stage for good photos: little noise, JPEG 75 to 95",
    "medium": "two stages at about half of Real-ESRGAN's strength",
}


def get_preset(name: str) -> DegradationConfig:
    """Return the degradation of that name; ConfigError with the nearest name if there is none."""
    if name not in PRESETS:
        near = did_you_mean(name, list(PRESETS))
        raise ConfigError(
            f"unknown degradation {format_value(name)}{near} (available: {', '.join(PRESETS)})"
        )
    return PRESETS[name]


def parse_degradation(table: Mapping[str, Any]) -> DegradationConfig:
    """Build a degradation from plain data, as in a TOML file.

    `preset = "light"` is the base that the other keys override; without it they override the
    defaults. A list of stages replaces the preset's. Raises ConfigError for anything unknown.
    """
    rest = {key: value for key, value in table.items() if key != "preset"}
    name = table.get("preset")
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"preset = {format_value(name)}: expected the name of a degradation")
    base = to_plain(get_preset(name) if name is not None else DegradationConfig())
    return from_plain(DegradationConfig, merge(base, rest))
