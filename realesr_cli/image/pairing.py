"""Which file names of two folders belong together, whatever stands around what they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

MARKERS = (("HR", "LR"), ("GT", "LQ"), ("hr", "lr"), ("gt", "lq"))
"""What ground truths and their small versions are called where they lie in one folder."""

_SEPARATORS = "_-. "


@dataclass(frozen=True)
class Affix:
    """What stands before and behind the name that files of several folders share."""

    prefix: str = ""
    suffix: str = ""

    def __bool__(self) -> bool:
        return bool(self.prefix or self.suffix)

    def key(self, stem: str) -> str | None:
        """The shared name in a file's name, or None for a file that is not called like this."""
        if len(stem) < len(self.prefix) + len(self.suffix):
            return None
        if not (stem.startswith(self.prefix) and stem.endswith(self.suffix)):
            return None
        return stem[len(self.prefix) : len(stem) - len(self.suffix)]

    def __str__(self) -> str:
        return f"{self.prefix}NAME{self.suffix}"


PLAIN = Affix()
"""Names that stand alone."""


def keyed(stems: Sequence[str], affix: Affix) -> dict[str, str]:
    """Shared name -> file name, of those that are called like this."""
    found = ((affix.key(stem), stem) for stem in stems)
    return {key: stem for key, stem in found if key is not None}


def detect(first: Sequence[str], second: Sequence[str]) -> tuple[Affix, Affix]:
    """How the names of each side are made of a shared one, as far as that can be told.

    Equal names, names of one side within those of the other (`baby`, `babyx4`), and names that
    differ in a constant beginning or end (`1_HR`, `1_LR`), numbers being kept whole. Of several
    ways the one that matches most files is taken, the plainest of equals.
    """
    ways = [(PLAIN, PLAIN)]
    ways += [(PLAIN, affix) for affix in _around(first, second)]
    ways += [(affix, PLAIN) for affix in _around(second, first)]
    ways += _ends(first, second)
    best = max(len(_matched(first, second, way)) for way in ways)
    return next(way for way in ways if len(_matched(first, second, way)) == best)


def _matched(first: Sequence[str], second: Sequence[str], way: tuple[Affix, Affix]) -> set[str]:
    return keyed(first, way[0]).keys() & keyed(second, way[1]).keys()


def _around(inner: Sequence[str], outer: Sequence[str]) -> list[Affix]:
    """What stands around names of `inner` in those of `outer`, the most frequent first."""
    counts: Counter[Affix] = Counter()
    for long in outer:
        for short in inner:
            start = long.find(short) if short and short != long else -1
            while start >= 0:
                affix = Affix(long[:start], long[start + len(short) :])
                if not _cuts_number(affix, short):
                    counts[affix] += 1
                start = long.find(short, start + 1)
    return [affix for affix, _ in counts.most_common(3)]


def _cuts_number(affix: Affix, key: str) -> bool:
    before = affix.prefix[-1:].isdigit() and key[:1].isdigit()
    return before or (affix.suffix[:1].isdigit() and key[-1:].isdigit())


def _ends(first: Sequence[str], second: Sequence[str]) -> list[tuple[Affix, Affix]]:
    """The constant beginning and end of each side, where there are enough names to see them."""
    if len(first) < 2 or len(second) < 2:
        return []
    return [(_common(first), _common(second))]


def _common(stems: Sequence[str]) -> Affix:
    """What all names begin and end with; numbers belong to the names."""
    prefix = _start(stems).rstrip("0123456789")
    suffix = _start([stem[len(prefix) :][::-1] for stem in stems])[::-1].lstrip("0123456789")
    return Affix(prefix, suffix)


def _start(texts: Sequence[str]) -> str:
    """What all of them begin with."""
    low, high = min(texts), max(texts)
    same = (i for i, letter in enumerate(low) if i >= len(high) or letter != high[i])
    return low[: next(same, len(low))]


def split_mixed(stems: Sequence[str]) -> tuple[Affix, Affix] | None:
    """How ground truths and small versions in one folder are called, by the usual marks.

    None unless every file carries one of a pair of marks, at its beginning or end, and each has its
    counterpart.
    """
    for pair in MARKERS:
        for mark in _SEPARATORS:
            ends = tuple(Affix(suffix=mark + word) for word in pair)
            starts = tuple(Affix(prefix=word + mark) for word in pair)
            for large, small in (ends, starts):
                a, b = keyed(stems, large), keyed(stems, small)
                if a and a.keys() == b.keys() and len(a) + len(b) == len(stems):
                    return large, small
    return None
