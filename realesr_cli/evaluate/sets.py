"""The images to judge: folders read, matched by name, and measured, before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from realesr_cli.errors import ConfigError, DatasetError, ImageError
from realesr_cli.evaluate.settings import ImageSetSettings
from realesr_cli.image.formats import is_image
from realesr_cli.image.pairing import PLAIN, Affix, detect, keyed, split_mixed
from realesr_cli.image.probe import probe

_SHOWN = 5
"""How many file names a message lists before it says how many more there are."""

_MOD_CROPS = (1, 2, 4, 8, 12, 16, 24, 48)
"""Sides of ground truths are cut to a multiple of the scale, or of one of these."""

_TOLD = ": --gt-prefix, --gt-suffix, --lq-prefix and --lq-suffix say by what"
_FOUND = ", the same for all results of a folder: rename, add or remove files"
"""What helps where small images, and results, do not match the others by name."""

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
    """The images of a set with all that belongs to each, and notes on how they were chosen.

    The ground truths say which images there are; without them the small images, and without
    those the first folder of results. Raises DatasetError for missing and empty folders and for
    files without a counterpart, ConfigError where no folder is given.
    """
    gt, lq, notes = _sides(settings)
    results = [_Side(path, _files(path)) for path in outputs.values()]
    anchor = gt or lq or (results[0] if results else None)
    if anchor is None:
        raise ConfigError("nothing to judge: give --gt, --lq or a folder of images")
    small = None if lq is None else _partners(anchor, lq, _TOLD)
    columns = [_partners(anchor, side, _FOUND) for side in results]
    items = [
        Item(
            name=stem,
            gt=None if gt is None else gt.files[stem],
            lq=None if small is None else small[stem],
            outputs=tuple(column[stem] for column in columns),
        )
        for stem in anchor.files
    ]
    return items, notes


@dataclass(frozen=True)
class _Side:
    """A folder and its image files by name; `affix` is how they are called, if that is given."""

    folder: Path
    files: Mapping[str, Path]
    affix: Affix = PLAIN

    def called(self, affix: Affix) -> _Side:
        """Only the files that are called like this; DatasetError where there is none."""
        kept = {stem: self.files[stem] for stem in keyed(list(self.files), affix).values()}
        if not kept:
            first = next(iter(self.files))
            raise DatasetError(
                f"{self.folder}: no image is called {affix} among {len(self.files)}, the first "
                f"of which is {first}: is the prefix or suffix right?"
            )
        return replace(self, files=kept, affix=affix)


def _sides(settings: ImageSetSettings) -> tuple[_Side | None, _Side | None, list[str]]:
    """Ground truths and small images, without files that are neither."""
    gt_affix = Affix(settings.gt_prefix, settings.gt_suffix)
    lq_affix = Affix(settings.lq_prefix, settings.lq_suffix)
    gt = None if settings.gt is None else _Side(settings.gt, _files(settings.gt))
    lq = None if settings.lq is None else _Side(settings.lq, _files(settings.lq))
    notes: list[str] = []
    mixed = None
    if gt is not None and not gt_affix and not lq_affix:
        mixed = split_mixed(list(gt.files))
    together = gt is not None and lq is not None and gt.folder.resolve() == lq.folder.resolve()
    if together and mixed is None and not (gt_affix and lq_affix):
        raise DatasetError(
            f"{settings.gt} is the folder of both ground truths and small images: tell them "
            "apart, as with --gt-suffix _HR --lq-suffix _LR"
        )
    if mixed is not None and (lq is None or together):
        gt_affix, lq_affix = mixed[0], mixed[1] if together else lq_affix
        notes.append(f"ground truths in {settings.gt} are those called {gt_affix}")
    if gt is not None and gt_affix:
        gt = gt.called(gt_affix)
    if lq is not None and lq_affix:
        lq = lq.called(lq_affix)
    return gt, lq, notes


def _files(folder: Path) -> dict[str, Path]:
    """Images directly in a folder, by name without extension, sorted."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DatasetError(f"{folder} {what}: give a folder of images")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or not is_image(path):
            continue
        other = found.setdefault(path.stem, path)
        if other is not path:
            raise DatasetError(
                f"{path} and {other.name} differ in their extension only, so which one is meant is "
                "not certain: rename or remove one"
            )
    if not found:
        held = "no image file" if any(folder.iterdir()) else "no file"
        raise DatasetError(
            f"{folder} holds {held}: give a folder of images (folders in it are not searched)"
        )
    return found


def _partners(anchor: _Side, other: _Side, hint: str) -> dict[str, Path]:
    """For each file name of `anchor` the file of `other` that belongs to it."""
    if other is anchor:
        return dict(anchor.files)
    if other.affix:
        way = anchor.affix, other.affix
    else:
        way = detect(list(anchor.files), list(other.files))
    first, second = keyed(list(anchor.files), way[0]), keyed(list(other.files), way[1])
    lonely = [stem for stem in anchor.files if stem not in {first[k] for k in first if k in second}]
    taken = {second[k] for k in first if k in second}
    extra = [stem for stem in other.files if stem not in taken]
    if lonely or extra:
        raise DatasetError(_mismatch(anchor, other, lonely, extra, hint))
    return {stem: other.files[second[key]] for key, stem in first.items()}


def _mismatch(
    anchor: _Side, other: _Side, lonely: Sequence[str], extra: Sequence[str], hint: str
) -> str:
    parts = []
    if lonely:
        parts.append(f"{listed(lonely)} of {anchor.folder} without a counterpart in {other.folder}")
    if extra:
        parts.append(f"{listed(extra)} of {other.folder} without one in {anchor.folder}")
    return (
        f"images do not match by name: {'; '.join(parts)}. Names may differ by what stands "
        f"before or behind them{hint}"
    )


def listed(names: Sequence[str]) -> str:
    """The first few names and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


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
            f"sizes do not match{what}: {listed(wrong)}. A ground truth must be the scale times "
            "its small image, and a result as large as the ground truth"
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
