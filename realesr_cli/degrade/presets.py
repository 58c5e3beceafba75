"""Degradations by name, as published and lighter."""

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
from realesr_cli.text import did_you_mean

# The last stage's JPEG is the one of the end, which changes places with resize and ringing.
_NO_JPEG = Jpeg(chance=0.0)

_FIRST = Stage()
_SECOND = Stage(
    blur=Blur(chance=0.8, sigma=(0.2, 1.5)),
    resize=Resize(up=0.3, down=0.4, keep=0.3, scale=(0.3, 1.2), of="lq"),
    noise=Noise(sigma=(1.0, 25.0), poisson_scale=(0.05, 2.5)),
    jpeg=_NO_JPEG,
)

# Real-ESRGAN's options and code, which made the published weights.
_REALESRGAN = DegradationConfig(stages=(_FIRST, _SECOND), usm=True)


def _paper(stage: Stage) -> Stage:
    """A stage with the shape exponents drawn as the paper says, uniform over their range."""
    return replace(stage, blur=replace(stage.blur, beta_draw="uniform"))


def _mmagic(stage: Stage) -> Stage:
    """A stage as MMagic runs it: libjpeg, OpenCV's area average, weaker Poisson noise."""
    return Stage(
        blur=replace(stage.blur, beta_draw="nested"),
        resize=replace(stage.resize, of="current", modes=("box", "bilinear", "bicubic")),
        # Its images are 0..255 when photons are counted: 255 times as many.
        noise=replace(stage.noise, levels=256 * 255),
        jpeg=replace(stage.jpeg, encoder="libjpeg"),
    )


_LIGHT = Stage(
    blur=Blur(chance=0.5, sinc=0.05, sizes=(7, 9, 11), sigma=(0.2, 1.0)),
    resize=Resize(up=0.1, down=0.4, keep=0.5, scale=(0.5, 1.2)),
    noise=Noise(chance=0.5, sigma=(1.0, 6.0), poisson_scale=(0.05, 0.6)),
    jpeg=Jpeg(chance=0.3, quality=(75.0, 95.0)),
)

_MEDIUM = (
    Stage(
        blur=Blur(chance=0.8, sigma=(0.2, 2.0)),
        resize=Resize(up=0.2, down=0.5, keep=0.3, scale=(0.3, 1.4)),
        noise=Noise(chance=0.8, sigma=(1.0, 15.0), poisson_scale=(0.05, 1.5)),
        jpeg=Jpeg(chance=0.8, quality=(50.0, 95.0)),
    ),
    Stage(
        blur=Blur(chance=0.5, sigma=(0.2, 1.0)),
        resize=Resize(up=0.3, down=0.3, keep=0.4, scale=(0.5, 1.2), of="lq"),
        noise=Noise(chance=0.5, sigma=(1.0, 10.0), poisson_scale=(0.05, 1.0)),
        jpeg=_NO_JPEG,
    ),
)

PRESETS: dict[str, DegradationConfig] = {
    "realesrgan": _REALESRGAN,
    "realesrgan-paper": replace(_REALESRGAN, stages=(_paper(_FIRST), _paper(_SECOND)), usm=False),
    "mmagic": replace(
        _REALESRGAN,
        stages=(_mmagic(_FIRST), _mmagic(_SECOND)),
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
            jpeg=Jpeg(chance=0.7, quality=(75.0, 95.0)),
        ),
    ),
    "medium": DegradationConfig(
        stages=_MEDIUM,
        final=Final(sinc=0.5, jpeg=Jpeg(quality=(50.0, 95.0))),
    ),
}

DESCRIPTIONS: dict[str, str] = {
    "realesrgan": "second-order, as the published Real-ESRGAN weights were trained",
    "realesrgan-paper": "the same as the paper words it: no sharpening, uniform kernel shapes",
    "mmagic": "second-order as MMagic runs it: libjpeg, harder final JPEG, weaker Poisson noise",
    "bsrgan": "BSRGAN: blurs, shrinkings, noise and JPEG in random order",
    "esrgan": "MATLAB bicubic only, as in ESRGAN and most benchmarks",
    "first-order": "one stage of Real-ESRGAN and its end",
    "light": "one gentle stage: good photos, little noise, JPEG 75 to 95",
    "medium": "two stages at about half of Real-ESRGAN's strength",
}


def preset(name: str) -> DegradationConfig:
    """The degradation of that name; ConfigError with the nearest name if there is none."""
    if name not in PRESETS:
        near = did_you_mean(name, list(PRESETS))
        raise ConfigError(f"unknown degradation {name!r}{near} (known: {', '.join(PRESETS)})")
    return PRESETS[name]


def from_table(table: Mapping[str, Any]) -> DegradationConfig:
    """A degradation from plain data, as a TOML file has it.

    `preset = "light"` is the base on which the other keys are laid; without it they are laid on the
    defaults. A list of stages replaces the preset's. ConfigError for anything unknown.
    """
    rest = {key: value for key, value in table.items() if key != "preset"}
    name = table.get("preset")
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"preset = {name!r}: expected the name of a degradation")
    base = to_plain(preset(name) if name is not None else DegradationConfig())
    return from_plain(DegradationConfig, merge(base, rest))
