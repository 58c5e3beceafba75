"""Draw the numbers of a degradation: settings and a random generator in, a recipe out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from realesr_cli.degrade.config import (
    Blur,
    DegradationConfig,
    Final,
    Jpeg,
    Noise,
    Range,
    Resize,
    Stage,
)
from realesr_cli.degrade.kernels import GENERALIZED, PLATEAUS, Kernel
from realesr_cli.degrade.recipe import (
    Compress,
    Filter,
    GaussianNoise,
    Operation,
    PoissonNoise,
    Recipe,
    Round,
    Scale,
    Sharpen,
)

Size = tuple[int, int]

# Cut-offs of sinc kernels in radians per pixel: kernels of this size or more go lower.
_LARGE_SINC = 13
_LOW_CUTOFF = math.pi / 5
_CUTOFF = math.pi / 3

NO_FILTER = Filter(Kernel("none", 1))


@dataclass(frozen=True)
class Chance:
    """Where random numbers come from: `own` to the image, `shared` by its batch.

    Both are one generator, unless a batch is to be drawn as the reference draws it.
    """

    own: np.random.Generator
    shared: np.random.Generator
    compatible: bool = False


@dataclass(frozen=True)
class Draw:
    """One thing being built: the chance it has, its pair's sizes in pixels (height, width)."""

    chance: Chance
    gt_size: Size
    scale: int

    @property
    def lq_size(self) -> Size:
        """The size of the result."""
        return self.gt_size[0] // self.scale, self.gt_size[1] // self.scale


def uniform(source: np.random.Generator, between: Range) -> float:
    """A number between two others."""
    return float(source.uniform(*between))


def seed(source: np.random.Generator) -> int:
    """A seed for a noise generator, small enough for every random generator and for JSON."""
    return int(source.integers(2**53))


def draw_staged(config: DegradationConfig, draw: Draw) -> Recipe:
    """A recipe of a degradation by stages."""
    operations: list[Operation] = []
    if config.usm:
        operations.append(Sharpen(config.usm_weight, config.usm_radius, config.usm_threshold))
    size = draw.gt_size
    for stage in config.stages:
        made, size = _stage(stage, draw, size)
        operations += made
    operations += _final(config.final, draw)
    return Recipe(draw.scale, *draw.gt_size, tuple(operations))


def _stage(stage: Stage, draw: Draw, size: Size) -> tuple[list[Operation], Size]:
    chance = draw.chance
    operations: list[Operation] = [_blur(stage.blur, chance)]
    resized = _resize(stage.resize, draw, size)
    operations.append(resized)
    operations += _noise(stage.noise, chance)
    operations += _jpeg(stage.jpeg, chance)
    return operations, (resized.height, resized.width)


def _blur(blur: Blur, chance: Chance) -> Filter:
    # Whether to blur is drawn even where it is certain, so that the numbers which follow
    # do not depend on it: presets that differ in one probability stay comparable.
    wanted = chance.shared.random() < blur.chance
    kernel = _kernel(blur, chance.own)
    return Filter(kernel) if wanted else NO_FILTER


def _kernel(blur: Blur, source: np.random.Generator) -> Kernel:
    size = int(source.choice(blur.sizes))
    if source.random() < blur.sinc:
        lowest = _CUTOFF if size < _LARGE_SINC else _LOW_CUTOFF
        return Kernel("sinc", size, cutoff=uniform(source, (lowest, math.pi)))
    weights = vars(blur.kernels)
    shares = np.array(list(weights.values()))
    kind = str(source.choice(list(weights), p=shares / shares.sum()))
    sigma_x = sigma_y = uniform(source, blur.sigma)
    theta = 0.0
    if kind.endswith("aniso"):
        sigma_y = uniform(source, blur.sigma)
        theta = uniform(source, blur.rotation)
    beta = 1.0
    if kind in GENERALIZED:
        beta = _beta(blur.beta_generalized, blur.beta_draw, source)
    elif kind in PLATEAUS:
        beta = _beta(blur.beta_plateau, blur.beta_draw, source)
    return Kernel(kind, size, sigma_x, sigma_y, theta, beta)


def _beta(between: Range, how: str, source: np.random.Generator) -> float:
    low, high = between
    if how == "uniform":
        return uniform(source, between)
    if how == "nested":
        end = uniform(source, between)
        return uniform(source, (min(end, 1.0), max(end, 1.0)))
    below = source.random() < 0.5
    # A range that does not span 1 leaves one half of the draws at 1's side of it.
    return uniform(source, (low, max(low, 1.0)) if below else (min(high, 1.0), high))


def _resize(resize: Resize, draw: Draw, size: Size) -> Scale:
    source = draw.chance.shared
    kinds = np.array((resize.up, resize.down, resize.keep))
    kind = int(source.choice(3, p=kinds / kinds.sum()))
    low, high = resize.scale
    factor = (uniform(source, (1.0, high)), uniform(source, (low, 1.0)), 1.0)[kind]
    mode = str(source.choice(resize.modes))
    if resize.of == "lq":
        base = tuple(side / draw.scale for side in draw.gt_size)
    else:
        base = tuple(float(side) for side in size)
    height, width = (max(1, math.floor(side * factor)) for side in base)
    step = factor if draw.chance.compatible and resize.of == "current" else 0.0
    return Scale(height, width, mode, step)


def _noise(noise: Noise, chance: Chance) -> list[Operation]:
    wanted = chance.shared.random() < noise.chance
    gaussian = chance.shared.random() < noise.gaussian
    gray = bool(chance.own.random() < noise.gray)
    strength = chance.own.random()
    own_seed, batch_seed = seed(chance.own), seed(chance.shared)
    if not wanted:
        return []
    low, high = noise.sigma if gaussian else noise.poisson_scale
    amount = low + (high - low) * strength
    if not gaussian:
        levels = 0 if chance.compatible else noise.levels
        return [PoissonNoise(amount, gray, levels, own_seed)]
    one_pattern = gray and chance.compatible
    return [GaussianNoise(amount, gray, batch_seed if one_pattern else own_seed)]


def _jpeg(jpeg: Jpeg, chance: Chance) -> list[Operation]:
    wanted = chance.own.random() < jpeg.chance
    quality = uniform(chance.own, jpeg.quality)
    if jpeg.encoder == "libjpeg":
        quality = float(chance.own.integers(round(jpeg.quality[0]), round(jpeg.quality[1]) + 1))
    return [Compress(quality, jpeg.encoder, chance.compatible)] if wanted else []


def _final(final: Final, draw: Draw) -> list[Operation]:
    chance = draw.chance
    mode = str(chance.shared.choice(final.modes))
    jpeg_last = chance.shared.random() < final.jpeg_last
    ringing = chance.own.random() < final.sinc
    size = int(chance.own.choice(final.sinc_sizes))
    kernel = Kernel("sinc", size, cutoff=uniform(chance.own, (_CUTOFF, math.pi)))
    shrink: list[Operation] = [
        Scale(*draw.lq_size, mode),
        Filter(kernel) if ringing else NO_FILTER,
    ]
    compress = _jpeg(final.jpeg, chance)
    return [*shrink, *compress, Round()] if jpeg_last else [*compress, *shrink, Round()]
