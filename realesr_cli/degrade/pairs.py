"""Training pairs: degrade ground truths and cut aligned crops; the pool that mixes batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from realesr_cli.degrade.config import DegradationConfig
from realesr_cli.degrade.degradation import NoiseDevice, apply, sample_batch
from realesr_cli.degrade.recipe import Recipe, Sharpen
from realesr_cli.errors import ConfigError
from realesr_cli.ops.filters import usm_sharpen
from realesr_cli.settings import check, option

Corner = tuple[int, int]


@dataclass(frozen=True)
class Pair:
    """A training batch.

    `lq` is (B, 3, h, w); `gt` and `gt_usm` are (B, 3, h * scale, w * scale), all in [0, 1].
    `gt_usm` is the sharpened ground truth, or `gt` itself if none was requested. `without_gt` (B,)
    marks samples that have none, where both are 0; None: all have one. `teacher` is like `gt`: what
    another network makes of `lq`.
    """

    lq: Tensor
    gt: Tensor
    gt_usm: Tensor
    without_gt: Tensor | None = None
    teacher: Tensor | None = None


@dataclass(frozen=True)
class PairPlan:
    """Which pairs to make."""

    scale: int = option(4, help="Ground-truth size over low-quality size.", low=1)
    patch: int | None = option(
        64, help="Side of the low-quality crop in pixels; none: no cropping.", low=1
    )
    sharpened_gt: bool = option(True, help="Return the sharpened ground truth too.")
    noise_device: NoiseDevice = option(
        "cpu", choices=("cpu", "input"), help="Where noise is drawn, as in degradation.apply."
    )

    def __post_init__(self) -> None:
        check(self)


@torch.no_grad()
def make_pairs(
    gt: Tensor, config: DegradationConfig, rng: np.random.Generator, plan: PairPlan
) -> Pair:
    """Degrade ground truths (B, 3, H, W) in [0, 1] and cut aligned crops at random positions.

    The low-quality side starts from the sharpened ground truth if `config.usm`. Positions lie on
    the low-quality grid and are drawn per image (per batch if `config.compatible`). Raises
    ConfigError if the crop is larger than the low-quality image.
    """
    height, width = gt.shape[-2:]
    count = gt.shape[0]
    recipes = sample_batch(config, rng, count, scale=plan.scale, size=(height, width))
    corners = _sample_corners(recipes, rng, plan, shared=config.compatible)
    start = sharp = gt.float()
    if config.usm or plan.sharpened_gt:
        sharp = _sharpen(start, config)
    if config.usm:
        # Sharpening is the first operation; it is done above, as the losses need its result too.
        recipes = tuple(_without_sharpening(recipe) for recipe in recipes)
    lq = apply(recipes, sharp if config.usm else start, noise_device=plan.noise_device)
    patch = (plan.patch, plan.patch) if plan.patch else recipes[0].lq_size
    gt_patch = (patch[0] * plan.scale, patch[1] * plan.scale)
    far = [(top * plan.scale, left * plan.scale) for top, left in corners]
    gt_crop = _crop(start, far, gt_patch)
    if not plan.sharpened_gt:
        return Pair(_crop(lq, corners, patch), gt_crop, gt_crop)
    if config.compatible:
        # The reference sharpens the crop again, which differs near its borders.
        return Pair(_crop(lq, corners, patch), gt_crop, _sharpen(gt_crop, config))
    return Pair(_crop(lq, corners, patch), gt_crop, _crop(sharp, far, gt_patch))


def _sample_corners(
    recipes: tuple[Recipe, ...], rng: np.random.Generator, plan: PairPlan, *, shared: bool
) -> list[Corner]:
    """Draw top and left of each crop in low-quality pixels."""
    height, width = recipes[0].lq_size
    if plan.patch is None:
        return [(0, 0)] * len(recipes)
    if plan.patch > min(height, width):
        raise ConfigError(
            f"a crop of {plan.patch} low-quality pixels does not fit in {height}x{width} "
            f"(ground truth of {recipes[0].height}x{recipes[0].width} at scale {plan.scale})"
        )
    high = (height - plan.patch + 1, width - plan.patch + 1)
    drawn = rng.integers(0, high, size=(1 if shared else len(recipes), 2))
    corners = [(int(top), int(left)) for top, left in drawn]
    return corners * len(recipes) if shared else corners


def _crop(images: Tensor, corners: list[Corner], size: tuple[int, int]) -> Tensor:
    cut = [
        image[:, top : top + size[0], left : left + size[1]]
        for image, (top, left) in zip(images, corners, strict=True)
    ]
    return torch.stack(cut)


def _sharpen(images: Tensor, config: DegradationConfig) -> Tensor:
    parts = torch.split(images, 1) if images.device.type == "cpu" else (images,)
    return torch.cat(
        [
            usm_sharpen(
                part,
                weight=config.usm_weight,
                radius=config.usm_radius,
                threshold=config.usm_threshold,
            )
            for part in parts
        ]
    )


def _without_sharpening(recipe: Recipe) -> Recipe:
    kept = tuple(op for op in recipe.operations if not isinstance(op, Sharpen))
    return replace(recipe, operations=kept)


class Pool:
    """Pairs of earlier batches, exchanged at random: Real-ESRGAN's "training pair pool".

    While the pool fills, batches are returned as they are. After that, each call returns pairs
    drawn from the pool and stores the new ones in their slots: no pair is lost or repeated.
    """

    def __init__(self, size: int) -> None:
        self.size = check_pool_size(size)
        self.pairs: tuple[tuple[Tensor, Tensor, Tensor], ...] = ()
        """LQ image, ground truth and sharpened ground truth of each pair; replaced, not changed."""

    def exchange(self, pair: Pair, rng: np.random.Generator) -> Pair:
        """Return a batch as large as `pair`; ConfigError unless that divides the pool's size."""
        count = pair.lq.shape[0]
        check_pool_size(self.size, batch=count)
        fresh = list(zip(pair.lq, pair.gt, pair.gt_usm, strict=True))
        if len(self.pairs) < self.size:
            self.pairs += tuple(_clone(item) for item in fresh)
            return pair
        slots = rng.permutation(self.size)[:count]
        taken = [self.pairs[slot] for slot in slots]
        kept = list(self.pairs)
        for slot, item in zip(slots, fresh, strict=True):
            kept[slot] = _clone(item)
        self.pairs = tuple(kept)
        lq, gt, gt_usm = (torch.stack(list(column)) for column in zip(*taken, strict=True))
        return Pair(lq, gt, gt_usm)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the pairs held, for a checkpoint; empty before the first exchange."""
        if not self.pairs:
            return {}
        columns = zip(*self.pairs, strict=True)
        names = ("lq", "gt", "gt_usm")
        return {n: torch.stack(list(c)) for n, c in zip(names, columns, strict=True)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replace the pairs held by those of `state_dict`."""
        held = [state[name] for name in ("lq", "gt", "gt_usm")] if state else []
        self.pairs = tuple(_clone(item) for item in zip(*held, strict=True))


def _clone(item: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    # A slice would keep its whole batch in memory.
    lq, gt, gt_usm = item
    return lq.clone(), gt.clone(), gt_usm.clone()


def check_pool_size(size: int, *, batch: int = 1) -> int:
    """Return the size if it is a multiple of the batch; ConfigError names the sizes that are."""
    if size < 1 or size % batch:
        below, above = size - size % batch, size - size % batch + batch
        nearest = f"{below} or {above}" if below > 0 else f"{above}"
        raise ConfigError(
            f"pool = {size}: must be a multiple of the batch size {batch}, such as {nearest}"
        )
    return size
