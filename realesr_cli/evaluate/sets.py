"""The images to judge: folders read, matched by name, and measured, before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from realesr_cli.errors import ConfigError, DatasetError, ImageError
from realesr_cli.evaluate.settings import ImageSetSettings
from realesr_cli.image.pairing import (
    Affix,
    ImageFolder,
    require_pairs,
    require_unique_names,
    scan_pair,
    split_mixed,
)
from realesr_cli.image.probe import probe
from realesr_cli.text import format_names

_MOD_CROPS = (1, 2, 4, 8, 12, 16, 24, 48)
"""Sides of ground truths are cut to a multiple of the scale, or of one of these."""

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True)
class Item:
    """One image of a set: its ground truth, its small version, and results made elsewhere."""

    name: str
    gt: Path | None = None
    lq: Path | None = None
    outputs: tuple[Path, ...] = ()
    """One for each folder of results, in their order."""


@dataclass(frozen=True)
class Measured:
    """An image of a set with what its headers say; sizes are (height, width) in pixels."""

    item: Item
    gt: Size | None
    """Size of the ground truth, cut so that it is a multiple of the small image."""
    lq: Size | None


@dataclass(frozen=True)
class Failure:
    """An image that could not be judged, and why."""

    name: str
    error: str


@dataclass(frozen=True)
class ImageSet:
    """What there is to judge; `scale` is None where nothing tells it."""

    images: tuple[Measured, ...]
    scale: int | None
    failures: tuple[Failure, ...] = ()


def find(settings: ImageSetSettings, outputs: Mapping[str, Path]) -> tuple[list[Item], list[str]]:
    """Return the images of a set with all that belongs to each, and notes on how they were chosen.

    The ground truths say which images there are; without them the low-quality images, and without
    those the first folder of results. Raises DatasetError for missing and empty folders and for
    files without a partner, ConfigError if no folder is given.
    """
    gt, lq, notes = _folders(settings)
    results = [ImageFolder.scan(path, recursive=settings.recursive) for path in outputs.values()]
    folders = [folder for folder in (gt, lq, *results) if folder is not None]
    if not folders:
        raise ConfigError(
            "nothing to evaluate: expected ground truths, low-quality images or results"
        )
    for folder in folders:
        require_unique_names(folder)
    first = folders[0]
    low_quality = None if lq is None else _partners(first, lq, "names")
    columns = [_partners(first, folder, "") for folder in results]
    items = [
        Item(
            name=path.relative_to(first.root).with_suffix("").as_posix(),
            gt=None if gt is None else path,
            lq=None if low_quality is None else low_quality[path],
            outputs=tuple(column[path] for column in columns),
        )
        for path in first.files
    ]
    return items, notes


def _folders(
    settings: ImageSetSettings,
) -> tuple[ImageFolder | None, ImageFolder | None, list[str]]:
    """Scan the folders of ground truths and low-quality images, which may be one folder of both."""
    affixes = (
        Affix(settings.gt_prefix, settings.gt_suffix),
        Affix(settings.lq_prefix, settings.lq_suffix),
    )
    deep = settings.recursive
    gt, lq = None, None
    if settings.gt is not None and settings.lq is not None:
        gt, lq = scan_pair(
            settings.gt, settings.lq, recursive=deep, gt_affix=affixes[0], lq_affix=affixes[1]
        )
    elif settings.gt is not None:
        gt = ImageFolder.scan(settings.gt, recursive=deep, affix=affixes[0])
        # A benchmark that has both kinds in one folder, of which only one is wanted.
        marks = None if any(affixes) else split_mixed([path.stem for path in gt.files])
        gt = gt if marks is None else gt.named(marks[0])
    elif settings.lq is not None:
        lq = ImageFolder.scan(settings.lq, recursive=deep, affix=affixes[1])
    notes = []
    if gt is not None and gt.affix != affixes[0]:
        notes.append(f"ground truths in {gt.root} are the files named {gt.affix}")
    return gt, lq, notes


def _partners(first: ImageFolder, other: ImageFolder, advice: str) -> dict[Path, Path]:
    """Return for each file of `first` the one of `other` that belongs to it."""
    if other is first:
        return {path: path for path in first.files}
    return dict(require_pairs(first, other, advice=advice))


def measure(items: Sequence[Item], scale: int | None) -> ImageSet:
    """Sizes of all images, from their headers; those that cannot be read go to `failures`.

    `scale` None is found from the images. Raises DatasetError where sizes do not match: a ground
    truth must be `scale` times its small image once it is cut to a multiple of the scale (or of
    12 and the like, as benchmarks are), and a result as large as the ground truth, cut or not.
    """
    kept: list[tuple[Item, Size | None, Size | None, list[Size]]] = []
    failures = []
    for item in items:
        try:
            gt, lq = (None if path is None else _size(path) for path in (item.gt, item.lq))
            kept.append((item, gt, lq, [_size(path) for path in item.outputs]))
        except ImageError as error:
            failures.append(Failure(item.name, str(error)))
    if scale is None:
        scale = _found_scale([(gt, lq) for _, gt, lq, _ in kept])
    wrong: list[str] = []
    images = []
    for item, gt, lq, outputs in kept:
        cut = None if gt is None else _cut(gt, lq, scale)
        if gt is not None and cut is None:
            assert lq is not None
            wrong.append(f"{item.name} ({_wxh(gt)} and {_wxh(lq)})")
            continue
        fitting = [size in (gt, cut) for size in outputs]
        if gt is not None and not all(fitting):
            odd = fitting.index(False)
            wrong.append(f"{item.outputs[odd]} ({_wxh(outputs[odd])}, not {_wxh(gt)})")
            continue
        images.append(Measured(item, cut, lq))
    if wrong:
        what = "" if scale is None else f" at scale {scale}"
        raise DatasetError(
            f"sizes do not match{what}: {format_names(wrong)}. A ground truth must be the scale "
            "times its small image, and a result as large as the ground truth"
        )
    return ImageSet(tuple(images), scale, tuple(failures))


def _size(path: Path) -> Size:
    header = probe(path)
    return header.height, header.width


def _wxh(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def _found_scale(sizes: Sequence[tuple[Size | None, Size | None]]) -> int | None:
    """The whole number that the first ground truth is of its small image."""
    for gt, lq in sizes:
        if gt is not None and lq is not None:
            factor = gt[0] // lq[0]
            return factor if factor >= 1 and _cut(gt, lq, factor) is not None else None
    return None


def _cut(gt: Size, lq: Size | None, scale: int | None) -> Size | None:
    """The part of a ground truth that is compared, from its upper left; None where it cannot be."""
    if scale is None:
        return gt if lq is None else None
    if lq is None:
        return gt[0] // scale * scale, gt[1] // scale * scale
    whole = lq[0] * scale, lq[1] * scale
    for side in (scale, *_MOD_CROPS):
        if side % scale == 0 and (gt[0] // side * side, gt[1] // side * side) == whole:
            return whole
    return whole if whole == gt else None
