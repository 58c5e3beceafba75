"""Numbers, lists and foreign values as text for people."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")

_LONGEST_VALUE = 80
"""Characters of a foreign value that a message repeats."""

_LONGEST_WORD = 100
"""Longer words are nobody's misspelling; comparing them would take long."""


def format_bytes(count: int) -> str:
    """Format a number of bytes with a binary unit: `812 B`, `12.4 MiB`."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def parse_bytes(text: str) -> str:
    """Return a size such as `1.5G`, `800 MiB` or `4096` as the digits of its bytes, units of 1024.

    Any other text is returned as it is.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt])(?:i?b)?", text.strip().lower())
    if match is None:
        return text
    return str(int(float(match[1]) * 1024 ** (1 + "kmgt".index(match[2]))))


def format_seconds(seconds: float) -> str:
    """Format a duration: `0.8 s`, `75 s`, `12 min`, `1 h 05 min`, `3 d 04 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24:02d} h"


def format_names(names: Iterable[object], limit: int = 5) -> str:
    """Join names with commas; beyond `limit` only count them: `a, b, c and 9 more`."""
    listed = [str(name) for name in names]
    if len(listed) <= limit:
        return ", ".join(listed)
    return f"{', '.join(listed[:limit])} and {len(listed) - limit} more"


def format_lines(lines: Iterable[object], limit: int = 5) -> str:
    """Put each line on an indented line of its own, after a line break; count those left out."""
    listed = [str(line) for line in lines]
    shown = [f"\n  {line}" for line in listed[:limit]]
    more = len(listed) - limit
    return "".join(shown) + (f"\n  and {more} more" if more > 0 else "")


def format_value(value: object) -> str:
    """Show a value of unknown origin: its `repr`, shortened, whatever it is."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # Nested too deeply, or an integer of too many digits.
        return f"a very large {type(value).__name__}"
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known word, or an empty string."""
    if len(word) > _LONGEST_WORD:
        return ""
    lowered = {k.lower(): k for k in known}
    close = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.6)
    return f"; did you mean {lowered[close[0]]!r}?" if close else ""
