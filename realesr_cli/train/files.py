"""Which images a run trains on and validates with: found, paired, measured and split."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from realesr_cli.errors import DatasetError, ImageError
from realesr_cli.image.folders import ExcludedImage, find_images
from realesr_cli.image.pairing import Affix, require_pairs, scan_pair
from realesr_cli.image.probe import probe
from realesr_cli.progress import Progress, no_progress
from realesr_cli.text import format_names
from realesr_cli.train.settings import DataConfig, ValidationConfig

MIN_TO_SPLIT = 5
"""With fewer training images than this, none is held out for validation."""

MIN_HELD_OUT = 3
"""Images held out at least, where these are at most a tenth of all."""


@dataclass(frozen=True)
class TrainingImage:
    """A ground truth, its size in pixels, and its low-quality version if there is one."""

    gt: Path
    height: int
    width: int
    lq: Path | None = None
    folder: int = 0
    """Index of the folder in `data.gt` that contains it."""


@dataclass(frozen=True)
class TrainingImages:
    """The images to train on and to validate with, and the files that cannot be used."""

    train: tuple[TrainingImage, ...]
    validation: tuple[TrainingImage, ...]
    excluded: tuple[ExcludedImage, ...]


def find_training_images(
    data: DataConfig,
    validation: ValidationConfig,
    *,
    scale: int,
    progress: Progress = no_progress,
) -> TrainingImages:
    """Find, pair, measure and split all images of a run; only headers are read.

    Unreadable files are excluded and returned with the reason. Raises DatasetError for missing or
    empty folders, for pairs that are required but not given or do not match in name or size, for
    validation images that are trained on, and when no usable image is left.
    """
    if not data.gt:
        raise DatasetError("no training images: data.gt is empty", advice="train-data")
    if data.paired and not data.lq:
        raise DatasetError(
            "paired training needs the low-quality folder of each folder in data.gt as data.lq",
            advice="train-lq",
        )
    if validation.gt:
        _refuse_overlap(data.gt, Path(validation.gt))
    images, excluded = _measure_all(_list_training_files(data), scale, progress)
    _require_some(images, excluded, data.gt)
    if not validation.gt:
        train, held_out = split(images, validation)
        return TrainingImages(train, held_out, tuple(excluded))
    lq = Path(validation.lq) if validation.lq else None
    files = _list_pairs(Path(validation.gt), lq, Affix(), folder=0)
    scored, more = _measure_all(files, scale, no_progress)
    _require_some(scored, more, (Path(validation.gt),))
    chosen = pick_evenly(scored, validation.images or len(scored))
    return TrainingImages(tuple(images), tuple(chosen), tuple(excluded + more))


def split(
    images: Sequence[TrainingImage], validation: ValidationConfig
) -> tuple[tuple[TrainingImage, ...], tuple[TrainingImage, ...]]:
    """Split into training and held-out images, evenly spaced by name, always the same way."""
    if not validation.split or not validation.every or len(images) < MIN_TO_SPLIT:
        return tuple(images), ()
    few = min(MIN_HELD_OUT, len(images) // 10)
    count = max(math.ceil(validation.split * len(images)), few)
    held_out = pick_evenly(images, min(count, validation.images or count))
    chosen = set(held_out)
    return tuple(image for image in images if image not in chosen), tuple(held_out)


def pick_evenly(images: Sequence[TrainingImage], count: int) -> list[TrainingImage]:
    """Return at most `count` images, evenly spaced over the whole list."""
    total = len(images)
    count = min(count, total)
    return [images[(2 * i + 1) * total // (2 * count)] for i in range(count)]


def _list_training_files(data: DataConfig) -> list[TrainingImage]:
    """Return every file of every folder, not yet measured; files listed twice are taken once."""
    found: dict[str, TrainingImage] = {}
    affix = Affix(data.lq_prefix, data.lq_suffix)
    for number, folder in enumerate(data.gt):
        for image in _list_pairs(folder, data.lq_folder(number), affix, folder=number):
            found.setdefault(os.path.realpath(image.gt), image)
    return list(found.values())


def _list_pairs(gt: Path, lq: Path | None, affix: Affix, *, folder: int) -> list[TrainingImage]:
    if lq is None:
        files = find_images(gt, recursive=True)
        return [TrainingImage(file, 0, 0, None, folder) for file in files]
    pairs = require_pairs(*scan_pair(gt, lq, recursive=True, lq_affix=affix), advice="train-names")
    return [TrainingImage(file, 0, 0, partner, folder) for file, partner in pairs]


def _measure_all(
    images: Sequence[TrainingImage], scale: int, progress: Progress
) -> tuple[list[TrainingImage], list[ExcludedImage]]:
    """Read sizes from headers; DatasetError where pairs are not to scale."""
    kept: list[TrainingImage] = []
    excluded: list[ExcludedImage] = []
    wrong: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        measured = zip(images, pool.map(_measure, images), strict=True)
        for done, (image, result) in enumerate(measured, 1):
            progress(done, len(images))
            if isinstance(result, ExcludedImage):
                excluded.append(result)
                continue
            (height, width), lq_size = result
            if lq_size is not None and (lq_size[0] * scale, lq_size[1] * scale) != (height, width):
                wrong.append(f"{image.gt.name} ({width}x{height}, {lq_size[1]}x{lq_size[0]})")
            kept.append(replace(image, height=height, width=width))
    if wrong:
        raise DatasetError(
            f"pairs of the wrong scale: {format_names(wrong)}. Expected ground truths exactly "
            f"{scale} times as wide and high as the low-quality images; check the scale of the run"
        )
    return kept, excluded


Size = tuple[int, int]


def _measure(image: TrainingImage) -> tuple[Size, Size | None] | ExcludedImage:
    path = image.gt
    try:
        header = probe(path)
        if image.lq is None:
            return (header.height, header.width), None
        path = image.lq
        small = probe(path)
        return (header.height, header.width), (small.height, small.width)
    except ImageError as error:
        return ExcludedImage(path, str(error))


def _require_some(
    images: Sequence[TrainingImage], excluded: Sequence[ExcludedImage], folders: Sequence[Path]
) -> None:
    if not images:
        raise DatasetError(
            f"{format_names(folders)}: none of {len(excluded)} files can be read, the first "
            f"because: {excluded[0].reason}"
        )


def _refuse_overlap(training: Sequence[Path], validation: Path) -> None:
    own = validation.resolve()
    for folder in training:
        other = folder.resolve()
        if own == other or other in own.parents or own in other.parents:
            relation = "is a training folder" if own == other else f"overlaps with {folder}"
            raise DatasetError(
                f"validation folder {validation} {relation}: scores on training images are "
                "meaningless. Use another folder, or none to hold some images out"
            )
