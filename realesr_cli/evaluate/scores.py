"""The scores a table can have: what they are called, what they compare, which way is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from realesr_cli.errors import ConfigError
from realesr_cli.evaluate.settings import Channel
from realesr_cli.metrics.niqe import niqe
from realesr_cli.metrics.reference import psnr, ssim
from realesr_cli.settings import did_you_mean

_MEANINGS: dict[str, tuple[str, str]] = {
    "mixed": ("psnr-rgb", "ssim-y"),
    "y": ("psnr-y", "ssim-y"),
    "rgb": ("psnr-rgb", "ssim-rgb"),
}
"""What plain `psnr` and `ssim` stand for under each choice of channel."""


@dataclass(frozen=True)
class Metric:
    """A column of a table."""

    key: str
    title: str
    unit: str
    higher: bool
    """Whether more is better."""
    reference: bool
    """Whether it compares with a ground truth."""
    digits: int
    quadratic: bool = False
    """Whether the mean over pictures is that of squares, as for root mean squares."""

    @property
    def direction(self) -> str:
        """`higher is better` or `lower is better`."""
        return "higher is better" if self.higher else "lower is better"

    def mean(self, values: Sequence[float | None]) -> float | None:
        """Over the pictures that have this score; None where none has."""
        there = [value for value in values if value is not None]
        if not there:
            return None
        if self.quadratic:
            return math.sqrt(math.fsum(value**2 for value in there) / len(there))
        return math.fsum(there) / len(there)


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("psnr-rgb", "PSNR (RGB)", "dB", True, True, 3),
        Metric("psnr-y", "PSNR (Y)", "dB", True, True, 3),
        Metric("ssim-rgb", "SSIM (RGB)", "", True, True, 4),
        Metric("ssim-y", "SSIM (Y)", "", True, True, 4),
        Metric("niqe", "NIQE", "", False, False, 3),
    )
}

Score = Callable[[Tensor, Tensor | None], float]
"""A picture and its ground truth, (3, H, W) in [0, 1], to a number; ValueError if it has none."""


def chosen(names: Sequence[str], channel: Channel, *, with_gt: bool) -> tuple[Metric, ...]:
    """The columns of these names, each once; without ground truths only those that need none.

    Raises ConfigError for an unknown name, and where nothing is left.
    """
    if not names:
        raise ConfigError("metrics: name at least one")
    found: dict[str, Metric] = {}
    for name in names:
        key = dict(zip(("psnr", "ssim"), _MEANINGS[channel], strict=True)).get(name, name)
        if key not in METRICS:
            known = ("psnr", "ssim", *METRICS)
            near = did_you_mean(name, known)
            raise ConfigError(f"unknown metric {name!r}{near} (known: {', '.join(known)})")
        found.setdefault(key, METRICS[key])
    kept = tuple(m for m in found.values() if with_gt or not m.reference)
    if not kept:
        raise ConfigError(
            f"{', '.join(names)}: all of them compare with ground truths, which --gt gives; "
            "without it there is niqe"
        )
    return kept


def scorer(metric: Metric, crop: int) -> Score:
    """What computes a metric, `crop` pixels of the border left out."""
    luma = metric.key.endswith("-y")
    if metric.key == "niqe":
        return lambda picture, gt: niqe(picture, crop=crop)
    compare = psnr if metric.key.startswith("psnr") else ssim

    def score(picture: Tensor, gt: Tensor | None) -> float:
        assert gt is not None
        return compare(picture, gt, crop=crop, luma=luma)

    return score
