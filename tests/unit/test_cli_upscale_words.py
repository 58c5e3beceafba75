"""The words of `realesr upscale`: lines about images, plans and durations, and small types."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest

from realesr_cli.batch.jobs import Job, Record, Tally, planned
from realesr_cli.batch.sources import InputSource
from realesr_cli.cli import dry_run
from realesr_cli.cli.console import (
    Console,
    RunDescription,
    Style,
    format_record,
    format_sizes,
    format_summary,
    record_to_plain,
)
from realesr_cli.cli.upscale_request import FitType, read_stdin
from realesr_cli.engine.estimate import Estimate
from realesr_cli.errors import ConfigError, ImageError, UnreadableImageError
from realesr_cli.image.probe import ImageInfo

INFO = ImageInfo(height=3, width=2, channels=3, bits=8, has_alpha=False, format="PNG")
JOB = Job(InputSource(Path("a.png")), Path("b.png"), info=INFO, out_height=12, out_width=8)
COST = Estimate(
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


def test_sizes_are_width_by_height():
    assert format_sizes(JOB) == "2x3 -> 8x12"
    assert format_sizes(Job(InputSource(None))) == ""


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (Record(JOB, "done", 1.25), "a.png -> b.png  2x3 -> 8x12  1.2 s"),
        (
            Record(JOB, "done", 1.25, notes=("first",)),
            "a.png -> b.png  2x3 -> 8x12  1.2 s\n  note: first",
        ),
        (Record(JOB, "skipped"), "a.png: b.png already exists (--overwrite replaces it)"),
        (Record(JOB, "failed", failure=ImageError("no room")), "failed: a.png: no room"),
        (Record(JOB, "failed", failure=ImageError("a.png: bad")), "failed: a.png: bad"),
        (
            Record(JOB, "failed", failure=ImageError("x", advice="choose-output")),
            "failed: a.png: x. Choose another output with -o.",
        ),
        (Record(JOB, "stopped"), ""),
    ],
)
def test_a_line_per_image(record: Record, line: str):
    assert format_record(record, Style()) == line


def test_quiet_leaves_only_failures():
    assert format_record(Record(JOB, "done"), Style(quiet=True)) == ""
    failed = Record(JOB, "failed", failure=ImageError("x"))
    assert format_record(failed, Style(quiet=True)) == "failed: a.png: x"


def test_failures_are_red_where_color_is_welcome(monkeypatch: pytest.MonkeyPatch):
    failed = Record(JOB, "failed", failure=ImageError("x"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[31m" in format_record(failed, Style())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in format_record(failed, Style())


def test_counts_that_are_zero_are_omitted():
    records = [Record(JOB, "done"), Record(JOB, "stopped")]
    assert format_summary(Tally(records).to_plain()) == "1 done, 1 stopped"
    assert format_summary(Tally([]).to_plain()) == "nothing to do"


def test_a_long_list_of_failures_is_cut(capsys: pytest.CaptureFixture[str]):
    jobs = [Job(InputSource(Path(f"{i}.png")), error=ImageError("bad")) for i in range(30)]
    console = Console(Style(), RunDescription(("m",)), jobs)
    for job in jobs:
        console.finished(planned(job))
    console.close(1)
    err = capsys.readouterr().err
    assert "30 of 30 images failed" in err
    assert "and 20 more" in err


def test_an_image_that_could_not_be_read_has_no_sizes():
    job = Job(InputSource(None), error=UnreadableImageError("x"))
    plain = record_to_plain(planned(job), RunDescription(("m",)))
    assert (plain["width"], plain["out_width"], plain["output"]) == (None, None, None)
    assert (plain["input"], plain["status"]) == ("-", "failed")


def test_the_totals_of_a_plan(tmp_path: Path):
    job = replace(JOB, target=tmp_path / "not" / "there" / "b.png")
    run = dry_run.DryRun(RunDescription(("m",)), [job, JOB], [[COST], []], 75, 2)
    total = dry_run.add_up(run)
    assert (total["planned"], total["seconds"], total["output_bytes"]) == (1, 77, 288)
    assert total["free_bytes"] > 0
    assert dry_run.add_up(replace(run, seconds=None))["seconds"] is None


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
        read_stdin()


def test_the_bar_names_the_image_in_work_and_its_place(monkeypatch: pytest.MonkeyPatch):
    other = replace(JOB, source=InputSource(Path("c.png")))
    console = Console(Style(), RunDescription(("m",)), [JOB, other])
    labels: list[str] = []
    monkeypatch.setattr(console._bar, "relabel", labels.append)
    console.started(other)
    console.finished(Record(JOB, "skipped"))
    console.started(other)
    assert labels == ["[2/2] c.png", "[2/2] c.png"]
