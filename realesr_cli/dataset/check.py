"""Look over training images before they cost a week: every fault, with the file it is in."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from realesr_cli.dataset import similarity
from realesr_cli.dataset.settings import CheckSettings
from realesr_cli.errors import ConfigError, ImageError
from realesr_cli.image.pairing import (
    Affix,
    ImageFolder,
    duplicate_names,
    match_pairs,
    scan_pair,
)
from realesr_cli.image.read import read_image

Report = Callable[[int, int], None]

ADVICE: dict[str, str] = {
    "unreadable": "remove these files or fetch them again",
    "same-name": "rename one: images are paired and prepared by their name without extension",
    "unpaired": "add the partner, or remove the image; see --lq-prefix and --lq-suffix",
    "ratio": "the ground truth must be exactly --scale times its partner in width and height",
    "channels": "one of the pair is gray: save both with the same channels",
    "content": "the two images of these pairs show different things",
    "small": "a training crop does not fit: such images are padded; better left out",
    "duplicate": "keep one of each: copies are learned twice",
    "blocky": "compressed hard: the network learns to paint the blocks; better left out",
    "leak": "validation images that are trained on score too well: remove them from one side",
}
"""Every kind of fault, and what to do about it."""


@dataclass(frozen=True)
class DatasetProblem:
    """One fault: its kind (a key of ADVICE), the file, what is wrong, and the other file if any."""

    kind: str
    path: Path
    text: str
    other: Path | None = None


@dataclass(frozen=True)
class DatasetReport:
    """The outcome: how many images were looked at, and all faults in order of their kinds."""

    images: int
    faults: tuple[DatasetProblem, ...]

    def counts(self) -> dict[str, int]:
        """Number of faults by kind, kinds without faults left out."""
        found = Counter(fault.kind for fault in self.faults)
        return {kind: found[kind] for kind in ADVICE if found[kind]}


@dataclass(frozen=True)
class Looked:
    """What is kept of one decoded image."""

    path: Path
    height: int
    width: int
    gray: bool
    hash: similarity.Bits
    thumb: similarity.Floats
    blockiness: float


@dataclass(frozen=True)
class Folders:
    """What is checked: ground truths, their low-quality versions, and validation images."""

    gt: tuple[Path, ...]
    lq: tuple[Path, ...] = ()
    validation: tuple[Path, ...] = ()


def check_dataset(
    folders: Folders, settings: CheckSettings, *, report: Report | None = None
) -> DatasetReport:
    """Decode every image and find what is wrong with them and between them.

    Raises ConfigError where the number of folders does not fit, and DatasetError for folders that
    are missing or hold no images.
    """
    if not folders.gt:
        raise ConfigError("no folder of images given")
    if folders.lq and len(folders.lq) != len(folders.gt):
        raise ConfigError(
            f"{len(folders.lq)} folders of low-quality images for {len(folders.gt)} of ground "
            "truths: give one for each, in the same order"
        )
    affix = Affix(settings.lq_prefix, settings.lq_suffix)
    paired = [
        scan_pair(gt, lq, recursive=True, lq_affix=affix)
        for gt, lq in zip(folders.gt, folders.lq, strict=False)
    ]
    single = [] if paired else [ImageFolder.scan(path, recursive=True) for path in folders.gt]
    held_out = [ImageFolder.scan(path, recursive=True) for path in folders.validation]
    gt_folders = single or [gt for gt, _ in paired]
    scanned = (*gt_folders, *(lq for _, lq in paired), *held_out)
    everything = list(dict.fromkeys(path for folder in scanned for path in folder.files))
    looked, faults = _look_at(everything, settings, report)
    gt = [looked[path] for folder in gt_folders for path in folder.files if path in looked]
    validation = [looked[path] for folder in held_out for path in folder.files if path in looked]
    for folder in (*gt_folders, *(lq for _, lq in paired)):
        faults += [
            DatasetProblem("same-name", path, f"has the name of {first.name}", first)
            for path, first in duplicate_names(folder)
        ]
    for gt_folder, lq_folder in paired:
        faults += _pairs(gt_folder, lq_folder, looked, settings)
    faults += _small_or_blocky(gt, settings)
    faults += _duplicates(gt, settings)
    faults += _leaks(gt, validation, settings)
    order = list(ADVICE)
    faults.sort(key=lambda fault: (order.index(fault.kind), str(fault.path)))
    return DatasetReport(len(everything), tuple(faults))


def _look_at(
    paths: Sequence[Path], settings: CheckSettings, report: Report | None
) -> tuple[dict[Path, Looked], list[DatasetProblem]]:
    looked: dict[Path, Looked] = {}
    faults: list[DatasetProblem] = []
    with ThreadPoolExecutor(settings.workers) as pool:
        for done, (path, result) in enumerate(zip(paths, pool.map(_look, paths), strict=True), 1):
            if isinstance(result, DatasetProblem):
                faults.append(result)
            else:
                looked[path] = result
            if report is not None:
                report(done, len(paths))
    return looked, faults


def _look(path: Path) -> Looked | DatasetProblem:
    try:
        image = read_image(path)
    except ImageError as error:
        text = str(error).removeprefix(f"{path}: ")
        return DatasetProblem("unreadable", path, text)
    luma = similarity.luma_of(image.pixels)
    return Looked(
        path,
        image.height,
        image.width,
        image.gray,
        similarity.perceptual_hash(luma),
        similarity.shrink(luma, similarity.THUMB),
        similarity.blockiness(luma),
    )


def _pairs(
    gt: ImageFolder, lq: ImageFolder, looked: dict[Path, Looked], settings: CheckSettings
) -> list[DatasetProblem]:
    match = match_pairs(gt, lq)
    faults = [
        DatasetProblem("unpaired", path, f"no image of this name in {lq.root}")
        for path in match.first_only
    ]
    faults += [
        DatasetProblem("unpaired", path, f"no ground truth of this name in {gt.root}")
        for path in match.second_only
    ]
    for first, second in match.pairs:
        if first in looked and second in looked:
            faults += _pair(looked[first], looked[second], settings)
    return faults


def _pair(gt: Looked, lq: Looked, settings: CheckSettings) -> list[DatasetProblem]:
    faults = []
    scale = settings.scale
    if (gt.height, gt.width) != (lq.height * scale, lq.width * scale):
        sizes = f"{gt.width}x{gt.height} is not {scale} times {lq.width}x{lq.height}"
        faults.append(DatasetProblem("ratio", gt.path, sizes, lq.path))
    if gt.gray != lq.gray:
        which = "ground truth" if gt.gray else "low-quality image"
        faults.append(DatasetProblem("channels", gt.path, f"only the {which} is gray", lq.path))
    found = similarity.likeness(gt.thumb, lq.thumb)
    if found < settings.likeness:
        faults.append(DatasetProblem("content", gt.path, f"correlation {found:.2f}", lq.path))
    return faults


def _small_or_blocky(gt: Sequence[Looked], settings: CheckSettings) -> list[DatasetProblem]:
    faults = []
    for one in gt:
        if min(one.height, one.width) < settings.smallest:
            text = f"{one.width}x{one.height} is less than {settings.smallest} pixels"
            faults.append(DatasetProblem("small", one.path, text))
        if one.blockiness > settings.blockiness:
            text = f"blocks stand out by {one.blockiness:.1f} of 255"
            faults.append(DatasetProblem("blocky", one.path, text))
    return faults


def _alike(first: Looked, second: Looked) -> bool:
    """Hashes of flat images agree by chance; the thumbnails must, too."""
    return similarity.likeness(first.thumb, second.thumb) > 0.9


def _duplicates(gt: Sequence[Looked], settings: CheckSettings) -> list[DatasetProblem]:
    faults: dict[int, DatasetProblem] = {}
    pairs = similarity.near_pairs([one.hash for one in gt], distance=settings.distance)
    for first, second in pairs:
        # A third copy is told once, as that of the first.
        if second not in faults and _alike(gt[first], gt[second]):
            text = f"looks like {gt[first].path}"
            faults[second] = DatasetProblem("duplicate", gt[second].path, text, gt[first].path)
    return list(faults.values())


def _leaks(
    gt: Sequence[Looked], validation: Sequence[Looked], settings: CheckSettings
) -> list[DatasetProblem]:
    faults: dict[int, DatasetProblem] = {}
    hashes = [one.hash for one in validation]
    pairs = similarity.near_pairs(hashes, [one.hash for one in gt], distance=settings.distance)
    for held, trained in pairs:
        first, second = validation[held], gt[trained]
        if held not in faults and _alike(first, second):
            same = os.path.realpath(first.path) == os.path.realpath(second.path)
            text = "is trained on too" if same else f"looks like {second.path}, which is trained on"
            faults[held] = DatasetProblem("leak", first.path, text, second.path)
    return list(faults.values())
