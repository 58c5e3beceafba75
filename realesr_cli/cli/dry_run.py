"""`realesr upscale --dry-run`: what would be done, with which model, and at what cost."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from realesr_cli.batch.jobs import Job, planned
from realesr_cli.batch.timing import estimate_cost, measure_rates, predict_image, predict_run
from realesr_cli.cli.console import (
    RunDescription,
    Style,
    format_record,
    format_sizes,
    print_json,
    record_to_plain,
)
from realesr_cli.engine.estimate import Estimate
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import RealesrError
from realesr_cli.text import format_bytes, format_seconds

_MAX_TIMED_PIXELS = 16_000_000
"""Reading a larger image would take long."""

EXIT_SECONDS = 0.4
"""Python and torch take this long to begin and to exit; 0.41 to 0.50 s were measured."""

_COUNTED = (("planned", "to do"), ("skipped", "existing"), ("failed", "cannot be done"))


@dataclass(frozen=True)
class DryRun:
    """A run that is only described: jobs, the cost of those to do, and what is downloaded first."""

    description: RunDescription
    jobs: Sequence[Job]
    estimates: Sequence[Sequence[Estimate]]
    """Of each job one for every image; none where it is finished or cannot be done."""
    seconds: float | None = None
    """Time that the images take together; None where unknown."""
    start_seconds: float = 0.0
    """Time to start, to open the model, and to exit."""
    download: int | bool = False
    """Bytes of weights to download; True where their number is unknown, False where none."""


def describe_run(upscaler: Upscaler, jobs: Sequence[Job], description: RunDescription) -> DryRun:
    """Estimate the cost of every image, from the time that a part of one takes."""
    images = [image for job in jobs if job.pending for image in job.members or (job,)]
    sizes = [image.info.height * image.info.width for image in images if image.info is not None]
    rates = None
    if images:
        # A large one, as what an image costs whatever its size counts little then.
        best = max((size for size in sizes if size <= _MAX_TIMED_PIXELS), default=min(sizes))
        with contextlib.suppress(RealesrError):  # The run will report it.
            rates = measure_rates(upscaler, images[sizes.index(best)])
    estimates = []
    for job in jobs:
        members = job.members or (job,) if job.pending else ()
        costs = [estimate_cost(upscaler, image) for image in members]
        if rates is not None:
            costs = [replace(cost, seconds=predict_image(rates, cost)) for cost in costs]
        estimates.append(costs)
    every = [cost for costs in estimates for cost in costs]
    seconds = None if rates is None else predict_run(rates, every)
    return DryRun(description, jobs, estimates, seconds)


def print_dry_run(run: DryRun, style: Style) -> None:
    """Print the plan on stdout: lines for people, or one JSON object per image and a summary."""
    rows = list(zip(run.jobs, run.estimates, strict=True))
    totals = add_up(run)
    if style.json:
        for job, costs in rows:
            print_json(_to_plain(job, costs, run.description))
        print_json({"summary": {**totals, "fetch": run.download}})
        return
    text = run.description.describe()
    if run.download:
        size = "" if run.download is True else f" ({format_bytes(run.download)})"
        text += f"; its weights are not cached and would be downloaded{size}"
    click.echo(text)
    if style.verbose and run.description.policy is not None:
        click.echo("\n".join(f"  {reason}" for reason in run.description.policy.reasons))
    for job, costs in rows:
        click.echo(_format_row(job, costs, style))
    click.echo(_format_totals(totals))


def _to_plain(job: Job, costs: Sequence[Estimate], run: RunDescription) -> dict[str, Any]:
    plain = record_to_plain(planned(job), run)
    if not costs:
        return plain
    seconds = _add_seconds(costs)
    return plain | {
        "tiles": sum(cost.tiles for cost in costs),
        "passes": max(cost.passes for cost in costs),
        "tile": costs[0].tile,
        "overlap": costs[0].overlap,
        "output_bytes": sum(cost.output_bytes for cost in costs),
        "peak_bytes": max(cost.peak_bytes for cost in costs),
        "seconds": None if seconds is None else round(seconds, 1),
    }


def _format_row(job: Job, costs: Sequence[Estimate], style: Style) -> str:
    if not costs:
        return format_record(planned(job), style)
    target = job.output or "stdout"
    count = sum(cost.tiles for cost in costs)
    tiles = f"{count} tile{'s' if count != 1 else ''}"
    if costs[0].passes != 1 and not job.members:
        tiles += f" x {costs[0].passes} passes"
    return (
        f"{job.source.name} -> {target}  {format_sizes(job)}  {tiles}, "
        f"result {format_bytes(sum(cost.output_bytes for cost in costs))}, "
        f"working memory {format_bytes(max(cost.peak_bytes for cost in costs))}, "
        f"{_format_time(_add_seconds(costs))}"
    )


def _add_seconds(costs: Sequence[Estimate]) -> float | None:
    """Return the time of several images; None where one is unknown."""
    times = [cost.seconds for cost in costs if cost.seconds is not None]
    return sum(times) if len(times) == len(costs) else None


def add_up(run: DryRun) -> dict[str, Any]:
    """Return counts, time, memory and disk of the whole run; None for an unknown time."""
    costs = [cost for of_job in run.estimates for cost in of_job]
    targets = [job.target for job in run.jobs if job.pending and job.target is not None]
    free = [_free_bytes(folder) for folder in dict.fromkeys(t.parent for t in targets)]
    return {
        "planned": sum(bool(of_job) for of_job in run.estimates),
        "skipped": sum(job.finished for job in run.jobs),
        "failed": sum(job.error is not None for job in run.jobs),
        "seconds": None if run.seconds is None else round(run.start_seconds + run.seconds, 1),
        "start_seconds": round(run.start_seconds, 1),
        "peak_bytes": max((cost.peak_bytes for cost in costs), default=0),
        "output_bytes": sum(cost.output_bytes for cost in costs),
        "free_bytes": min(free, default=None),
    }


def _free_bytes(folder: Path) -> int:
    """Return the free space of the disk that a folder is, or would be, on."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _format_time(seconds: float | None) -> str:
    return "time unknown" if seconds is None else f"about {format_seconds(seconds)}"


def _format_totals(totals: dict[str, Any]) -> str:
    words = [f"{totals[key]} {word}" for key, word in _COUNTED if totals[key]]
    if totals["planned"]:
        start = format_seconds(totals["start_seconds"])
        words.append(f"{_format_time(totals['seconds'])}, of which {start} to start and exit")
        words.append(f"working memory {format_bytes(totals['peak_bytes'])}")
        disk = f"at most {format_bytes(totals['output_bytes'])} to write"
        if totals["free_bytes"] is not None:
            disk += f" ({format_bytes(totals['free_bytes'])} free)"
        words.append(disk)
    return ", ".join(words) or "nothing to do"
