"""Match ground truths and low-quality images by file name: the one rule for the whole package.

Two files belong together when they lie in subfolders of the same name and their stems are equal,
apart from a prefix and a suffix that are constant within each folder (`baby` and `babyx4`, `1_HR`
and `1_LR`). The constant part is given, or detected from the names.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from realesr_cli.errors import DatasetError
from realesr_cli.image.folders import find_images
from realesr_cli.text import format_names

MARKERS = (("HR", "LR"), ("GT", "LQ"), ("hr", "lr"), ("gt", "lq"))
"""Words that mark ground truths and low-quality images when both lie in one folder."""

_SEPARATORS = "_-. "
_CANDIDATES = 3
"""Detected prefixes and suffixes that are tried, the most frequent first."""
_SAMPLE = 100
"""Names that detection looks at, evenly spaced, so that large folders take no longer."""

Name = tuple[str, str]
"""Subfolder, and file name without its extension."""


@dataclass(frozen=True)
class Affix:
    """The constant prefix and suffix around the part of a file name that a pair shares."""

    prefix: str = ""
    suffix: str = ""

    def __bool__(self) -> bool:
        return bool(self.prefix or self.suffix)

    def key(self, stem: str) -> str | None:
        """Return the shared part of a stem, or None if the stem has another prefix or suffix."""
        if len(stem) < len(self.prefix) + len(self.suffix):
            return None
        if not (stem.startswith(self.prefix) and stem.endswith(self.suffix)):
            return None
        return stem[len(self.prefix) : len(stem) - len(self.suffix)]

    def __str__(self) -> str:
        return f"{self.prefix}NAME{self.suffix}"


PLAIN = Affix()
"""No prefix and no suffix."""


@dataclass(frozen=True)
class ImageFolder:
    """Image files of a folder, all with the prefix and suffix of `affix` in their names."""

    root: Path
    files: tuple[Path, ...]
    affix: Affix = PLAIN

    @classmethod
    def scan(cls, root: Path, *, recursive: bool, affix: Affix = PLAIN) -> ImageFolder:
        """Find the images of a folder that have this prefix and suffix; others are skipped.

        Raises what `find_images` raises, and DatasetError if no file is named like that.
        """
        folder = cls(root, tuple(find_images(root, recursive=recursive)))
        return folder.named(affix) if affix else folder

    def named(self, affix: Affix) -> ImageFolder:
        """Return the files that have this prefix and suffix; DatasetError if there is none."""
        kept = tuple(path for path in self.files if affix.key(path.stem) is not None)
        if not kept:
            raise DatasetError(
                f"{self.root}: none of {len(self.files)} images is named {affix}, for example "
                f"{self.files[0].name}"
            )
        return replace(self, files=kept, affix=affix)

    def names(self) -> dict[Name, Path]:
        """Return the files by subfolder and shared name; of equal names the first file."""
        found: dict[Name, Path] = {}
        for path in self.files:
            key = self.affix.key(path.stem)
            if key is not None:
                found.setdefault((str(path.parent.relative_to(self.root)), key), path)
        return found


def scan_pair(
    gt: Path,
    lq: Path,
    *,
    recursive: bool,
    gt_affix: Affix = PLAIN,
    lq_affix: Affix = PLAIN,
) -> tuple[ImageFolder, ImageFolder]:
    """Find the ground truths and the low-quality images, which may lie in one folder.

    In one folder, names tell them apart by the affixes, or by one of `MARKERS` if both are empty.
    Raises what `ImageFolder.scan` raises, and DatasetError if names do not tell them apart.
    """
    if os.path.realpath(gt) == os.path.realpath(lq) and not (gt_affix and lq_affix):
        both = ImageFolder.scan(gt, recursive=recursive)
        marks = split_mixed([path.stem for path in both.files])
        if marks is None:
            raise DatasetError(
                f"{gt} is the folder of both ground truths and low-quality images, but the file "
                "names do not tell which is which: expected names such as 1_HR and 1_LR"
            )
        gt_affix, lq_affix = marks
    return (
        ImageFolder.scan(gt, recursive=recursive, affix=gt_affix),
        ImageFolder.scan(lq, recursive=recursive, affix=lq_affix),
    )


@dataclass(frozen=True)
class PairMatch:
    """Pairs in the order of the first folder, and the files of both that have no partner."""

    pairs: tuple[tuple[Path, Path], ...]
    first_only: tuple[Path, ...]
    second_only: tuple[Path, ...]


def match_pairs(first: ImageFolder, second: ImageFolder) -> PairMatch:
    """Match the files of two folders, in either order of ground truths and low-quality images."""
    left, right = first.names(), second.names()
    ways = detect(list(left), list(right))
    keyed_left, keyed_right = _keyed(left, ways[0]), _keyed(right, ways[1])
    pairs = tuple(
        (left[name], right[keyed_right[key]])
        for key, name in keyed_left.items()
        if key in keyed_right
    )
    matched = {path for pair in pairs for path in pair}
    return PairMatch(
        pairs,
        tuple(path for path in left.values() if path not in matched),
        tuple(path for path in right.values() if path not in matched),
    )


def require_pairs(
    first: ImageFolder, second: ImageFolder, *, advice: str = ""
) -> list[tuple[Path, Path]]:
    """Return the pairs of two folders in the order of the first; every file must have a partner.

    Raises DatasetError with the names of files that have no partner, or more than one.
    """
    for folder in (first, second):
        require_unique_names(folder)
    match = match_pairs(first, second)
    parts = [
        f"{format_names(path.relative_to(folder.root) for path in lonely)} in {folder.root}"
        for folder, lonely in ((first, match.first_only), (second, match.second_only))
        if lonely
    ]
    if parts:
        raise DatasetError(
            f"images without a partner: {'; '.join(parts)}. Names in the two folders must be equal "
            "apart from the extension and a constant prefix or suffix",
            advice=advice,
        )
    return list(match.pairs)


def duplicate_names(folder: ImageFolder) -> list[tuple[Path, Path]]:
    """Return files that differ from an earlier one only in the extension, each with that one."""
    first: dict[Path, Path] = {}
    found = []
    for path in folder.files:
        other = first.setdefault(path.with_suffix(""), path)
        if other != path:
            found.append((path, other))
    return found


def require_unique_names(folder: ImageFolder) -> None:
    """Raise DatasetError for two files that differ only in the extension."""
    for path, other in duplicate_names(folder):
        raise DatasetError(
            f"{path} and {other.name} differ only in the extension, so their names are ambiguous: "
            "rename or remove one"
        )


def detect(first: Sequence[Name], second: Sequence[Name]) -> tuple[Affix, Affix]:
    """Return the affixes under which most names of the two sides match, the plainest of equals.

    Tried are equal names, names of one side inside those of the other (`baby`, `babyx4`), and
    names that differ in a constant prefix or suffix (`1_HR`, `1_LR`). Numbers are never split, so
    `1` does not match `14`.
    """
    ways = [(PLAIN, PLAIN)]
    if set(first) == set(second):
        return ways[0]
    ways += [(PLAIN, affix) for affix in _around(first, second)]
    ways += [(affix, PLAIN) for affix in _around(second, first)]
    if len(first) > 1 and len(second) > 1:  # A single name would be all prefix.
        ways.append((_common(first), _common(second)))
    counts = [len(_keyed(first, a).keys() & _keyed(second, b).keys()) for a, b in ways]
    return ways[counts.index(max(counts))]


def _keyed(names: Iterable[Name], affix: Affix) -> dict[Name, Name]:
    """Return names by subfolder and shared part, without those that have another affix."""
    keys = ((folder, affix.key(stem), (folder, stem)) for folder, stem in names)
    return {(folder, key): name for folder, key, name in keys if key is not None}


def _around(inner: Sequence[Name], outer: Sequence[Name]) -> list[Affix]:
    """Return what surrounds names of `inner` in those of `outer`, the most frequent first."""
    known = set(inner)
    lengths = sorted({len(stem) for _, stem in inner if stem})
    counts: Counter[Affix] = Counter()
    for folder, long in outer[:: max(1, len(outer) // _SAMPLE)]:
        for length in lengths:
            for start in range(len(long) - length + 1 if length < len(long) else 0):
                key = long[start : start + length]
                affix = Affix(long[:start], long[start + length :])
                if (folder, key) in known and not _splits_number(affix, key):
                    counts[affix] += 1
    return [affix for affix, _ in counts.most_common(_CANDIDATES)]


def _splits_number(affix: Affix, key: str) -> bool:
    before = affix.prefix[-1:].isdigit() and key[:1].isdigit()
    return before or (affix.suffix[:1].isdigit() and key[-1:].isdigit())


def _common(names: Sequence[Name]) -> Affix:
    """Return the prefix and suffix of all stems; numbers belong to the names, not to the affix."""
    stems = [stem for _, stem in names]
    prefix = _common_start(stems).rstrip("0123456789")
    reversed_rest = [stem[len(prefix) :][::-1] for stem in stems]
    return Affix(prefix, _common_start(reversed_rest)[::-1].lstrip("0123456789"))


def _common_start(texts: Sequence[str]) -> str:
    # What the first and the last in order share, all between them share, too.
    low, high = min(texts), max(texts)
    length = next((i for i, c in enumerate(low) if not high.startswith(c, i)), len(low))
    return low[:length]


def split_mixed(stems: Sequence[str]) -> tuple[Affix, Affix] | None:
    """Return the affixes of ground truths and low-quality images that lie in one folder.

    None unless every stem starts or ends with one of `MARKERS` and has its counterpart.
    """
    for pair in MARKERS:
        for mark in _SEPARATORS:
            ends = tuple(Affix(suffix=mark + word) for word in pair)
            starts = tuple(Affix(prefix=word + mark) for word in pair)
            for large, small in (ends, starts):
                keys = [{affix.key(stem) for stem in stems} - {None} for affix in (large, small)]
                if keys[0] and keys[0] == keys[1] and 2 * len(keys[0]) == len(stems):
                    return large, small
    return None
