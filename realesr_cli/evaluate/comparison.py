"""What a comparison holds: photos in all their versions, the models, and what was measured."""

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
from realesr_cli.image.depth import Array
from realesr_cli.image.types import Image

Kind = Literal["input", "bicubic", "model", "original"]


@dataclass(frozen=True)
class WeightsFile:
    """A file whose weights a model has: its name without the folder, and its share in a mixture."""

    name: str
    sha256: str
    share: float = 1.0


@dataclass(frozen=True)
class ModelSummary:
    """What images were made with; `tile` 0 is the whole image, `overlap` in input pixels."""

    name: str
    network: str
    scale: int
    license: str
    files: tuple[WeightsFile, ...]
    device: str
    precision: str
    tile: int
    overlap: int | None


@dataclass(frozen=True, eq=False)
class PhotoVersion:
    """One form of a photo.

    `image` has 8 bits; the input's has its own size, all others have `scale` times that.
    `seconds` is what a model took; `scores` go by the keys of `scores.METRICS`.
    """

    name: str
    kind: Kind
    image: Image
    seconds: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Photo:
    """All versions of one photo; `height` and `width` are those of the enlarged ones."""

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
    """A file name as text that any page or font takes: what cannot be shown becomes U+FFFD."""
    decoded = os.fsencode(name).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in decoded)


def pixels_of(image: Image) -> Array:
    """(height, width) of a gray image, else (height, width, channels), alpha last."""
    return np.ascontiguousarray(np.asarray(image))


def score_text(key: str, value: float) -> str:
    """A score in the digits of its metric; equal images have an infinite PSNR."""
    return "∞" if math.isinf(value) else f"{value:.{METRICS[key].digits}f}"


def full_score(key: str, value: float) -> str:
    """A score with its name and unit: `PSNR (Y) 28.420 dB`."""
    metric = METRICS[key]
    return f"{metric.title} {score_text(key, value)} {metric.unit}".rstrip()


def best_of(key: str, versions: Sequence[PhotoVersion]) -> tuple[PhotoVersion, ...]:
    """The versions with the best score, several where they show the same digits."""
    best = METRICS[key].best([version.scores.get(key) for version in versions])
    return tuple(version for version, first in zip(versions, best, strict=True) if first)
