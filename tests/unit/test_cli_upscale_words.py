"""The words of `realesr upscale`: lines about images, plans and durations, and small types."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click
import pytest

from realesr_cli.batch.jobs import Job
from realesr_cli.batch.records import Record, planned, summary
from realesr_cli.batch.sources import InputSource
from realesr_cli.cli import dry_run
from realesr_cli.cli.console import (
    Console,
    RunDescription,
    Style,
    record_line,
    record_plain,
    seconds,
    size_text,
    sizes,
    summary_line,
)
from realesr_cli.cli.upscale import FitType, _stdin
from realesr_cli.engine.estimate import Estimate
from realesr_cli.errors import ConfigError, UnreadableImageError
from realesr_cli.image.probe import ImageInfo

HEADER = ImageInfo(height=3, width=2, channels=3, bits=8, has_alpha=False, format="PNG")
JOB = Job(InputSource(Path("a.png")), Path("b.png"), "png", HEADER, 12, 8)
PLAN = Estimate(
    3,
    2,
    12,
    8,
    tiles=4,
    passes=2,
    tile=2,
    overlap=1,
    output_bytes=288,
    peak_bytes=2**30,
    seconds=75,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (75, "75 s"), (180, "3 min"), (3900, "1 h 05 min")],
)
def test_durations_read_as_people_say_them(value: float, text: str):
    assert seconds(value) == text


def test_amounts_of_memory():
    assert size_text(3 * 2**20 // 2) == "1.5 MiB"
    assert size_text(5 * 2**30) == "5.0 GiB"


def test_sizes_are_width_by_height():
    assert sizes(JOB) == "2x3 -> 8x12"
    assert sizes(Job(InputSource(None))) == ""


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (Record(JOB, "done", 1.25), "a.png -> b.png  2x3 -> 8x12  1.2 s"),
        (
            Record(JOB, "done", 1.25, notes=("first",)),
            "a.png -> b.png  2x3 -> 8x12  1.2 s\n  note: first",
        ),
        (Record(JOB, "skipped"), "a.png: b.png is there already (--overwrite makes it again)"),
        (Record(JOB, "failed", error="no room"), "failed: a.png: no room"),
        (Record(JOB, "failed", error="a.png: bad"), "failed: a.png: bad"),
        (Record(JOB, "stopped"), ""),
    ],
)
def test_a_line_per_image(record: Record, line: str):
    assert record_line(record, Style()) == line


def test_quiet_leaves_only_failures():
    assert record_line(Record(JOB, "done"), Style(quiet=True)) == ""
    assert record_line(Record(JOB, "failed", error="x"), Style(quiet=True)) == "failed: a.png: x"


def test_failures_are_red_where_color_is_welcome(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[31m" in record_line(Record(JOB, "failed", error="x"), Style())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in record_line(Record(JOB, "failed", error="x"), Style())


def test_counts_that_are_zero_are_left_out():
    records = [Record(JOB, "done"), Record(JOB, "stopped")]
    assert summary_line(summary(records)) == "1 done, 1 stopped"
    assert summary_line(summary([])) == "nothing to do"


def test_a_image_that_could_not_be_read_has_no_sizes():
    plain = record_plain(
        planned(Job(InputSource(None), error=UnreadableImageError("x"))), RunDescription("m")
    )
    assert (plain["width"], plain["out_width"], plain["output"]) == (None, None, None)
    assert (plain["input"], plain["status"]) == ("-", "failed")


def test_the_totals_of_a_plan(tmp_path: Path):
    free = dry_run.free_bytes(tmp_path / "not" / "there")
    assert free > 0
    total = dry_run.totals([JOB, JOB], [PLAN, None])
    assert (total["planned"], total["seconds"], total["output_bytes"]) == (1, 75, 288)
    unknown = Estimate(3, 2, 12, 8, 4, 2, 2, 1, 288, 2**30, None)
    assert dry_run.totals([JOB], [unknown])["seconds"] is None


def test_a_size_to_fit_is_width_by_height():
    assert FitType().convert("1920X1080", None, None) == (1920, 1080)
    assert FitType().convert((3, 4), None, None) == (3, 4)
    with pytest.raises(click.BadParameter):
        FitType().convert("1920", None, None)


def test_a_terminal_is_no_standard_input(monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(ConfigError, match="terminal"):
        _stdin()


def test_the_bar_names_the_image_in_work_and_its_place(monkeypatch: pytest.MonkeyPatch):
    other = Job(InputSource(Path("c.png")), Path("d.png"), "png", HEADER, 12, 8)
    console = Console(Style(), RunDescription("m"), [JOB, other])
    labels: list[str] = []
    monkeypatch.setattr(console._bar, "relabel", labels.append)
    console.started(other)
    console.finished(Record(JOB, "skipped"))
    console.started(other)
    assert labels == ["[2/2] c.png", "[2/2] c.png"]
