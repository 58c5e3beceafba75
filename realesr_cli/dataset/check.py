"""Check training images before they cost a week: every problem, with its file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from realesr_cli.dataset import similarity
from realesr_cli.dataset.settings import CheckSettings
from realesr_cli.dataset.similarity import Fingerprint, first_matches
from realesr_cli.errors import ConfigError, ImageError
from realesr_cli.image.pairing import (
    Affix,
    ImageFolder,
    duplicate_names,
    match_pairs,
    scan_pair,
)
from realesr_cli.image.read import read_image
from realesr_cli.progress import Progress, no_progress

SUGGESTIONS: dict[str, str] = {
    "unreadable": "remove these files or download them again",
    "same-name": "rename one: images are paired and prepared by their name without extension",
    "unpaired": "add the partner or remove the image; are lq_prefix and lq_suffix right?",
    "ratio": "the ground truth must be exactly `scale` times its partner in width and height",
    "channels": "one of the pair is gray: save both with the same channels",
    "content": "the two images of these pairs show different things",
    "small": "smaller than a training crop, so they are padded: better excluded",
    "duplicate": "keep one of each: copies are learned twice",
    "blocky": "strongly compressed, so the network learns to reproduce the blocks: better excluded",
    "leak": "validation scores are too high if its images are trained on: remove them on one side",
}
"""Every kind of problem, and what to do about it."""


@dataclass(frozen=True)
class DatasetFolders:
    """What is checked: ground truths, their low-quality images, and validation images."""

    gt: tuple[Path, ...]
    lq: tuple[Path, ...] = ()
    validation: tuple[Path, ...] = ()


@dataclass(frozen=True)
class DatasetProblem:
    """A problem: its kind (a key of SUGGESTIONS), the file, a text, and the other file if any."""

    kind: str
    path: Path
    text: str
    other: Path | None = None


@dataclass(frozen=True)
class DatasetReport:
    """The number of images checked, and all problems in the order of SUGGESTIONS."""

    images: int
    problems: tuple[DatasetProblem, ...]

    def counts(self) -> dict[str, int]:
        """Return the number of problems by kind, without kinds that do not occur."""
        found = Counter(problem.kind for problem in self.problems)
        return {kind: found[kind] for kind in SUGGESTIONS if found[kind]}


@dataclass(frozen=True)
class CheckedImage:
    """What is kept of a decoded image."""

    path: Path
    height: int
    width: int
    gray: bool
    fingerprint: Fingerprint
    blockiness: float


def check_dataset(
    folders: DatasetFolders, settings: CheckSettings, *, progress: Progress = no_progress
) -> DatasetReport:
    """Decode every image and report what is wrong with the images and between them.

    Raises ConfigError if the number of folders does not match, and DatasetError for folders that
    are missing or contain no images.
    """
    if not folders.gt:
        raise ConfigError("expected at least one folder of images")
    if folders.lq and len(folders.lq) != len(folders.gt):
        raise ConfigError(
            "expected one low-quality folder for each ground-truth folder, in the same order, got "
            f"{len(folders.lq)} for {len(folders.gt)}"
        )
    affix = Affix(settings.lq_prefix, settings.lq_suffix)
    paired = [
        scan_pair(gt, lq, recursive=True, lq_affix=affix)
        for gt, lq in zip(folders.gt, folders.lq, strict=False)
    ]
    single = [] if paired else [ImageFolder.scan(path, recursive=True) for path in folders.gt]
    gt_folders = single or [gt for gt, _ in paired]
    lq_folders = [lq for _, lq in paired]
    held_out = [ImageFolder.scan(path, recursive=True) for path in folders.validation]
    everything = list(_files((*gt_folders, *lq_folders, *held_out)))
    images, problems = _decode_all(everything, settings.workers, progress)
    gt = [images[path] for path in _files(gt_folders) if path in images]
    validation = [images[path] for path in _files(held_out) if path in images]
    for folder in (*gt_folders, *lq_folders):
        problems += [
            DatasetProblem("same-name", path, f"has the name of {first.name}", first)
            for path, first in duplicate_names(folder)
        ]
    for gt_folder, lq_folder in paired:
        problems += _check_pairs(gt_folder, lq_folder, images, settings)
    problems += _find_small_and_blocky(gt, settings)
    problems += _find_duplicates(gt, settings)
    problems += _find_leaks(gt, validation, settings)
    order = list(SUGGESTIONS)
    problems.sort(key=lambda problem: (order.index(problem.kind), str(problem.path)))
    return DatasetReport(len(everything), tuple(problems))


def _files(folders: Sequence[ImageFolder]) -> dict[Path, None]:
    """Return the files of all folders, each once, in order."""
    return dict.fromkeys(path for folder in folders for path in folder.files)


def _decode_all(
    paths: Sequence[Path], workers: int, progress: Progress
) -> tuple[dict[Path, CheckedImage], list[DatasetProblem]]:
    images: dict[Path, CheckedImage] = {}
    problems: list[DatasetProblem] = []
    with ThreadPoolExecutor(workers) as pool:
        results = zip(paths, pool.map(_decode, paths), strict=True)
        for done, (path, result) in enumerate(results, 1):
            if isinstance(result, DatasetProblem):
                problems.append(result)
            else:
                images[path] = result
            progress(done, len(paths))
    return images, problems


def _decode(path: Path) -> CheckedImage | DatasetProblem:
    try:
        image = read_image(path)
    except ImageError as error:
        return DatasetProblem("unreadable", path, str(error).removeprefix(f"{path}: "))
    luma = similarity.luma_of(image.pixels)
    return CheckedImage(
        path,
        image.height,
        image.width,
        image.gray,
        similarity.fingerprint(luma),
        similarity.blockiness(luma),
    )


def _check_pairs(
    gt: ImageFolder,
    lq: ImageFolder,
    images: dict[Path, CheckedImage],
    settings: CheckSettings,
) -> list[DatasetProblem]:
    match = match_pairs(gt, lq)
    problems = [
        DatasetProblem("unpaired", path, f"no image of this name in {lq.root}")
        for path in match.first_only
    ]
    problems += [
        DatasetProblem("unpaired", path, f"no ground truth of this name in {gt.root}")
        for path in match.second_only
    ]
    for first, second in match.pairs:
        if first in images and second in images:
            problems += _check_pair(images[first], images[second], settings)
    return problems


def _check_pair(
    gt: CheckedImage, lq: CheckedImage, settings: CheckSettings
) -> list[DatasetProblem]:
    problems = []
    scale = settings.scale
    if (gt.height, gt.width) != (lq.height * scale, lq.width * scale):
        sizes = f"{gt.width}x{gt.height} is not {scale} times {lq.width}x{lq.height}"
        problems.append(DatasetProblem("ratio", gt.path, sizes, lq.path))
    if gt.gray != lq.gray:
        which = "ground truth" if gt.gray else "low-quality image"
        problems.append(DatasetProblem("channels", gt.path, f"only the {which} is gray", lq.path))
    found = similarity.correlation(gt.fingerprint.thumb, lq.fingerprint.thumb)
    if found < settings.min_correlation:
        problems.append(DatasetProblem("content", gt.path, f"correlation {found:.2f}", lq.path))
    return problems


def _find_small_and_blocky(
    gt: Sequence[CheckedImage], settings: CheckSettings
) -> list[DatasetProblem]:
    problems = []
    for image in gt:
        if min(image.height, image.width) < settings.min_size:
            text = f"{image.width}x{image.height} is smaller than {settings.min_size} pixels"
            problems.append(DatasetProblem("small", image.path, text))
        if image.blockiness > settings.max_blockiness:
            text = f"blockiness {image.blockiness:.1f}"
            problems.append(DatasetProblem("blocky", image.path, text))
    return problems


def _find_duplicates(gt: Sequence[CheckedImage], settings: CheckSettings) -> list[DatasetProblem]:
    matches = first_matches(
        [image.fingerprint for image in gt], hash_distance=settings.hash_distance
    )
    return [
        DatasetProblem("duplicate", gt[copy].path, f"looks like {gt[first].path}", gt[first].path)
        for copy, first in matches
    ]


def _find_leaks(
    gt: Sequence[CheckedImage], validation: Sequence[CheckedImage], settings: CheckSettings
) -> list[DatasetProblem]:
    matches = first_matches(
        [image.fingerprint for image in validation],
        [image.fingerprint for image in gt],
        hash_distance=settings.hash_distance,
    )
    problems = []
    for held_out, trained in matches:
        path, other = validation[held_out].path, gt[trained].path
        same = os.path.realpath(path) == os.path.realpath(other)
        text = "is a training image too" if same else f"looks like {other}, a training image"
        problems.append(DatasetProblem("leak", path, text, other))
    return problems
