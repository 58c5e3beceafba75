"""Text for people: sizes, durations and lists at the ends of their ranges."""

from __future__ import annotations

import pytest

from realesr_cli.text import did_you_mean, format_bytes, format_names, format_seconds


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (13_002_342, "12.4 MiB"),
        (2**50, "1024.0 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.84, "0.8 s"), (75, "75 s"), (720, "12 min"), (3900, "1 h 05 min"),
        (47 * 3600, "47 h 00 min"), (76 * 3600, "3 d 04 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_long_lists_are_counted() -> None:
    assert format_names("abc") == "a, b, c"
    assert format_names(range(14), limit=2) == "0, 1 and 12 more"


def test_nearest_word() -> None:
    assert did_you_mean("tils", ["tile", "scale"]) == "; did you mean 'tile'?"
    assert did_you_mean("zzz", ["tile"]) == ""
