"""Output of `realesr upscale`: lines and bars on stderr, one JSON object per image on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from realesr_cli.batch.jobs import Job, Record, Tally
from realesr_cli.batch.pipeline import Observer
from realesr_cli.cli.advice import message_with_advice
from realesr_cli.cli.terminal import ProgressBar, say_error, wants_color
from realesr_cli.engine.policy import Policy
from realesr_cli.engine.settings import DEFAULT_SHARE, UpscaleSettings
from realesr_cli.errors import RealesrError
from realesr_cli.text import format_lines, format_seconds


@dataclass(frozen=True)
class Style:
    """How much is printed, and for whom."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False


@dataclass(frozen=True)
class RunDescription:
    """What is the same for all images of a run: one model or two, and what the machine does."""

    models: tuple[str, ...]
    settings: UpscaleSettings = UpscaleSettings()
    policy: Policy | None = None
    """None where the network is not needed."""

    def to_plain(self) -> dict[str, Any]:
        """Return the part of a `--json` record that is the same for all images."""
        policy, settings = self.policy, self.settings
        blended = len(self.models) > 1
        share = DEFAULT_SHARE if settings.blend is None else settings.blend
        return {
            "model": self.models[0],
            "device": "" if policy is None else policy.device,
            "precision": "" if policy is None else policy.precision,
            "tile": "auto" if policy is None else policy.tile,
            "blend_model": self.models[1] if blended else None,
            "blend": share if blended else None,
            "back_project": settings.back_project,
            "back_project_kernel": settings.kernel if settings.back_project else None,
        }

    def describe(self) -> str:
        """Return one line about models, device and options."""
        plain = self.to_plain()
        tile = plain["tile"] or "whole image"
        text = f"{plain['model']} on {plain['device']}, {plain['precision']}, tile {tile}"
        if plain["blend_model"] is not None:
            text += f"; blended with {plain['blend']:g} of {plain['blend_model']}"
        if count := plain["back_project"]:
            what = "1 iteration" if count == 1 else f"{count} iterations"
            text += f"; {what} of back-projection ({plain['back_project_kernel']})"
        return text


class Console(Observer):
    """Prints a run as it happens. Calling it with (done, total) shows the progress in tiles."""

    def __init__(
        self,
        style: Style,
        description: RunDescription,
        jobs: Sequence[Job] = (),
        *,
        unit: str = "tile",
    ) -> None:
        self.style = style
        self.description = description
        self.tally = Tally()
        self._labels = {
            id(image): f"[{i}/{len(jobs)}] {image.source.name}"
            for i, job in enumerate(jobs, 1)
            for image in (job, *job.members)
        }
        self._bar = ProgressBar(unit=unit, enabled=not style.quiet)

    def ready(self, policy: Policy | None) -> None:
        """Describe the run by how its first worker works."""
        self.description = replace(self.description, policy=policy)
        if policy is not None and self.style.verbose:
            self._bar.write("\n".join(policy.reasons))

    def started(self, job: Job) -> None:
        """Name the image in the bar."""
        self._bar.relabel(self._labels[id(job)])

    def __call__(self, done: int, total: int) -> None:
        """Show the progress of the image in work, in tiles."""
        self._bar(done, total)

    def finished(self, record: Record) -> None:
        """Print the outcome of an image, and the image itself where it goes to stdout."""
        self.tally.add(record)
        if record.data is not None:
            sys.stdout.buffer.write(record.data)
            sys.stdout.buffer.flush()
        if self.style.json:
            print_json(record_to_plain(record, self.description))
        for text in (format_record(record, self.style), (record.trace or "").rstrip()):
            if text:
                self._bar.write(text)

    def close(self, code: int) -> None:
        """Print the counts, and the failures once more where there was more than one image."""
        self._bar.close()
        counts, failed, total = self.tally.to_plain(), self.tally.failed, self.tally.count
        if self.style.json:
            failures = [{"input": r.job.source.name, "error": format_error(r)} for r in failed]
            print_json({"summary": {**counts, "failures": failures}, "exit_code": code})
        if total > 1 and failed:
            lines = format_lines((_with_name(record) for record in failed), limit=10)
            say_error(f"{len(failed)} of {total} images failed:{lines}")
        if not self.style.quiet and (total > 1 or counts["stopped"]):
            click.echo(format_summary(counts), err=True)


def print_json(data: dict[str, Any]) -> None:
    """Print one object on one line of stdout, at once."""
    click.echo(json.dumps(data, ensure_ascii=False))


def record_to_plain(record: Record, description: RunDescription) -> dict[str, Any]:
    """Return a record as the plain data that `--json` prints."""
    job, info = record.job, record.job.info
    return {
        "input": job.source.name,
        "output": job.output,
        "status": record.status,
        "error": format_error(record),
        "width": None if info is None else info.width,
        "height": None if info is None else info.height,
        "out_width": job.out_width or None,
        "out_height": job.out_height or None,
        "images": len(job.members) or 1,
        "notes": list(record.notes),
        "seconds": round(record.seconds, 3),
        **description.to_plain(),
    }


def format_error(record: Record) -> str | None:
    """Return why an image failed and what to do about it; None where it did not."""
    if isinstance(record.failure, RealesrError):
        return message_with_advice(record.failure)
    return record.error


def format_record(record: Record, style: Style) -> str:
    """Return a record as a line for people; empty where there is nothing to print."""
    name = record.job.source.name
    target = record.job.output or "stdout"
    if record.status == "failed":
        label = click.style("failed:", fg="red") if wants_color(sys.stderr) else "failed:"
        return f"{label} {_with_name(record)}"
    if style.quiet or record.status == "stopped":
        return ""
    if record.status == "skipped":
        return f"{name}: {target} already exists (--overwrite replaces it)"
    notes = "".join(f"\n  note: {note}" for note in record.notes)
    return (
        f"{name} -> {target}  {format_sizes(record.job)}  {format_seconds(record.seconds)}{notes}"
    )


def _with_name(record: Record) -> str:
    name, error = record.job.source.name, format_error(record) or ""
    return error if name in error else f"{name}: {error}"


def format_summary(counts: dict[str, Any]) -> str:
    """Return `3 done, 1 skipped, 1 failed`, without what did not happen."""
    words = [f"{counts[k]} {k}" for k in ("done", "skipped", "failed", "stopped") if counts[k]]
    return ", ".join(words) or "nothing to do"


def format_sizes(job: Job) -> str:
    """Return `640x480 -> 2560x1920`, width x height, or the number of images of an archive."""
    if job.members:
        return "1 image" if len(job.members) == 1 else f"{len(job.members)} images"
    if job.info is None:
        return ""
    return f"{job.info.width}x{job.info.height} -> {job.out_width}x{job.out_height}"
