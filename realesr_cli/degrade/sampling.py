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
class RandomSources:
    """Random generators of one image: `own` is its own, `shared` is that of its batch.

    Both are the same generator, unless choices are shared per batch as in the reference
    (`compatible`).
    """

    own: np.random.Generator
    shared: np.random.Generator
    compatible: bool = False


@dataclass(frozen=True)
class SampleContext:
    """What a recipe is drawn for: random generators, ground-truth size (height, width), scale."""

    random: RandomSources
    gt_size: Size
    scale: int

    @property
    def lq_size(self) -> Size:
        """Height and width of the low-quality image in pixels."""
        return self.gt_size[0] // self.scale, self.gt_size[1] // self.scale


def uniform(rng: np.random.Generator, limits: Range) -> float:
    """Draw a float uniformly between two limits."""
    return float(rng.uniform(*limits))


def draw_seed(rng: np.random.Generator) -> int:
    """Draw a seed for a noise generator; below 2**53, so that JSON keeps it exactly."""
    return int(rng.integers(2**53))


def sample_staged(config: DegradationConfig, context: SampleContext) -> Recipe:
    """Draw a recipe of a degradation made of stages (Wang et al. 2021, section 3)."""
    operations: list[Operation] = []
    if config.usm:
        operations.append(Sharpen(config.usm_weight, config.usm_radius, config.usm_threshold))
    size = context.gt_size
    for stage in config.stages:
        drawn, size = _sample_stage(stage, context, size)
        operations += drawn
    operations += _sample_final(config.final, context)
    return Recipe(context.scale, *context.gt_size, tuple(operations))


def _sample_stage(stage: Stage, context: SampleContext, size: Size) -> tuple[list[Operation], Size]:
    random = context.random
    operations: list[Operation] = [_sample_blur(stage.blur, random)]
    resize = _sample_resize(stage.resize, context, size)
    operations.append(resize)
    operations += _sample_noise(stage.noise, random)
    operations += _sample_jpeg(stage.jpeg, random)
    return operations, (resize.height, resize.width)


def _sample_blur(blur: Blur, random: RandomSources) -> Filter:
    # Both numbers are always drawn, even where blurring is certain: the numbers drawn after them
    # then do not depend on the probability, and presets that differ in it stay comparable.
    wanted = random.shared.random() < blur.probability
    kernel = _sample_kernel(blur, random.own)
    return Filter(kernel) if wanted else NO_FILTER


def _sample_kernel(blur: Blur, rng: np.random.Generator) -> Kernel:
    size = int(rng.choice(blur.sizes))
    if rng.random() < blur.sinc:
        lowest = _CUTOFF if size < _LARGE_SINC else _LOW_CUTOFF
        return Kernel("sinc", size, cutoff=uniform(rng, (lowest, math.pi)))
    weights = vars(blur.kernels)
    shares = np.array(list(weights.values()))
    kind = str(rng.choice(list(weights), p=shares / shares.sum()))
    sigma_x = sigma_y = uniform(rng, blur.sigma)
    theta = 0.0
    if kind.endswith("aniso"):
        sigma_y = uniform(rng, blur.sigma)
        theta = uniform(rng, blur.rotation)
    beta = 1.0
    if kind in GENERALIZED:
        beta = _sample_beta(blur.beta_generalized, blur.beta_sampling, rng)
    elif kind in PLATEAUS:
        beta = _sample_beta(blur.beta_plateau, blur.beta_sampling, rng)
    return Kernel(kind, size, sigma_x, sigma_y, theta, beta)


def _sample_beta(limits: Range, method: str, rng: np.random.Generator) -> float:
    low, high = limits
    if method == "uniform":
        return uniform(rng, limits)
    if method == "nested":
        end = uniform(rng, limits)
        return uniform(rng, (min(end, 1.0), max(end, 1.0)))
    below = rng.random() < 0.5
    # A range that does not span 1 leaves one half of the draws at 1's side of it.
    return uniform(rng, (low, max(low, 1.0)) if below else (min(high, 1.0), high))


def _sample_resize(resize: Resize, context: SampleContext, size: Size) -> Scale:
    rng = context.random.shared
    weights = np.array((resize.up, resize.down, resize.keep))
    direction = int(rng.choice(3, p=weights / weights.sum()))
    low, high = resize.scale
    # All three are drawn, so that the numbers after them do not depend on the direction.
    factor = (uniform(rng, (1.0, high)), uniform(rng, (low, 1.0)), 1.0)[direction]
    mode = str(rng.choice(resize.modes))
    if resize.relative_to == "lq":
        base = tuple(side / context.scale for side in context.gt_size)
    else:
        base = tuple(float(side) for side in size)
    height, width = (max(1, math.floor(side * factor)) for side in base)
    step = factor if context.random.compatible and resize.relative_to == "current" else 0.0
    return Scale(height, width, mode, step)


def _sample_noise(noise: Noise, random: RandomSources) -> list[Operation]:
    wanted = random.shared.random() < noise.probability
    gaussian = random.shared.random() < noise.gaussian
    gray = bool(random.own.random() < noise.gray)
    strength = random.own.random()
    own_seed, batch_seed = draw_seed(random.own), draw_seed(random.shared)
    if not wanted:
        return []
    low, high = noise.sigma if gaussian else noise.poisson_scale
    amount = low + (high - low) * strength
    if not gaussian:
        levels = 0 if random.compatible else noise.levels
        return [PoissonNoise(amount, gray, levels, own_seed)]
    one_pattern = gray and random.compatible
    return [GaussianNoise(amount, gray, batch_seed if one_pattern else own_seed)]


def _sample_jpeg(jpeg: Jpeg, random: RandomSources) -> list[Operation]:
    wanted = random.own.random() < jpeg.probability
    quality = uniform(random.own, jpeg.quality)
    if jpeg.encoder == "libjpeg":
        quality = float(random.own.integers(round(jpeg.quality[0]), round(jpeg.quality[1]) + 1))
    return [Compress(quality, jpeg.encoder, random.compatible)] if wanted else []


def _sample_final(final: Final, context: SampleContext) -> list[Operation]:
    random = context.random
    mode = str(random.shared.choice(final.modes))
    jpeg_last = random.shared.random() < final.jpeg_last
    ringing = random.own.random() < final.sinc
    size = int(random.own.choice(final.sinc_sizes))
    kernel = Kernel("sinc", size, cutoff=uniform(random.own, (_CUTOFF, math.pi)))
    shrink: list[Operation] = [
        Scale(*context.lq_size, mode),
        Filter(kernel) if ringing else NO_FILTER,
    ]
    compress = _sample_jpeg(final.jpeg, random)
    return [*shrink, *compress, Round()] if jpeg_last else [*compress, *shrink, Round()]
