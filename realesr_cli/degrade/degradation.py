"""Degrade images: draw recipes from settings (random), apply recipes to images (exact)."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from realesr_cli.degrade import noise
from realesr_cli.degrade.bsrgan import sample_shuffled
from realesr_cli.degrade.config import DegradationConfig
from realesr_cli.degrade.kernels import Kernel, build_kernel
from realesr_cli.degrade.recipe import (
    STRIDE,
    Compress,
    Filter,
    GaussianNoise,
    Operation,
    PoissonNoise,
    Recipe,
    Round,
    Scale,
    Sharpen,
    check_size,
)
from realesr_cli.degrade.sampling import RandomSources, SampleContext, draw_seed, sample_staged
from realesr_cli.errors import ConfigError
from realesr_cli.ops.filters import filter2d, usm_sharpen
from realesr_cli.ops.jpeg import DEFAULT_STYLE, REFERENCE_STYLE, jpeg
from realesr_cli.ops.quantize import to_8bit_levels
from realesr_cli.ops.resize import resize

NoiseDevice = Literal["cpu", "input"]


def sample(
    config: DegradationConfig, rng: np.random.Generator, *, scale: int, size: tuple[int, int]
) -> Recipe:
    """Draw a recipe for one ground truth of `size` (height, width) pixels.

    Every number, noise seeds included, comes from `rng`. Raises ConfigError if the image is smaller
    than `scale`.
    """
    return sample_batch(config, rng, 1, scale=scale, size=size)[0]


def sample_batch(
    config: DegradationConfig,
    rng: np.random.Generator,
    count: int,
    *,
    scale: int,
    size: tuple[int, int],
) -> tuple[Recipe, ...]:
    """Draw recipes for `count` ground truths of one size.

    All choices are independent, unless `config.compatible`: then those that the reference makes
    once per batch (resizes, kind of noise, second blur, final order, gray noise pattern) are
    shared. Raises ConfigError as `sample` does.
    """
    check_size(*size, scale)
    batch_seed = draw_seed(rng) if config.compatible else 0
    recipes = []
    for _ in range(count):
        # A fresh generator with the batch's seed repeats the shared choices for every image.
        shared = np.random.default_rng(batch_seed) if config.compatible else rng
        context = SampleContext(RandomSources(rng, shared, config.compatible), size, scale)
        if config.shuffled is not None:
            recipes.append(sample_shuffled(config.shuffled, context))
        else:
            recipes.append(sample_staged(config, context))
    return tuple(recipes)


@torch.no_grad()
def apply(
    recipes: Recipe | Sequence[Recipe], gt: Tensor, *, noise_device: NoiseDevice = "cpu"
) -> Tensor:
    """Apply recipes to ground truths; the same recipe and image always give the same result.

    Args:
        recipes: one per image, or a single one for all.
        gt: RGB, (B, 3, H, W) in [0, 1].
        noise_device: where noise is drawn. "cpu" gives the same noise wherever `gt` is; "input"
            draws on the device of `gt`, which is faster on a GPU.

    Returns (B, 3, H // scale, W // scale), float32 with 8-bit values in [0, 1]. On the CPU images
    are processed one by one, so that a result does not depend on its neighbors; on a GPU those that
    need the same operation are processed together. Raises ConfigError if the recipes do not fit the
    number and size of the images.
    """
    listed = (recipes,) * gt.shape[0] if isinstance(recipes, Recipe) else tuple(recipes)
    _check_fit(listed, gt)
    source = gt.device if noise_device == "input" else torch.device("cpu")
    images = list(torch.split(gt.float(), 1))
    if gt.device.type == "cpu":
        done = [
            _run((recipe,), [one], source)[0] for recipe, one in zip(listed, images, strict=True)
        ]
    else:
        done = _run(listed, images, source)
    for recipe, image in zip(listed, done, strict=True):
        if tuple(image.shape[-2:]) != recipe.lq_size:
            height, width = image.shape[-2:]
            raise ConfigError(
                f"the recipe ends at {height}x{width} pixels, expected "
                f"{recipe.lq_size[0]}x{recipe.lq_size[1]}: its last resize is missing or wrong"
            )
    return torch.cat(done)


def _check_fit(recipes: Sequence[Recipe], gt: Tensor) -> None:
    if gt.ndim != 4 or gt.shape[1] != 3:
        raise ConfigError(f"expected images of shape (B, 3, H, W), got {tuple(gt.shape)}")
    if len(recipes) != gt.shape[0] or not recipes:
        raise ConfigError(f"expected one recipe per image, got {len(recipes)} for {gt.shape[0]}")
    for recipe in recipes:
        if (recipe.height, recipe.width) != tuple(gt.shape[-2:]):
            raise ConfigError(
                f"the recipe is for an image of {recipe.height}x{recipe.width} (height x width), "
                f"got {gt.shape[-2]}x{gt.shape[-1]}"
            )
    if len({recipe.lq_size for recipe in recipes}) > 1:
        raise ConfigError("the recipes of one batch have different scales")


def _run(recipes: Sequence[Recipe], images: list[Tensor], source: torch.device) -> list[Tensor]:
    """Apply all operations to all images, each (1, 3, H, W), in batches of equal operations."""
    images = list(images)
    for step in range(max(len(recipe.operations) for recipe in recipes)):
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for index, recipe in enumerate(recipes):
            if step < len(recipe.operations):
                key = _batch_key(recipe.operations[step])
                groups[key, images[index].shape].append(index)
        for members in groups.values():
            batch = torch.cat([images[index] for index in members])
            operations = [recipes[index].operations[step] for index in members]
            results = torch.split(_apply_operations(operations, batch, source), 1)
            for index, result in zip(members, results, strict=True):
                images[index] = result
    return images


def _batch_key(operation: Operation) -> Hashable:
    """Return a key; operations of equal key can be applied to one batch."""
    if isinstance(operation, Filter):
        return Filter, operation.kernel.size, operation.kernel.kind == "none"
    if isinstance(operation, Compress):
        return Compress, operation.encoder, operation.reference
    if isinstance(operation, GaussianNoise | PoissonNoise):
        return "noise"
    return operation


def _apply_operations(
    operations: Sequence[Operation], batch: Tensor, source: torch.device
) -> Tensor:
    """Apply one operation to each image of a batch; all have the same batch key."""
    first = operations[0]
    if isinstance(first, Sharpen):
        return usm_sharpen(
            batch, weight=first.weight, radius=first.radius, threshold=first.threshold
        )
    if isinstance(first, Filter):
        return _filter([op.kernel for op in operations if isinstance(op, Filter)], batch)
    if isinstance(first, Scale):
        return _resize(first, batch)
    if isinstance(first, Compress):
        return _compress([op for op in operations if isinstance(op, Compress)], batch)
    if isinstance(first, Round):
        return (batch * 255).round_().clamp_(0, 255).div_(255)
    noisy = [_add_noise(op, image, source) for op, image in zip(operations, batch, strict=True)]
    return torch.stack(noisy).clamp_(0, 1)


def _filter(kernels: Sequence[Kernel], batch: Tensor) -> Tensor:
    if kernels[0].kind == "none":
        return batch
    built = np.stack([build_kernel(kernel) for kernel in kernels])
    return filter2d(batch, torch.from_numpy(built).to(batch))


def _resize(scale: Scale, batch: Tensor) -> Tensor:
    size = (scale.height, scale.width)
    if scale.mode == STRIDE:
        step = -(-batch.shape[-2] // scale.height)
        return batch[..., ::step, ::step]
    if scale.factor and scale.mode != "area":
        return F.interpolate(batch, scale_factor=scale.factor, mode=scale.mode, align_corners=False)
    return resize(batch, size, scale.mode)


def _compress(operations: Sequence[Compress], batch: Tensor) -> Tensor:
    first = operations[0]
    if first.encoder == "libjpeg":
        compressed = [
            compress_libjpeg(image, round(op.quality))
            for op, image in zip(operations, batch, strict=True)
        ]
        return torch.stack(compressed)
    quality = torch.tensor([op.quality for op in operations], dtype=batch.dtype)
    return jpeg(batch, quality, style=REFERENCE_STYLE if first.reference else DEFAULT_STYLE)


def compress_libjpeg(image: Tensor, quality: int) -> Tensor:
    """Compress (3, H, W) in [0, 1] as JPEG with libjpeg and decode it; 4:2:0, quality 1 to 100.

    The image is clamped and rounded to 8 bit first. Returns 8-bit values on the image's device.
    """
    encoded = io.BytesIO()
    pixels = to_8bit_levels(image)
    Image.fromarray(pixels).save(encoded, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(encoded) as decoded:
        result = torch.from_numpy(np.array(decoded))
    return result.permute(2, 0, 1).to(image) / 255


def _add_noise(operation: Operation, image: Tensor, source: torch.device) -> Tensor:
    if isinstance(operation, GaussianNoise):
        return noise.add_gaussian_noise(
            image,
            operation.sigma,
            gray=operation.gray,
            source=noise.make_generator(operation.seed, source),
            mix=operation.mix,
        )
    assert isinstance(operation, PoissonNoise)
    return noise.add_poisson_noise(
        image,
        operation.scale,
        gray=operation.gray,
        levels=operation.levels,
        source=noise.make_generator(operation.seed, source),
    )
