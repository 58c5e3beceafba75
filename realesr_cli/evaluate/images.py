"""Images of an evaluation: bicubic resizing, degradation, and the folder they are saved to."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from realesr_cli.degrade.config import DegradationConfig
from realesr_cli.degrade.degradation import sample
from realesr_cli.degrade.presets import PRESETS, get_preset, parse_degradation
from realesr_cli.degrade.preview import degrade_image
from realesr_cli.errors import ConfigError, ImageWriteError, UnsupportedImageError
from realesr_cli.image.types import Image
from realesr_cli.ops.quantize import full_scale, to_8bit_levels
from realesr_cli.ops.resize import imresize
from realesr_cli.plain import read_toml
from realesr_cli.text import did_you_mean

Pixels = NDArray[np.uint8]
"""(H, W, 3), RGB."""

BICUBIC = "bicubic"
"""Name of the degradation, and of the row of a table, that is MATLAB's bicubic."""

Degrade = Callable[[Pixels, str], Pixels]
"""A ground truth and its name to its low-quality image."""

_UNSAFE = '<>:"/\\|?*'


def resize_bicubic(pixels: NDArray[Any], factor: float) -> Pixels:
    """Resize (H, W, C) of any depth as MATLAB's imresize does, in float64; round to 8 bits."""
    unit = torch.from_numpy(pixels.astype(np.float64) / full_scale(pixels.dtype)).permute(2, 0, 1)
    return to_8bit_levels(imresize(unit.unsqueeze(0), factor)[0])


def make_degrade(name: str, scale: int, seed: int) -> Degrade:
    """Return the function that creates low-quality images.

    `name` is `bicubic`, a preset or a TOML file. The random state depends on the seed and the
    image's name, so an image is degraded in the same way whatever else is in the set. Ground truths
    must have sides that are multiples of the scale. Raises ConfigError for an unknown degradation,
    and the function UnsupportedImageError for ground truths smaller than the scale.
    """
    config = None if name == BICUBIC else load_degradation(name)

    def degrade(gt: Pixels, image_name: str) -> Pixels:
        height, width = gt.shape[:2]
        if min(height, width) < scale:
            raise UnsupportedImageError(
                f"{image_name}: {width}x{height} is too small to be downscaled by {scale}"
            )
        if config is None:
            return resize_bicubic(gt, 1 / scale)
        rng = np.random.default_rng((seed, zlib.crc32(image_name.encode("utf-8", "replace"))))
        recipe = sample(config, rng, scale=scale, size=(height, width))
        return degrade_image(gt, recipe)

    return degrade


def load_degradation(name: str) -> DegradationConfig:
    """Return a preset by name, or read a TOML file or the `degradation` table in it."""
    if name in PRESETS:
        return get_preset(name)
    if not name.endswith(".toml"):
        known = (BICUBIC, *PRESETS)
        raise ConfigError(
            f"unknown degradation {name!r}{did_you_mean(name, known)} (known: {', '.join(known)}, "
            "or a .toml file)"
        )
    table = read_toml(Path(name))
    if "extends" in table:
        raise ConfigError(
            f"{name} extends another file, which only training supports: use the config.toml of "
            "the run folder, or a file with the degradation alone"
        )
    found = table.get("degradation", table)
    if not isinstance(found, dict):
        raise ConfigError(f"{name}: degradation = {found!r}: expected a table")
    return parse_degradation(found)


@dataclass(frozen=True)
class OutputWriter:
    """Saves the images of each row of a table to a folder of its own."""

    folder: Path
    rows: tuple[str, ...]

    def prepare(
        self, names: Sequence[str], inputs: Sequence[Path], *, overwrite: bool = False
    ) -> None:
        """Create the folders.

        Raises ConfigError if two rows would share a folder, a folder is one of `inputs`, or files
        exist and `overwrite` is off; ImageWriteError if a folder cannot be created.
        """
        folders = [self._folder(row) for row in self.rows]
        if len(set(folders)) < len(folders):
            raise ConfigError(f"{self.folder}: two rows of the table would share a folder")
        resolved = {path.resolve() for path in inputs}
        for folder in folders:
            if folder.resolve() in resolved:
                raise ConfigError(
                    f"{folder} is a folder of evaluated images: choose another save folder"
                )
            paths = (folder / f"{name}.png" for name in names)
            found = None if overwrite else next(filter(os.path.exists, paths), None)
            if found is not None:
                raise ConfigError(f"{found} exists already", advice="overwrite")
        for folder in {(path / name).parent for path in folders for name in names}:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = error.strerror or error
                raise ImageWriteError(f"{folder} cannot be created: {reason}") from error

    def write(self, row: str, name: str, pixels: Pixels) -> None:
        """Save one image, if it belongs to one of the rows; raises ImageWriteError."""
        if row in self.rows:
            Image(pixels).save(self._folder(row) / f"{name}.png")

    def _folder(self, row: str) -> Path:
        # A row may be named by a path, which must not lead out of the folder.
        safe = "".join("_" if letter in _UNSAFE else letter for letter in row).strip(". ")
        return self.folder / (safe or "_")
