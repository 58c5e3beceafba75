"""Which images a run trains on and is scored on: found, paired by name, measured, split."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from realesr_cli.errors import DatasetError, ImageError
from realesr_cli.image.folders import ExcludedImage, find_images
from realesr_cli.image.pairing import Affix, require_pairs, scan_pair
from realesr_cli.image.probe import probe
from realesr_cli.text import format_names
from realesr_cli.train.config import DataConfig, ValidationConfig

Report = Callable[[int, int], None]

FEWEST_TO_SPLIT = 5
"""With fewer training images than this none is held out for validation."""


@dataclass(frozen=True)
class TrainingImage:
    """A ground truth, its size in pixels, and its low-quality version where there is one."""

    gt: Path
    height: int
    width: int
    lq: Path | None = None
    folder: int = 0
    """Number of the folder of `data.gt` it was found in."""


@dataclass(frozen=True)
class TrainingImages:
    """What a run has to do with: images to train on, to validate with, and those left out."""

    train: tuple[TrainingImage, ...]
    validation: tuple[TrainingImage, ...]
    left_out: tuple[ExcludedImage, ...]


def gather(
    data: DataConfig, validation: ValidationConfig, *, scale: int, report: Report | None = None
) -> TrainingImages:
    """Find, pair, measure and split all images of a run.

    Headers are read, pixels are not. Raises DatasetError for missing or empty folders, pairs that
    are wanted but not given or do not match in name or size, validation images that are trained
    on, and when nothing usable is left; single unreadable files are left out and returned with the
    reason.
    """
    if not data.gt:
        raise DatasetError("no training images: give a folder with --data (data.gt)")
    if data.paired and not data.lq:
        raise DatasetError(
            "paired training (data.paired) needs the low-quality folder of each --data: give --lq"
        )
    if validation.gt:
        _refuse_overlap(data.gt, Path(validation.gt))
    images, left_out = _measured(_training_files(data), scale, report)
    _require_some(images, left_out, data.gt)
    if not validation.gt:
        train, held = split(images, validation)
        return TrainingImages(train, held, tuple(left_out))
    lq = Path(validation.lq) if validation.lq else None
    files = _paired(Path(validation.gt), lq, "", "", folder=0)
    scored, more = _measured(files, scale, None)
    _require_some(scored, more, (Path(validation.gt),))
    chosen = spaced(scored, validation.images or len(scored))
    return TrainingImages(tuple(images), tuple(chosen), tuple(left_out + more))


def split(
    images: Sequence[TrainingImage], validation: ValidationConfig
) -> tuple[tuple[TrainingImage, ...], tuple[TrainingImage, ...]]:
    """Training and held-out images: a share of them, evenly spaced by name, always the same."""
    if not validation.split or not validation.every or len(images) < FEWEST_TO_SPLIT:
        return tuple(images), ()
    count = math.ceil(validation.split * len(images))
    held = spaced(images, min(count, validation.images or count))
    chosen = set(held)
    return tuple(p for p in images if p not in chosen), tuple(held)


def spaced(images: Sequence[TrainingImage], count: int) -> list[TrainingImage]:
    """At most `count` of them, evenly spaced over the whole list."""
    total = len(images)
    count = min(count, total)
    return [images[(2 * i + 1) * total // (2 * count)] for i in range(count)]


def _training_files(data: DataConfig) -> list[TrainingImage]:
    """Every file of every folder, not yet measured (sizes 0), a file named twice taken once."""
    found: dict[str, TrainingImage] = {}
    for number, folder in enumerate(data.gt):
        lq = data.lq[number] if data.lq else None
        for img in _paired(folder, lq, data.lq_prefix, data.lq_suffix, folder=number):
            found.setdefault(os.path.realpath(img.gt), img)
    return list(found.values())


def _paired(
    gt: Path, lq: Path | None, prefix: str, suffix: str, *, folder: int
) -> list[TrainingImage]:
    if lq is None:
        files = find_images(gt, recursive=True)
        return [TrainingImage(file, 0, 0, None, folder) for file in files]
    folders = scan_pair(gt, lq, recursive=True, lq_affix=Affix(prefix, suffix))
    pairs = require_pairs(*folders, advice="train-names")
    return [TrainingImage(file, 0, 0, partner, folder) for file, partner in pairs]


def _measured(
    images: Sequence[TrainingImage], scale: int, report: Report | None
) -> tuple[list[TrainingImage], list[ExcludedImage]]:
    """Sizes from headers; unreadable files apart. DatasetError where pairs are not to scale."""
    kept: list[TrainingImage] = []
    left_out: list[ExcludedImage] = []
    wrong: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        for done, (img, result) in enumerate(
            zip(images, pool.map(_measure, images), strict=True), 1
        ):
            if report is not None:
                report(done, len(images))
            if isinstance(result, ExcludedImage):
                left_out.append(result)
                continue
            (height, width), small = result
            if small is not None and (small[0] * scale, small[1] * scale) != (height, width):
                wrong.append(f"{img.gt.name} ({width}x{height} and {small[1]}x{small[0]})")
            kept.append(TrainingImage(img.gt, height, width, img.lq, img.folder))
    if wrong:
        raise DatasetError(
            f"paired images are not to scale: {format_names(wrong)}. The ground truth must be "
            f"exactly {scale} times its partner in width and height; is the scale of the run right?"
        )
    return kept, left_out


Size = tuple[int, int]


def _measure(img: TrainingImage) -> tuple[Size, Size | None] | ExcludedImage:
    path = img.gt
    try:
        header = probe(path)
        if img.lq is None:
            return (header.height, header.width), None
        path = img.lq
        small = probe(path)
        return (header.height, header.width), (small.height, small.width)
    except ImageError as error:
        return ExcludedImage(path, str(error))


def _require_some(
    images: Sequence[TrainingImage], left_out: Sequence[ExcludedImage], folders: Sequence[Path]
) -> None:
    if not images:
        where = ", ".join(map(str, folders))
        raise DatasetError(
            f"{where}: none of {len(left_out)} files can be read; first: {left_out[0].reason}"
        )


def _refuse_overlap(training: Sequence[Path], validation: Path) -> None:
    own = validation.resolve()
    for folder in training:
        other = folder.resolve()
        if own == other or other in own.parents or own in other.parents:
            how = "is the training folder" if own == other else f"overlaps with {folder}"
            raise DatasetError(
                f"validation folder {validation} {how}: scores on images that are trained on say "
                "nothing. Give another folder, or none and let a part be held out"
            )
