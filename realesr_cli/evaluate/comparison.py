"""The record of a comparison: photos in all their versions, the models and the scores."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from realesr_cli._version import __version__
from realesr_cli.evaluate.scores import METRICS
from realesr_cli.evaluate.sets import Failure
from realesr_cli.image.pixels import Array
from realesr_cli.image.types import Image

Kind = Literal["input", "bicubic", "model", "original"]


@dataclass(frozen=True)
class WeightsFile:
    """A weight file of a model: its name without the folder, and its share in a mixture."""

    name: str
    sha256: str
    share: float = 1.0


@dataclass(frozen=True)
class ModelSummary:
    """A model and its settings; `tile` 0 is the whole image, `overlap` is in input pixels."""

    name: str
    network: str
    scale: int
    license: str
    files: tuple[WeightsFile, ...]
    device: str
    precision: str
    backend: str
    tile: int
    overlap: int | None


@dataclass(frozen=True, eq=False)
class PhotoVersion:
    """One version of a photo.

    `image` has 8 bits; the input has its own size, all others have `scale` times that. `seconds`
    is the time of a model; the keys of `scores` are those of `scores.METRICS`.
    """

    name: str
    kind: Kind
    image: Image
    seconds: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Photo:
    """All versions of one photo; `height` and `width` are those of the upscaled ones."""

    name: str
    height: int
    width: int
    notes: tuple[str, ...]
    versions: tuple[PhotoVersion, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Photos and models side by side; all models have the same `scale`."""

    scale: int
    models: tuple[ModelSummary, ...]
    photos: tuple[Photo, ...]
    failures: tuple[Failure, ...] = ()
    version: str = __version__


def printable(name: str) -> str:
    """Return a file name with what cannot be displayed replaced by U+FFFD."""
    decoded = os.fsencode(name).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in decoded)


def pixels_of(image: Image) -> Array:
    """Return (height, width) of a gray image, else (height, width, channels), alpha last."""
    return np.ascontiguousarray(np.asarray(image))


def score_text(key: str, value: float) -> str:
    """Format a score with its metric's digits; equal images have an infinite PSNR."""
    return "∞" if math.isinf(value) else f"{value:.{METRICS[key].digits}f}"


def full_score(key: str, value: float) -> str:
    """Format a score with its name and unit: `PSNR (Y) 28.420 dB`."""
    metric = METRICS[key]
    return f"{metric.title} {score_text(key, value)} {metric.unit}".rstrip()


def best_of(key: str, versions: Sequence[PhotoVersion]) -> tuple[PhotoVersion, ...]:
    """Return the versions with the best score: several if they are shown with equal digits."""
    best = METRICS[key].best([version.scores.get(key) for version in versions])
    return tuple(version for version, first in zip(versions, best, strict=True) if first)
