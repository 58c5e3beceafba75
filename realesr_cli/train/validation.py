"""Validation: scores and sample sheets of a network on images it is not trained on."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as pillow
from PIL import ImageDraw, ImageFont
from torch import nn

from realesr_cli.degrade.degradation import apply, sample
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.image.read import read_rgb8
from realesr_cli.image.types import Image
from realesr_cli.metrics.perceptual import SMALLEST
from realesr_cli.metrics.reference import psnr, ssim
from realesr_cli.ops.quantize import from_8bit_levels, to_8bit_levels
from realesr_cli.ops.resize import imresize
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.cropping import Pixels
from realesr_cli.train.events import Scores
from realesr_cli.train.files import TrainingImage

SHEET_SIDE = 256
"""Largest side in ground-truth pixels of an image on a sample sheet."""

LABEL = 14
"""Height in pixels of a line of text on a sample sheet."""

MIN_SAMPLES = 8
"""Of fewer images, several crops each are validated; scores of one crop are mostly chance."""

MAX_PSNR = 100.0
"""Replaces the infinite PSNR of equal images, so that means stay finite."""


@dataclass(frozen=True)
class ValidationSample:
    """One validation image: `lq` and the `scale` times larger `gt`, both (H, W, 3) uint8."""

    name: str
    gt: Pixels
    lq: Pixels


def prepare_samples(
    images: Sequence[TrainingImage], config: TrainConfig
) -> tuple[ValidationSample, ...]:
    """Decode, crop and degrade the validation images, the same way for the same seed.

    The first sample of every image is its center; further ones, with `validation.crops`, are at
    random positions, each with its own degradation. Raises the ImageError of an image that cannot
    be decoded.
    """
    count = config.validation.crops or -(-MIN_SAMPLES // len(images))
    columns = [_prepare_image(image, i, config, count) for i, image in enumerate(images)]
    # Every image once before the second crop of any, so that sheets show different images.
    rows = itertools.zip_longest(*columns)
    return tuple(item for row in rows for item in row if item is not None)


def _prepare_image(
    image: TrainingImage, number: int, config: TrainConfig, count: int
) -> list[ValidationSample]:
    """Return at most `count` samples of an image; fewer where pairs would repeat."""
    gt = read_rgb8(image.gt)
    lq = None if image.lq is None else read_rgb8(image.lq)
    scale = config.scale
    found: dict[tuple[int, int, int], ValidationSample] = {}
    side = config.validation.side // scale or max(gt.shape)
    rows, columns = gt.shape[0] // scale, gt.shape[1] // scale
    height, width = min(side, rows), min(side, columns)
    places = np.random.default_rng((config.seed, number, 0, 4))
    for index in range(count):
        top, left = (rows - height) // 2, (columns - width) // 2
        if index:
            top = int(places.integers(rows - height + 1))
            left = int(places.integers(columns - width + 1))
        crop = gt[top * scale : (top + height) * scale, left * scale : (left + width) * scale]
        key = (top, left, index if lq is None else 0)
        if key in found:
            continue
        small = (
            _degrade(crop, config, (config.seed, number, index, 3))
            if lq is None
            else lq[top : top + height, left : left + width]
        )
        found[key] = ValidationSample(image.gt.stem, crop, small)
    return list(found.values())


def _degrade(gt: Pixels, config: TrainConfig, seed: tuple[int, ...]) -> Pixels:
    height, width = gt.shape[:2]
    rng = np.random.default_rng(seed)
    recipe = sample(config.degradation, rng, scale=config.scale, size=(height, width))
    return to_8bit_levels(apply(recipe, from_8bit_levels(gt))[0])


class Validator:
    """Scores networks on the validation samples of a run; always in fp32."""

    def __init__(
        self, images: Sequence[TrainingImage], config: TrainConfig, *, perceptual: nn.Module | None
    ) -> None:
        """Prepare the samples; `perceptual` returns the feature distance of two batches.

        Raises the ImageError of an image that cannot be decoded.
        """
        self.samples = prepare_samples(images, config)
        self.scale = config.scale
        self.perceptual = perceptual

    @functools.cached_property
    def bicubic(self) -> Scores:
        """Scores of MATLAB's bicubic, for comparison."""
        return self.score(upscale_bicubic(self.samples, self.scale))

    def score(self, outputs: Sequence[Pixels]) -> Scores:
        """Compute mean scores of outputs for all samples."""
        return compute_scores(self.samples, outputs, self.scale, self.perceptual)


def upscale_samples(
    net: nn.Module, samples: Sequence[ValidationSample], device: torch.device
) -> list[Pixels]:
    """Upscale the low-quality images with the network, as `realesr upscale` would.

    In fp32, so that scores do not depend on the precision of the training.
    """
    # The current number of threads: the engine would set one of its own for the whole process.
    engine = EngineSettings(
        device=str(device), precision="fp32", tile="auto", overlap=32,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    # A copy, because the network may be the one in training.
    upscaler = Upscaler(copy.deepcopy(net).eval(), engine)
    return [upscaler(Image(item.lq)).pixels for item in samples]


def upscale_bicubic(samples: Sequence[ValidationSample], scale: int) -> list[Pixels]:
    """Upscale the low-quality images with MATLAB's bicubic, for comparison."""
    return [
        to_8bit_levels(imresize(from_8bit_levels(item.lq).double(), scale)[0]) for item in samples
    ]


def compute_scores(
    samples: Sequence[ValidationSample],
    outputs: Sequence[Pixels],
    scale: int,
    perceptual: nn.Module | None = None,
) -> Scores:
    """Compute mean scores; an image too small for SSIM has an SSIM of 0.

    `perceptual` returns the feature distance of two batches; images too small for it are left out.
    """
    pairs = [(output, item.gt) for item, output in zip(samples, outputs, strict=True)]
    rows = [_score(gt, output, scale) for output, gt in pairs]
    mean_psnr, mean_ssim, color = (math.fsum(c) / len(rows) for c in zip(*rows, strict=True))
    if perceptual is None:
        return Scores(mean_psnr, mean_ssim, color)
    large = [pair for pair in pairs if min(pair[1].shape[:2]) >= SMALLEST]
    if not large:
        return Scores(mean_psnr, mean_ssim, color)
    distances = [_distance(perceptual, output, gt) for output, gt in large]
    return Scores(mean_psnr, mean_ssim, color, math.fsum(distances) / len(distances))


@torch.no_grad()
def _distance(perceptual: nn.Module, output: Pixels, gt: Pixels) -> float:
    device = next(perceptual.parameters()).device
    return float(perceptual(from_8bit_levels(output).to(device), from_8bit_levels(gt).to(device)))


def _score(gt: Pixels, output: Pixels, scale: int) -> tuple[float, float, float]:
    """Compute PSNR, SSIM and color difference of one image."""
    a, b = from_8bit_levels(output), from_8bit_levels(gt)
    crop = scale if min(gt.shape[:2]) > 4 * scale else 0
    large_enough = min(gt.shape[:2]) - 2 * crop >= 11
    shift = output.mean((0, 1)) - gt.mean((0, 1))
    return (
        min(MAX_PSNR, psnr(a, b, crop=crop)),
        ssim(a, b, crop=crop, luma=True) if large_enough else 0.0,
        float(abs(shift).max()),
    )


def save_sheet(
    path: Path, samples: Sequence[ValidationSample], outputs: Sequence[Pixels], rows: int
) -> None:
    """Write an image with a row per sample: input, output and ground truth, with their names.

    Each is cropped to its center. Raises ImageWriteError where it cannot be written.
    """
    pairs = list(zip(samples, outputs, strict=True))[:rows]
    side = min(SHEET_SIDE, max(max(item.gt.shape[:2]) for item, _ in pairs))
    sheet = pillow.new("RGB", (3 * side, len(pairs) * (side + LABEL)), "white")
    font = ImageFont.load_default()
    for number, (item, output) in enumerate(pairs):
        factor = item.gt.shape[0] // item.lq.shape[0]
        enlarged = item.lq.repeat(factor, 0).repeat(factor, 1)
        labels = (f"input: {item.name}", "output", "ground truth")
        cells = zip((enlarged, output, item.gt), labels, strict=True)
        for column, (pixels, label) in enumerate(cells):
            cell = pillow.new("RGB", (side, side + LABEL), "white")  # cuts off long labels
            ImageDraw.Draw(cell).text((2, 1), label, fill="black", font=font)
            cell.paste(pillow.fromarray(_crop_center(pixels, side)), (0, LABEL))
            sheet.paste(cell, (column * side, number * (side + LABEL)))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image(np.asarray(sheet).copy()).save(path)


def _crop_center(pixels: Pixels, side: int) -> Pixels:
    """Return at most `side` pixels in both directions from the center."""
    height, width = (min(side, n) for n in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])
