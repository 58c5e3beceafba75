"""What a run of `realesr upscale` tells: lines and bars on stderr, one JSON object per image."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from realesr_cli.batch.jobs import Job
from realesr_cli.batch.records import Record, summary
from realesr_cli.cli.terminal import ProgressBar, say_error, wants_color
from realesr_cli.engine.policy import Policy
from realesr_cli.engine.settings import DEFAULT_SHARE, UpscaleSettings

_MIB = 2**20
_GIB = 2**30


@dataclass(frozen=True)
class Style:
    """How much is said, and for whom."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False


@dataclass(frozen=True)
class RunDescription:
    """What the images of a run are made with, as far as it is the same for all of them."""

    model: str
    device: str = ""
    precision: str = ""
    tile: int | str = "auto"
    blend_model: str | None = None
    blend: float | None = None
    """Share of the second model's image."""
    back_project: int = 0
    back_project_kernel: str | None = None

    @classmethod
    def of(
        cls, models: Sequence[str], settings: UpscaleSettings, policy: Policy | None = None
    ) -> RunDescription:
        """One model or two, how the result shall look, and what the machine will do with them."""
        plain = cls(models[0])
        if policy is not None:
            plain = cls(models[0], policy.device, policy.precision, policy.tile)
        if len(models) > 1:
            share = DEFAULT_SHARE if settings.blend is None else settings.blend
            plain = replace(plain, blend_model=models[1], blend=share)
        if settings.back_project:
            iterations, kernel = settings.back_project, settings.kernel
            plain = replace(plain, back_project=iterations, back_project_kernel=kernel)
        return plain

    def describe(self) -> str:
        """What is done besides the model's own work, to follow its name; often empty."""
        text = ""
        if self.blend_model is not None:
            text += f"; {self.blend:g} of {self.blend_model} blended in"
        if self.back_project:
            count = "1 iteration" if self.back_project == 1 else f"{self.back_project} iterations"
            text += f"; {count} of back-projection ({self.back_project_kernel})"
        return text


class Console:
    """The voice of one run; `started`, `tiles` and `finished` are the hooks of the batch."""

    def __init__(self, style: Style, used: RunDescription, jobs: Sequence[Job]) -> None:
        self.style = style
        self.used = used
        self._places = {id(job): f"[{i}/{len(jobs)}]" for i, job in enumerate(jobs, 1)}
        self._bar = ProgressBar(unit="tile", enabled=not style.quiet)

    def started(self, job: Job) -> None:
        """An image is being upscaled from now on."""
        self._bar.relabel(f"{self._places[id(job)]} {job.source.name}")

    def tiles(self, done: int, total: int) -> None:
        """Some tiles of the current image are done."""
        self._bar(done, total)

    def finished(self, record: Record) -> None:
        """An image is over, one way or the other."""
        if record.data is not None:
            sys.stdout.buffer.write(record.data)
            sys.stdout.buffer.flush()
        if self.style.json:
            print_json(record_plain(record, self.used))
        line = record_line(record, self.style)
        if line:
            self.say(line)
        if record.trace is not None:
            self.say(record.trace.rstrip())

    def say(self, text: str) -> None:
        """A line for people, beside the bar."""
        self._bar.write(text)

    def close(self, records: Sequence[Record], code: int) -> None:
        """The end of the run: counts, and the failures once more where there was more than one."""
        self._bar.close()
        counts = summary(records)
        if self.style.json:
            print_json({"summary": counts, "exit_code": code})
        if len(records) > 1 and counts["failures"]:
            lines = (_with_name(f["input"], f["error"]) for f in counts["failures"])
            failed = "".join(f"\n  {line}" for line in lines)
            say_error(f"{counts['failed']} of {len(records)} images failed:{failed}")
        if not self.style.quiet and (len(records) > 1 or counts["stopped"]):
            click.echo(summary_line(counts), err=True)


def print_json(data: dict[str, Any]) -> None:
    """One object on one line of stdout, at once."""
    click.echo(json.dumps(data, ensure_ascii=False))


def record_plain(record: Record, used: RunDescription) -> dict[str, Any]:
    """A record as the plain data that `--json` prints."""
    job = record.job
    header = job.header
    return {
        "input": job.source.name,
        "output": None if job.target is None else str(job.target),
        "status": record.status,
        "error": record.error,
        "width": None if header is None else header.width,
        "height": None if header is None else header.height,
        "out_width": job.out_width or None,
        "out_height": job.out_height or None,
        "notes": list(record.notes),
        "seconds": round(record.seconds, 3),
        "model": used.model,
        "device": used.device,
        "precision": used.precision,
        "tile": used.tile,
        "blend_model": used.blend_model,
        "blend": used.blend,
        "back_project": used.back_project,
        "back_project_kernel": used.back_project_kernel,
    }


def record_line(record: Record, style: Style) -> str:
    """A record as a line for people; empty where nothing is to be said."""
    name = record.job.source.name
    target = "stdout" if record.job.target is None else str(record.job.target)
    if record.status == "failed":
        label = click.style("failed:", fg="red") if wants_color(sys.stderr) else "failed:"
        # Without color and alone the reason still stands out by its first word.
        return f"{label} {_with_name(name, record.error or '')}"
    if style.quiet or record.status == "stopped":
        return ""
    if record.status == "skipped":
        return f"{name}: {target} is there already (--overwrite makes it again)"
    notes = "".join(f"\n  note: {note}" for note in record.notes)
    return f"{name} -> {target}  {sizes(record.job)}  {seconds(record.seconds)}{notes}"


def _with_name(name: str, error: str) -> str:
    return error if name in error else f"{name}: {error}"


def summary_line(counts: dict[str, Any]) -> str:
    """`3 done, 1 skipped, 1 failed`, leaving out what did not happen."""
    words = [f"{counts[k]} {k}" for k in ("done", "skipped", "failed", "stopped") if counts[k]]
    return ", ".join(words) or "nothing to do"


def sizes(job: Job) -> str:
    """`640x480 -> 2560x1920`: width x height, as people write sizes."""
    if job.header is None:
        return ""
    return f"{job.header.width}x{job.header.height} -> {job.out_width}x{job.out_height}"


def seconds(value: float) -> str:
    """A duration: `0.8 s`, `75 s`, `1 h 05 min`."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size_text(count: int) -> str:
    """A number of bytes: `12.4 MiB`."""
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.1f} MiB"
