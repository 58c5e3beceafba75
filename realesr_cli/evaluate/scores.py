"""The scores of a table: their names, how each is computed, and which direction is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from realesr_cli.errors import ConfigError, ModelUnavailableError
from realesr_cli.evaluate.settings import Channel, ScoreSettings
from realesr_cli.metrics.learned import Dists, Lpips
from realesr_cli.metrics.niqe import niqe
from realesr_cli.metrics.perceptual import PerceptualDistance
from realesr_cli.metrics.reference import psnr, round_luma, ssim
from realesr_cli.progress import Progress, no_progress
from realesr_cli.text import did_you_mean
from realesr_cli.weights.checkpoints import read_state
from realesr_cli.weights.fetch import ensure, is_offline
from realesr_cli.weights.registry import resolve

_CHANNELS: dict[str, tuple[str, str]] = {
    "mixed": ("psnr-rgb", "ssim-y"),
    "y": ("psnr-y", "ssim-y"),
    "y8": ("psnr-y8", "ssim-y8"),
    "rgb": ("psnr-rgb", "ssim-rgb"),
}
"""What plain `psnr` and `ssim` mean for each channel setting."""

FEATURES = "feat-squeeze"
"""Name of the perceptual distance, and of its weights in the registry."""

Distance = Callable[[Tensor, Tensor, int], float]
"""(image, ground truth, crop) to a score of (1, 3, H, W) in [0, 1]; ValueError if too small."""


@dataclass(frozen=True)
class Metric:
    """A column of a table."""

    key: str
    title: str
    unit: str
    higher: bool
    """Whether higher is better."""
    reference: bool
    """Whether it compares with a ground truth."""
    digits: int

    def mean(self, values: Sequence[float | None]) -> float | None:
        """Return the mean over the images that have this score; None if none has."""
        present = [value for value in values if value is not None]
        return math.fsum(present) / len(present) if present else None

    def best(self, values: Sequence[float | None]) -> tuple[bool, ...]:
        """Return which of these are the best: several if they are printed with equal digits."""
        shown = [None if value is None else round(value, self.digits) for value in values]
        present = [value for value in shown if value is not None]
        best = (max if self.higher else min)(present, default=None)
        return tuple(value is not None and value == best for value in shown)


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("psnr-rgb", "PSNR (RGB)", "dB", True, True, 3),
        Metric("psnr-y", "PSNR (Y)", "dB", True, True, 3),
        Metric("psnr-y8", "PSNR (Y8)", "dB", True, True, 3),
        Metric("ssim-rgb", "SSIM (RGB)", "", True, True, 4),
        Metric("ssim-y", "SSIM (Y)", "", True, True, 4),
        Metric("ssim-y8", "SSIM (Y8)", "", True, True, 4),
        Metric(FEATURES, "Perceptual", "", False, True, 3),
        Metric("lpips", "LPIPS", "", False, True, 4),
        Metric("dists", "DISTS", "", False, True, 4),
        Metric("niqe", "NIQE", "", False, False, 3),
    )
}


_PLAIN: Mapping[str, Distance] = {
    "psnr-rgb": lambda a, b, crop: psnr(a, b, crop=crop),
    "psnr-y": lambda a, b, crop: psnr(a, b, crop=crop, luma=True),
    "psnr-y8": lambda a, b, crop: psnr(round_luma(a), round_luma(b), crop=crop),
    "ssim-rgb": lambda a, b, crop: ssim(a, b, crop=crop),
    "ssim-y": lambda a, b, crop: ssim(a, b, crop=crop, luma=True),
    "ssim-y8": lambda a, b, crop: ssim(round_luma(a), round_luma(b), crop=crop),
}
"""Metrics with a reference that need no weights."""

Values = tuple[float | None, ...]
"""Scores in the order of the columns; None if an image has none."""


def select_metrics(names: Sequence[str], channel: Channel, *, with_gt: bool) -> tuple[Metric, ...]:
    """Return the columns of these names, each once; without ground truths only those without.

    Raises ConfigError for an unknown name, and if no column is left.
    """
    if not names:
        raise ConfigError("metrics is empty: expected at least one name")
    found: dict[str, Metric] = {}
    for name in names:
        key = dict(zip(("psnr", "ssim"), _CHANNELS[channel], strict=True)).get(name, name)
        if key not in METRICS:
            known = ("psnr", "ssim", *METRICS)
            near = did_you_mean(name, known)
            raise ConfigError(f"unknown metric {name!r}{near} (known: {', '.join(known)})")
        found.setdefault(key, METRICS[key])
    kept = tuple(m for m in found.values() if with_gt or not m.reference)
    if not kept:
        raise ConfigError(
            f"{', '.join(names)}: all of these metrics compare with ground truths, but gt is not "
            "set; without ground truths there is niqe"
        )
    return kept


@dataclass(frozen=True)
class Scorer:
    """Computes the columns of a table for one image; `crop` border pixels are excluded."""

    metrics: tuple[Metric, ...]
    crop: int
    distances: Mapping[str, Distance] = field(default_factory=lambda: _PLAIN)
    """How to compute the metrics with a reference, by key; see `load_scorer`."""

    def __call__(self, image: Tensor, gt: Tensor | None) -> tuple[Values, dict[str, str]]:
        """Return the scores of an image, and by key why it lacks some (it is too small).

        image, gt: (1, 3, H, W) in [0, 1]; `gt` is None only if no column needs it.
        """
        found: list[float | None] = []
        reasons: dict[str, str] = {}
        for metric in self.metrics:
            try:
                if metric.reference:
                    assert gt is not None
                    found.append(self.distances[metric.key](image, gt, self.crop))
                else:
                    found.append(niqe(image, crop=self.crop))
            except ValueError as error:
                found.append(None)
                reasons[metric.key] = str(error)
        return tuple(found), reasons


def load_scorer(
    metrics: tuple[Metric, ...],
    crop: int,
    settings: ScoreSettings,
    progress: Progress = no_progress,
) -> Scorer:
    """Return the scorer of these columns, with the weights that they need.

    `progress` counts downloaded bytes. Raises MissingDependencyError, ModelUnavailableError,
    ChecksumMismatchError and CheckpointFormatError if a metric cannot be loaded.
    """
    keys = {metric.key for metric in metrics}
    offline = is_offline(settings.offline)
    loaded: dict[str, Distance] = {}
    if FEATURES in keys:
        loaded[FEATURES] = _load_features(settings, progress)
    if "lpips" in keys:
        loaded["lpips"] = Lpips(settings.lpips_net, offline=offline)
    if "dists" in keys:
        loaded["dists"] = Dists(offline=offline)
    return Scorer(metrics, crop, {**_PLAIN, **loaded})


def _load_features(settings: ScoreSettings, progress: Progress) -> Distance:
    path = settings.feat_weights
    if path is None:
        try:
            path = ensure(resolve(FEATURES), offline=settings.offline, progress=progress)
        except ModelUnavailableError as error:
            raise ModelUnavailableError(str(error), advice="feat-squeeze") from error
    distance = PerceptualDistance(read_state(path)[0])

    @torch.inference_mode()
    def compute(image: Tensor, gt: Tensor, crop: int) -> float:
        return float(distance(image.float(), gt.float(), crop=crop))

    return compute
