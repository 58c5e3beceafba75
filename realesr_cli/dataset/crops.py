"""Which training files are made of which images: versions, squares and names, all unwritten."""

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


@dataclass(frozen=True)
class SourceImage:
    """An image to be prepared, by its path inside its folder, with its partner if any."""

    path: Path
    inside: Path
    lq: Path | None = None


@dataclass(frozen=True)
class ScaledVersion:
    """One version of an image: what its name gets, and its size (height, width) in pixels."""

    mark: str
    size: Size


def versions(size: Size, settings: PrepareSettings) -> list[ScaledVersion]:
    """The versions of an image of `size`; none is larger than the image itself."""
    made = [ScaledVersion("", size)] if settings.original else []
    for number, factor in enumerate(settings.scales):
        height, width = (max(1, int(side * factor)) for side in size)
        made.append(ScaledVersion(f"T{number}", (height, width)))
    if settings.shortest and min(size) > settings.shortest:
        factor = settings.shortest / min(size)
        height, width = (max(settings.shortest, int(side * factor)) for side in size)
        made.append(ScaledVersion(f"T{len(settings.scales)}", (height, width)))
    return made


def corners(size: Size, settings: PrepareSettings) -> list[Size]:
    """Top and left of every square; the last of a row or column ends at the image's edge."""
    return [
        (top, left) for top in _starts(size[0], settings) for left in _starts(size[1], settings)
    ]


def _starts(length: int, settings: PrepareSettings) -> list[int]:
    if length < settings.side:
        return []
    starts = list(range(0, length - settings.side + 1, settings.step))
    if length - (starts[-1] + settings.side) > settings.rest:
        starts.append(length - settings.side)
    return starts


def count_files(size: Size, settings: PrepareSettings) -> int:
    """How many files an image of `size` gives."""
    if not settings.side:
        return len(versions(size, settings))
    return sum(len(corners(version.size, settings)) for version in versions(size, settings))


def find_sources(gt: Path, lq: Path | None, settings: PrepareSettings) -> list[SourceImage]:
    """The images of a folder, with their partners.

    DatasetError where the folder is missing or empty, partners are missing, or two images would
    give files of one name; ConfigError for smaller versions of pairs, which have none.
    """
    if lq is None:
        images = ImageFolder.scan(gt, recursive=True)
        require_unique_names(images)  # Their crops would have one name.
        return [SourceImage(path, path.relative_to(gt).with_suffix("")) for path in images.files]
    if settings.scales or settings.shortest or not settings.original:
        raise ConfigError(
            "pairs are prepared at their own size: set scales to nothing and shortest to 0"
        )
    if settings.side % settings.scale or settings.step % settings.scale:
        raise ConfigError(
            f"squares of {settings.side} every {settings.step} pixels do not lie on the grid of "
            f"low-quality pixels: give multiples of {settings.scale}"
        )
    affix = Affix(settings.lq_prefix, settings.lq_suffix)
    pairs = require_pairs(*scan_pair(gt, lq, recursive=True, lq_affix=affix), advice="names")
    return [SourceImage(path, path.relative_to(gt).with_suffix(""), other) for path, other in pairs]


@dataclass(frozen=True)
class CropFile:
    """One file to write: where, and which square of which version (None: all of it)."""

    path: Path
    version: ScaledVersion
    corner: Size | None


def pieces(source: SourceImage, size: Size, out: Path, settings: PrepareSettings) -> list[CropFile]:
    """The ground-truth files of an image of `size`, as `name_T0_s001.png`."""
    made = []
    folder = out / "gt" if source.lq is not None else out
    for version in versions(size, settings):
        stem = source.inside.name + (f"_{version.mark}" if version.mark else "")
        parent = folder / source.inside.parent
        if not settings.side:
            made.append(CropFile(parent / f"{stem}.png", version, None))
            continue
        for number, corner in enumerate(corners(version.size, settings), 1):
            made.append(CropFile(parent / f"{stem}_s{number:03d}.png", version, corner))
    return made


def count(sources: Sequence[SourceImage], settings: PrepareSettings) -> int:
    """How many ground-truth files would be made, by the headers alone; unreadable ones count 0."""
    total = 0
    for source in sources:
        try:
            header = probe(source.path)
        except ImageError:
            continue
        total += count_files((header.height, header.width), settings)
    return total
