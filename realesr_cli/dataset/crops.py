"""Plan training files: which versions of an image are made, cut into which crops, named how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from realesr_cli.dataset.settings import PrepareSettings
from realesr_cli.errors import ConfigError, ImageError
from realesr_cli.image.pairing import (
    Affix,
    ImageFolder,
    require_pairs,
    require_unique_names,
    scan_pair,
)
from realesr_cli.image.probe import probe

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True)
class SourceImage:
    """An image to prepare, its path inside its folder without extension, and its partner if any."""

    path: Path
    inside: Path
    lq: Path | None = None


@dataclass(frozen=True)
class ScaledVersion:
    """A version of an image: the suffix of its file name, and its size."""

    suffix: str
    size: Size


@dataclass(frozen=True)
class CropFile:
    """A file to write, and the corner (top, left) of its crop; None is the whole version."""

    path: Path
    version: ScaledVersion
    corner: Size | None


def find_source_images(gt: Path, lq: Path | None, settings: PrepareSettings) -> list[SourceImage]:
    """Return the images of a folder, with their partners if there is a folder of them.

    Raises DatasetError if a folder is missing or empty, partners are missing, or two images have
    the same name; ConfigError for settings that pairs do not allow.
    """
    if lq is None:
        images = ImageFolder.scan(gt, recursive=True)
        require_unique_names(images)  # Their crops would have the same names.
        return [SourceImage(path, path.relative_to(gt).with_suffix("")) for path in images.files]
    if settings.scales or settings.shortest_edge or not settings.original:
        raise ConfigError(
            "pairs are prepared at their own size only: set scales to nothing and shortest_edge to "
            "0, and keep original on"
        )
    if settings.crop_size % settings.scale or settings.step % settings.scale:
        raise ConfigError(
            f"crop_size = {settings.crop_size} and step = {settings.step} must be multiples of the "
            f"scale ({settings.scale}), so that crops start at low-quality pixels"
        )
    affix = Affix(settings.lq_prefix, settings.lq_suffix)
    pairs = require_pairs(*scan_pair(gt, lq, recursive=True, lq_affix=affix), advice="names")
    return [SourceImage(path, path.relative_to(gt).with_suffix(""), other) for path, other in pairs]


def scaled_versions(size: Size, settings: PrepareSettings) -> list[ScaledVersion]:
    """Return the versions of an image; none is larger than the image."""
    versions = [ScaledVersion("", size)] if settings.original else []
    for number, factor in enumerate(settings.scales):
        height, width = (max(1, int(side * factor)) for side in size)
        versions.append(ScaledVersion(f"_T{number}", (height, width)))
    shortest = settings.shortest_edge
    if shortest and min(size) > shortest:
        height, width = (max(shortest, int(side * shortest / min(size))) for side in size)
        versions.append(ScaledVersion(f"_T{len(settings.scales)}", (height, width)))
    return versions


def crop_corners(size: Size, settings: PrepareSettings) -> list[Size]:
    """Return top and left of every crop; the last of a row or column ends at the image's edge."""
    return [
        (top, left) for top in _starts(size[0], settings) for left in _starts(size[1], settings)
    ]


def _starts(length: int, settings: PrepareSettings) -> list[int]:
    if length < settings.crop_size:
        return []
    starts = list(range(0, length - settings.crop_size + 1, settings.step))
    if length - (starts[-1] + settings.crop_size) > settings.thresh_size:
        starts.append(length - settings.crop_size)
    return starts


def plan_crops(
    source: SourceImage, size: Size, out: Path, settings: PrepareSettings
) -> list[CropFile]:
    """Return the ground-truth files of an image, named like `name_T0_s001.png`."""
    files = []
    folder = (out / "gt" if source.lq is not None else out) / source.inside.parent
    for version in scaled_versions(size, settings):
        stem = source.inside.name + version.suffix
        if not settings.crop_size:
            files.append(CropFile(folder / f"{stem}.png", version, None))
            continue
        for number, corner in enumerate(crop_corners(version.size, settings), 1):
            files.append(CropFile(folder / f"{stem}_s{number:03d}.png", version, corner))
    return files


def count_crops(sources: Sequence[SourceImage], settings: PrepareSettings) -> int:
    """Return the number of ground-truth files, by the headers; unreadable images count 0."""
    total = 0
    for source in sources:
        try:
            header = probe(source.path)
        except ImageError:
            continue
        total += len(plan_crops(source, (header.height, header.width), Path(), settings))
    return total
