"""Scores and sample sheets of a network on images it is not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from realesr_cli.degrade.degradation import apply, sample
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.image.read import read_rgb8
from realesr_cli.image.types import Image
from realesr_cli.metrics.reference import psnr, ssim
from realesr_cli.ops.quantize import to_8bit_levels
from realesr_cli.ops.resize import imresize
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.files import TrainingImage
from realesr_cli.train.losses import PerceptualLoss
from realesr_cli.train.region_cache import Pixels

SHEET_SIDE = 256
"""Side in ground-truth pixels of an image on a sample sheet."""

LARGEST_PSNR = 100.0
"""Stands for the infinite PSNR of equal images, so that means stay numbers."""


@dataclass(frozen=True)
class Scene:
    """One validation image; both versions (H, W, 3) uint8, `gt` scale times as large."""

    name: str
    gt: Pixels
    lq: Pixels


@dataclass(frozen=True)
class Scores:
    """Means over all scenes: PSNR on RGB in dB and SSIM on luma, borders of `scale` pixels cropped.

    `color` is the largest shift of a channel's mean against the ground truth, of 255, averaged.
    `perceptual` is the distance of features that the perceptual loss takes, smaller being nearer;
    None where the run has no such loss.
    """

    psnr: float
    ssim: float
    color: float
    perceptual: float | None = None

    def plain(self) -> dict[str, float]:
        """Those there are, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


def prepare_scenes(images: Sequence[TrainingImage], config: TrainConfig) -> tuple[Scene, ...]:
    """Decode, crop and degrade the validation images, always the same way for a seed.

    Raises the ImageError of an image that cannot be decoded.
    """
    return tuple(_scene(img, i, config) for i, img in enumerate(images))


def _scene(img: TrainingImage, number: int, config: TrainConfig) -> Scene:
    scale = config.scale
    gt = read_rgb8(img.gt)
    small = config.validation.side // scale or max(gt.shape)
    height, width = (min(small, n // scale) for n in gt.shape[:2])
    top, left = ((n // scale - m) // 2 for n, m in zip(gt.shape[:2], (height, width), strict=True))
    gt = gt[top * scale : (top + height) * scale, left * scale : (left + width) * scale]
    if img.lq is not None:
        lq = read_rgb8(img.lq)[top : top + height, left : left + width]
        return Scene(img.gt.stem, gt, lq)
    rng = np.random.default_rng((config.seed, number, 0, 3))
    recipe = sample(config.degradation, rng, scale=scale, size=(height * scale, width * scale))
    return Scene(img.gt.stem, gt, to_8bit_levels(apply(recipe, to_tensor(gt))[0]))


def to_tensor(pixels: Pixels) -> Tensor:
    """(H, W, 3) uint8 to (1, 3, H, W) float in [0, 1]."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0).float() / 255


def upscale_scenes(net: nn.Module, scenes: Sequence[Scene], device: torch.device) -> list[Pixels]:
    """Each scene's low-quality version enlarged by the network, as `realesr upscale` would.

    In fp32, so that scores do not depend on the number format of the training.
    """
    # As many threads as are used already: the engine would set a number of its own for good.
    engine = EngineSettings(
        device=str(device), precision="fp32", tile="auto", overlap=32,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    upscaler = Upscaler(net.eval(), engine)
    return [upscaler(Image(scene.lq)).pixels for scene in scenes]


def bicubic_scenes(scenes: Sequence[Scene], scale: int) -> list[Pixels]:
    """The same by MATLAB's bicubic, to compare with."""
    return [to_8bit_levels(imresize(to_tensor(scene.lq).double(), scale)[0]) for scene in scenes]


def score(
    scenes: Sequence[Scene],
    outputs: Sequence[Pixels],
    scale: int,
    perceptual: PerceptualLoss | None = None,
) -> Scores:
    """Mean scores; an image too small for SSIM counts as unlike (0)."""
    pairs = [(output, scene.gt) for scene, output in zip(scenes, outputs, strict=True)]
    rows = [_score(gt, output, scale) for output, gt in pairs]
    fidelity, structure, color = (math.fsum(c) / len(rows) for c in zip(*rows, strict=True))
    if perceptual is None:
        return Scores(fidelity, structure, color)
    distances = [_distance(perceptual, output, gt) for output, gt in pairs]
    return Scores(fidelity, structure, color, math.fsum(distances) / len(distances))


@torch.no_grad()
def _distance(perceptual: PerceptualLoss, output: Pixels, gt: Pixels) -> float:
    device = next(perceptual.parameters()).device
    return float(perceptual(to_tensor(output).to(device), to_tensor(gt).to(device)))


def _score(gt: Pixels, output: Pixels, scale: int) -> tuple[float, float, float]:
    a, b = to_tensor(output), to_tensor(gt)
    crop = scale if min(gt.shape[:2]) > 4 * scale else 0
    fidelity = min(LARGEST_PSNR, psnr(a, b, crop=crop))
    large = min(gt.shape[:2]) - 2 * crop >= 11
    shift = output.mean((0, 1)) - gt.mean((0, 1))
    return fidelity, ssim(a, b, crop=crop, luma=True) if large else 0.0, float(abs(shift).max())


def save_sheet(path: Path, scenes: Sequence[Scene], outputs: Sequence[Pixels], count: int) -> None:
    """An image with a row per scene: low quality, output, ground truth, from the middle of each.

    Raises ImageWriteError where it cannot be written.
    """
    rows = [_row(scene, output) for scene, output in zip(scenes, outputs, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image(np.concatenate(rows[:count])).save(path)


def _row(scene: Scene, output: Pixels) -> Pixels:
    factor = scene.gt.shape[0] // scene.lq.shape[0]
    small = scene.lq.repeat(factor, 0).repeat(factor, 1)
    return np.concatenate([_middle(p) for p in (small, output, scene.gt)], axis=1)


def _middle(pixels: Pixels) -> Pixels:
    """A square from the middle, on gray where the image is smaller."""
    height, width = (min(SHEET_SIDE, n) for n in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    tile = np.full((SHEET_SIDE, SHEET_SIDE, 3), 128, dtype=np.uint8)
    tile[:height, :width] = pixels[top : top + height, left : left + width]
    return tile
