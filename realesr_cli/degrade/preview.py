"""Previews of a degradation: a whole image, or a sheet of several versions of a crop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from realesr_cli.degrade.degradation import apply
from realesr_cli.degrade.recipe import Recipe
from realesr_cli.errors import ConfigError
from realesr_cli.ops.quantize import to_8bit_levels

GAP = 4
"""Pixels of white between the cells of a sheet."""

Pixels = NDArray[np.uint8]

_WHITE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}


def degrade_image(pixels: NDArray[Any], recipe: Recipe) -> Pixels:
    """Return the low-quality version of an image, (height // scale, width // scale, 3) uint8.

    `pixels` is (height, width, 1 or 3): uint8, uint16, or float in [0, 1]; gray becomes three equal
    channels. Raises ConfigError if the recipe is for an image of another size.
    """
    return to_8bit_levels(apply(recipe, _to_tensor(pixels))[0])


def crop_center(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Cut `size` (height, width) pixels from the center; ConfigError if the image is smaller."""
    height, width = pixels.shape[:2]
    if size[0] > height or size[1] > width:
        raise ConfigError(
            f"a crop of {size[0]}x{size[1]} (height x width) does not fit in an image of "
            f"{height}x{width}"
        )
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return pixels[top : top + size[0], left : left + size[1]]


def largest_crop_size(pixels: NDArray[Any], side: int, scale: int) -> tuple[int, int]:
    """Return height and width of the largest crop up to `side`, both multiples of `scale`."""
    height, width = (min(side, int(length)) // scale * scale for length in pixels.shape[:2])
    if min(height, width) < 1:
        size = "x".join(str(length) for length in pixels.shape[:2])
        raise ConfigError(f"an image of {size} (height x width) is too small for scale {scale}")
    return height, width


def make_sheet(crop: NDArray[Any], recipes: Sequence[Recipe], columns: int) -> Pixels:
    """Arrange a crop and its degraded versions in rows, as (height, width, 3) uint8.

    Each low-quality pixel is shown as a square of `scale` pixels; missing cells of the last row are
    white. `crop` is as in `degrade_image`.
    """
    start = _to_tensor(crop)
    versions = [start]
    for recipe in recipes:
        versions.append(F.interpolate(apply(recipe, start), scale_factor=recipe.scale))
    rows = []
    for first in range(0, len(versions), columns):
        cells = versions[first : first + columns]
        cells += [torch.ones_like(start)] * (columns - len(cells))
        rows.append(_concatenate(cells, axis=-1))
    return to_8bit_levels(_concatenate(rows, axis=-2)[0])


def _concatenate(parts: Sequence[Tensor], *, axis: int) -> Tensor:
    """Concatenate along an axis, with a white gap between the parts."""
    shape = list(parts[0].shape)
    shape[axis] = GAP
    gap = torch.ones(shape)
    return torch.cat([piece for part in parts for piece in (gap, part)][1:], dim=axis)


def _to_tensor(pixels: NDArray[Any]) -> Tensor:
    """Convert pixels to (1, 3, H, W) in [0, 1]."""
    unit = pixels.astype(np.float32) / _WHITE.get(pixels.dtype, 1.0)
    planes = np.ascontiguousarray(np.moveaxis(unit.astype(np.float32), -1, 0))
    return torch.from_numpy(planes).expand(3, -1, -1).unsqueeze(0)
