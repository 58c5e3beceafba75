"""Images as they are judged: 8-bit RGB, made small where that is asked for, bicubic resizing."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from realesr_cli.degrade.config import DegradationConfig
from realesr_cli.degrade.degradation import sample
from realesr_cli.degrade.presets import PRESETS, get_preset, parse_degradation
from realesr_cli.degrade.preview import degrade_image
from realesr_cli.errors import ConfigError, UnsupportedImageError
from realesr_cli.ops.quantize import to_8bit_levels
from realesr_cli.ops.resize import imresize
from realesr_cli.plain import read_toml
from realesr_cli.text import did_you_mean

Pixels = NDArray[np.uint8]
"""(H, W, 3), RGB."""

BICUBIC = "bicubic"
"""The degradation, and the row of a table, that is MATLAB's bicubic."""

Shrink = Callable[[Pixels, str], Pixels]
"""A ground truth and its name to its small version."""


def to_tensor(pixels: NDArray[Any]) -> Tensor:
    """(H, W, 3) uint8 to (3, H, W) float64 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).double() / 255


def bicubic(pixels: Pixels, factor: float) -> Pixels:
    """Resized as MATLAB's imresize does, in double precision, then rounded to 8 bits."""
    return to_8bit_levels(imresize(to_tensor(pixels).unsqueeze(0), factor)[0])


def shrinker(degrade: str, scale: int, seed: int) -> Shrink:
    """What makes small images of ground truths whose sides are multiples of the scale.

    `degrade` is `bicubic`, a preset or a TOML file. Chance comes from the seed and the image's
    name, so that an image is degraded in the same way whatever else is in the set. Raises
    ConfigError for a degradation that is none, UnsupportedImage (when called) for ground truths
    smaller than the scale.
    """
    config = None if degrade == BICUBIC else degradation(degrade)

    def shrink(gt: Pixels, name: str) -> Pixels:
        height, width = gt.shape[:2]
        if min(height, width) < scale:
            raise UnsupportedImageError(f"{name}: too small to be made {scale} times smaller")
        if config is None:
            return bicubic(gt, 1 / scale)
        rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
        recipe = sample(config, rng, scale=scale, size=(height, width))
        return degrade_image(gt, recipe)

    return shrink


def degradation(text: str) -> DegradationConfig:
    """A preset by name, or that of a TOML file (its own, or the `degradation` table in it)."""
    if text in PRESETS:
        return get_preset(text)
    if not text.endswith(".toml"):
        known = (BICUBIC, *PRESETS)
        raise ConfigError(
            f"unknown degradation {text!r}{did_you_mean(text, known)} (known: {', '.join(known)}, "
            "or a .toml file)"
        )
    table = read_toml(Path(text))
    if "extends" in table:
        raise ConfigError(
            f"{text} extends another file, which only training reads: give the configuration that "
            "a run has written into its folder, or a file with the degradation alone"
        )
    found = table.get("degradation", table)
    if not isinstance(found, dict):
        raise ConfigError(f"{text}: degradation = {found!r}: expected a table")
    return parse_degradation(found)
