"""Make training files: downscaled versions of each image, cut into overlapping crops.

The published models were trained on such files: every image also at 0.75, 0.5 and 1/3 of its size
and with a shortest edge of 400 pixels, by Lanczos, and cut into crops of 400 (or 480) pixels.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from realesr_cli.atomic import atomic_write_bytes
from realesr_cli.dataset.crops import CropFile, Size, SourceImage, plan_crops
from realesr_cli.dataset.settings import PrepareSettings
from realesr_cli.errors import (
    ConfigError,
    DatasetError,
    ImageWriteError,
    UnreadableImageError,
    UnsupportedImageError,
)
from realesr_cli.image.folders import ExcludedImage
from realesr_cli.image.formats import WriteSettings
from realesr_cli.image.probe import probe
from realesr_cli.image.read import from_array, read_image
from realesr_cli.image.write import write_image
from realesr_cli.ops.color import luma_studio
from realesr_cli.ops.filters import gaussian_taps, separable_filter
from realesr_cli.ops.quantize import full_scale
from realesr_cli.ops.resize import resize
from realesr_cli.plain import read_json
from realesr_cli.progress import Progress, no_progress
from realesr_cli.settings import to_plain

DETAIL_CELL = 4
"""Side in pixels of the cells whose detail is averaged."""

DETAIL_FLOOR = 1 / 255
"""Deviation that counts as no detail: one 8-bit level."""

SETTINGS_FILE = "prepared.json"
"""Written to the output folder, so that one folder never mixes two settings."""


@dataclass(frozen=True)
class PrepareResult:
    """How many files were written, existed already or had too little detail; excluded images."""

    images: int
    written: int
    existing: int
    low_detail: int
    excluded: tuple[ExcludedImage, ...]


@dataclass(frozen=True)
class _ImageCounts:
    """Files of one image."""

    written: int
    existing: int
    low_detail: int


def prepare(
    sources: Sequence[SourceImage],
    out: Path,
    settings: PrepareSettings,
    *,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> PrepareResult:
    """Write the files of all images to `out`; those of pairs to its folders gt and lq.

    Files are written atomically. Existing ones are kept unless `overwrite`, so a stopped run
    continues; crops with too little detail are measured again. Raises ConfigError if `out` was made
    with other settings, ImageWriteError if a file cannot be written.
    """
    _record_settings(out, settings, overwrite=overwrite)
    counts: list[_ImageCounts] = []
    excluded: list[ExcludedImage] = []

    def work(source: SourceImage) -> _ImageCounts | ExcludedImage:
        return _prepare_image(source, out, settings, overwrite=overwrite)

    with ThreadPoolExecutor(settings.workers) as pool:
        for done, result in enumerate(pool.map(work, sources), 1):
            if isinstance(result, ExcludedImage):
                excluded.append(result)
            else:
                counts.append(result)
            progress(done, len(sources))
    return PrepareResult(
        images=len(sources),
        written=sum(one.written for one in counts),
        existing=sum(one.existing for one in counts),
        low_detail=sum(one.low_detail for one in counts),
        excluded=tuple(excluded),
    )


def _record_settings(out: Path, settings: PrepareSettings, *, overwrite: bool) -> None:
    """Write the settings to the folder; ConfigError if it records others, or has other files."""
    # Neither of these two changes a pixel.
    shown = {**to_plain(settings), "workers": None, "compress_level": None}
    path = out / SETTINGS_FILE
    if os.path.exists(path) and not overwrite:
        try:
            before = read_json(path)
        except ConfigError:
            before = None
        if before != shown:
            raise ConfigError(
                f"{out} was made with other settings: choose another folder",
                advice="overwrite-folder",
            )
    elif not overwrite and os.path.isdir(out) and any(out.iterdir()):
        raise ConfigError(
            f"{out} contains other files: choose another folder", advice="overwrite-folder"
        )
    _make_folder(out)
    atomic_write_bytes(path, (json.dumps(shown, indent=1) + "\n").encode())


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageWriteError(f"{path} cannot be created: {error.strerror or error}") from error


def _prepare_image(
    source: SourceImage, out: Path, settings: PrepareSettings, *, overwrite: bool
) -> _ImageCounts | ExcludedImage:
    """Write the files of one image that are missing."""
    try:
        header = probe(source.path)
        size = header.height, header.width
        crops = plan_crops(source, size, out, settings)
        if not crops:
            reason = f"{size[1]}x{size[0]} is smaller than the crops of {settings.crop_size}"
            return ExcludedImage(source.path, reason)
        missing = [crop for crop in crops if overwrite or not _exists(crop, source, out)]
        low_detail = _write(missing, source, out, settings) if missing else 0
    except (UnreadableImageError, UnsupportedImageError, DatasetError) as error:
        return ExcludedImage(source.path, str(error).removeprefix(f"{source.path}: "))
    return _ImageCounts(len(missing) - low_detail, len(crops) - len(missing), low_detail)


def _lq_path(crop: CropFile, out: Path) -> Path:
    return out / "lq" / crop.path.relative_to(out / "gt")


def _exists(crop: CropFile, source: SourceImage, out: Path) -> bool:
    if source.lq is not None and not _lq_path(crop, out).exists():
        return False
    return crop.path.exists()


def _write(
    crops: Sequence[CropFile], source: SourceImage, out: Path, settings: PrepareSettings
) -> int:
    """Write the crops with enough detail; return how many have too little."""
    low_detail = 0
    how = WriteSettings(compress_level=settings.compress_level)
    pixels = read_image(source.path).pixels
    lq = None if source.lq is None else _read_partner(source.lq, pixels, settings.scale)
    version, resized = None, pixels
    for crop in crops:
        if crop.version != version:
            version, resized = crop.version, resize_pixels(pixels, crop.version.size)
        cut = _cut(resized, crop, settings.crop_size, 1)
        if settings.min_detail and measure_detail(cut) < settings.min_detail:
            low_detail += 1
            continue
        _make_folder(crop.path.parent)
        if lq is not None:
            path = _lq_path(crop, out)
            _make_folder(path.parent)
            write_image(from_array(_cut(lq, crop, settings.crop_size, settings.scale)), path, how)
        write_image(from_array(cut), crop.path, how)
    return low_detail


def _read_partner(path: Path, gt: NDArray[Any], scale: int) -> NDArray[Any]:
    lq = read_image(path).pixels
    if tuple(side * scale for side in lq.shape[:2]) != gt.shape[:2]:
        raise DatasetError(
            f"{gt.shape[1]}x{gt.shape[0]} is not {scale} times {lq.shape[1]}x{lq.shape[0]} of "
            f"{path}"
        )
    return lq


def _cut(pixels: NDArray[Any], crop: CropFile, side: int, scale: int) -> NDArray[Any]:
    if crop.corner is None:
        return pixels
    top, left, side = crop.corner[0] // scale, crop.corner[1] // scale, side // scale
    return pixels[top : top + side, left : left + side]


def _to_tensor(pixels: NDArray[Any]) -> torch.Tensor:
    """Convert (H, W, C) of any depth to (1, C, H, W) float32, not scaled."""
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    return torch.from_numpy(planes.astype(np.float32)).unsqueeze(0)


def measure_detail(pixels: NDArray[Any]) -> float:
    """Return the fine detail of (H, W, 1 or 3) in 8-bit levels; at least 1.

    The geometric mean, over cells of 4x4 pixels, of the deviation that a Gaussian of one pixel
    removes from the luma. Texture raises it everywhere; single edges hardly do, however strong.
    """
    rgb = (_to_tensor(pixels) / full_scale(pixels.dtype)).expand(-1, 3, -1, -1)
    luma = luma_studio(rgb)
    residual = luma - separable_filter(luma, gaussian_taps(7, 1.0))
    energy = F.avg_pool2d(residual**2, min(DETAIL_CELL, *pixels.shape[:2]))
    return 255 * math.exp((energy + DETAIL_FLOOR**2).log().mean().item() / 2)


def resize_pixels(pixels: NDArray[Any], size: Size) -> NDArray[Any]:
    """Resize (H, W, C) to `size` by antialiased Lanczos, at its own depth."""
    if pixels.shape[:2] == size:
        return pixels
    resized = resize(_to_tensor(pixels), size, "lanczos")[0].permute(1, 2, 0).numpy()
    if pixels.dtype.kind == "f":
        return np.ascontiguousarray(resized.clip(0, 1))
    levels = np.rint(resized.clip(0, full_scale(pixels.dtype)))
    return np.ascontiguousarray(levels.astype(pixels.dtype))
