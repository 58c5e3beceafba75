"""Image sets: folders matched by name and measured by their headers, before any work is done."""

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
"""Benchmarks crop ground truths to a multiple of the scale, or of one of these."""

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True)
class SetItem:
    """One image of a set: its ground truth, its low-quality image, and results to compare."""

    name: str
    gt: Path | None = None
    lq: Path | None = None
    outputs: tuple[Path, ...] = ()
    """One for each folder of results, in their order."""


@dataclass(frozen=True)
class MeasuredItem:
    """An item with its sizes; that of the ground truth is cropped to `scale` times the other."""

    item: SetItem
    gt_size: Size | None
    lq_size: Size | None


@dataclass(frozen=True)
class Failure:
    """An image that was excluded, and why."""

    name: str
    error: str


@dataclass(frozen=True)
class ImageSet:
    """The images to evaluate; `scale` is None if neither settings nor images determine it."""

    images: tuple[MeasuredItem, ...]
    scale: int | None
    failures: tuple[Failure, ...] = ()


def find_items(
    settings: ImageSetSettings, outputs: Mapping[str, Path]
) -> tuple[list[SetItem], list[str]]:
    """Return the images of a set with the files that belong to each, and notes for the user.

    The ground truths determine which images there are; without them the low-quality images, and
    without those the first folder of results. Raises DatasetError for missing and empty folders and
    for files without a partner, ConfigError if no folder is given.
    """
    gt, lq, notes = _scan(settings)
    results = [ImageFolder.scan(path, recursive=settings.recursive) for path in outputs.values()]
    folders = [folder for folder in (gt, lq, *results) if folder is not None]
    if not folders:
        raise ConfigError(
            "nothing to evaluate: expected ground truths, low-quality images or results",
            advice="evaluate-what",
        )
    for folder in folders:
        require_unique_names(folder)
    first = folders[0]
    low_quality = None if lq is None else _partners(first, lq, "names")
    columns = [_partners(first, folder, "") for folder in results]
    items = [
        SetItem(
            name=path.relative_to(first.root).with_suffix("").as_posix(),
            gt=None if gt is None else path,
            lq=None if low_quality is None else low_quality[path],
            outputs=tuple(column[path] for column in columns),
        )
        for path in first.files
    ]
    return items, notes


def _scan(settings: ImageSetSettings) -> tuple[ImageFolder | None, ImageFolder | None, list[str]]:
    """Find the ground truths and low-quality images, which may be in one folder."""
    gt_affix = Affix(settings.gt_prefix, settings.gt_suffix)
    lq_affix = Affix(settings.lq_prefix, settings.lq_suffix)
    deep = settings.recursive
    gt, lq = None, None
    if settings.gt is not None and settings.lq is not None:
        gt, lq = scan_pair(
            settings.gt, settings.lq, recursive=deep, gt_affix=gt_affix, lq_affix=lq_affix
        )
    elif settings.gt is not None:
        gt = ImageFolder.scan(settings.gt, recursive=deep, affix=gt_affix)
        # A benchmark with both kinds in one folder, of which only the ground truths are used.
        marks = None if gt_affix else split_mixed([path.stem for path in gt.files])
        gt = gt if marks is None else gt.named(marks[0])
    elif settings.lq is not None:
        lq = ImageFolder.scan(settings.lq, recursive=deep, affix=lq_affix)
    notes = []
    if gt is not None and gt.affix != gt_affix:
        notes.append(f"ground truths in {gt.root} are the files named {gt.affix}")
    return gt, lq, notes


def _partners(first: ImageFolder, other: ImageFolder, advice: str) -> dict[Path, Path]:
    """Return for each file of `first` the one of `other` that belongs to it."""
    if other is first:
        return {path: path for path in first.files}
    return dict(require_pairs(first, other, advice=advice))


def measure_items(items: Sequence[SetItem], scale: int | None) -> ImageSet:
    """Read the sizes of all images from their headers; unreadable ones become failures.

    If `scale` is None, it is determined from the images. Raises DatasetError if sizes do not match:
    a ground truth must be `scale` times its low-quality image after cropping to a multiple of the
    scale (or of 12 and the like, as benchmarks are), and a result as large as the ground truth,
    cropped or not.
    """
    kept: list[tuple[SetItem, Size | None, Size | None, list[Size]]] = []
    failures = []
    for item in items:
        try:
            gt, lq = (None if path is None else _size(path) for path in (item.gt, item.lq))
            kept.append((item, gt, lq, [_size(path) for path in item.outputs]))
        except ImageError as error:
            failures.append(Failure(item.name, str(error)))
    if scale is None:
        scale = _scale_of([(gt, lq) for _, gt, lq, _ in kept])
    wrong: list[str] = []
    images = []
    for item, gt, lq, outputs in kept:
        cropped = None if gt is None else _crop_size(gt, lq, scale)
        if gt is not None and cropped is None:
            assert lq is not None
            wrong.append(f"{item.name} ({_format(gt)} and {_format(lq)})")
            continue
        odd = [number for number, size in enumerate(outputs) if size not in (gt, cropped)]
        if gt is not None and odd:
            path, size = item.outputs[odd[0]], outputs[odd[0]]
            wrong.append(f"{path} ({_format(size)}, expected {_format(gt)})")
            continue
        images.append(MeasuredItem(item, cropped, lq))
    if wrong:
        at_scale = "" if scale is None else f" at scale {scale}"
        raise DatasetError(
            f"sizes do not match{at_scale}: {format_names(wrong)}. A ground truth must be the "
            "scale times its low-quality image, and a result as large as the ground truth"
        )
    return ImageSet(tuple(images), scale, tuple(failures))


def _size(path: Path) -> Size:
    header = probe(path)
    return header.height, header.width


def _format(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def _scale_of(sizes: Sequence[tuple[Size | None, Size | None]]) -> int | None:
    """Return the integer ratio of the first pair; None if there is no pair or no such ratio."""
    for gt, lq in sizes:
        if gt is not None and lq is not None:
            factor = gt[0] // lq[0]
            return factor if factor >= 1 and _crop_size(gt, lq, factor) is not None else None
    return None


def _crop_size(gt: Size, lq: Size | None, scale: int | None) -> Size | None:
    """Return the size of the upper left part of a ground truth that is compared, if it fits."""
    if scale is None:
        return gt if lq is None else None
    if lq is None:
        return gt[0] // scale * scale, gt[1] // scale * scale
    expected = lq[0] * scale, lq[1] * scale
    for side in (scale, *_MOD_CROPS):
        if side % scale == 0 and (gt[0] // side * side, gt[1] // side * side) == expected:
            return expected
    return expected if expected == gt else None
