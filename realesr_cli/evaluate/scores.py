"""The scores a table can have: what they are called, what they compare, which way is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from realesr_cli.errors import ConfigError
from realesr_cli.evaluate.settings import Channel
from realesr_cli.metrics.niqe import niqe
from realesr_cli.metrics.perceptual_index import MaScores, perceptual_index, rmse
from realesr_cli.metrics.reference import psnr, ssim, whole_luma
from realesr_cli.text import did_you_mean

_MEANINGS: dict[str, tuple[str, str]] = {
    "mixed": ("psnr-rgb", "ssim-y"),
    "y": ("psnr-y", "ssim-y"),
    "y8": ("psnr-y8", "ssim-y8"),
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
    """Whether the mean over images is that of squares, as for root mean squares."""

    def mean(self, values: Sequence[float | None]) -> float | None:
        """Over the images that have this score; None where none has."""
        there = [value for value in values if value is not None]
        if not there:
            return None
        if self.quadratic:
            return math.sqrt(math.fsum(value**2 for value in there) / len(there))
        return math.fsum(there) / len(there)

    def best(self, values: Sequence[float | None]) -> tuple[bool, ...]:
        """Which of these are the best, several where they show the same digits."""
        shown = [None if value is None else round(value, self.digits) for value in values]
        there = [value for value in shown if value is not None]
        best = (max if self.higher else min)(there, default=None)
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
        Metric("rmse", "RMSE (Y8)", "of 255", False, True, 3, quadratic=True),
        Metric("lpips", "LPIPS", "", False, True, 4),
        Metric("niqe", "NIQE", "", False, False, 3),
        Metric("pi", "PI", "", False, False, 3),
    )
}

Values = tuple[float | None, ...]
"""Scores in the order of the columns; None where an image has none."""


def select_metrics(names: Sequence[str], channel: Channel, *, with_gt: bool) -> tuple[Metric, ...]:
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


@dataclass(frozen=True)
class Scorer:
    """Computes the columns of a table for one image; `crop` border pixels are left out."""

    metrics: tuple[Metric, ...]
    crop: int
    lpips: Callable[..., float] | None = None
    ma: MaScores | None = None

    def scores(
        self, image: Tensor, gt: Tensor | None, name: str, method: str
    ) -> tuple[Values, dict[str, str]]:
        """The scores of an image, and why it has none in some column, by key of the column.

        image, gt: (3, H, W) in [0, 1]; `name` and `method` find the score of Ma et al.
        """
        found: dict[str, float] = {}
        reasons: dict[str, str] = {}
        # NIQE first, since PI is made of it.
        keys = [metric.key for metric in self.metrics]
        for key in sorted(keys, key=lambda k: k == "pi"):
            try:
                if key == "pi":
                    found[key] = self._index(image, found.get("niqe"), name, method)
                elif key == "niqe":
                    found[key] = niqe(image, crop=self.crop)
                else:
                    assert gt is not None
                    found[key] = self._distance(key, image, gt)
            except ValueError as error:
                reasons[key] = str(error)
        return tuple(found.get(key) for key in keys), reasons

    def _index(self, image: Tensor, natural: float | None, name: str, method: str) -> float:
        own = None if self.ma is None else self.ma.of(method)
        if own is None:
            raise ValueError(f"no scores of Ma et al. for {method}")
        return perceptual_index(
            own[name], niqe(image, crop=self.crop) if natural is None else natural
        )

    def _distance(self, key: str, image: Tensor, gt: Tensor) -> float:
        if key == "lpips":
            assert self.lpips is not None
            return self.lpips(image, gt, crop=self.crop)
        if key == "rmse":
            return rmse(image, gt, crop=self.crop)
        what, _, channel = key.partition("-")
        compare = psnr if what == "psnr" else ssim
        if channel == "y8":
            return compare(whole_luma(image), whole_luma(gt), crop=self.crop)
        return compare(image, gt, crop=self.crop, luma=channel == "y")
