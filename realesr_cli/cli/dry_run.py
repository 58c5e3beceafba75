"""`realesr upscale --dry-run`: what would be done, with which model, and at what cost."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from realesr_cli.batch.jobs import Job
from realesr_cli.batch.records import planned
from realesr_cli.cli.console import (
    RunDescription,
    Style,
    format_record,
    format_sizes,
    print_json,
    record_to_plain,
)
from realesr_cli.engine.estimate import Estimate, ImageShape
from realesr_cli.engine.settings import UpscaleSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.image.types import Image
from realesr_cli.text import format_bytes, format_seconds

_CPU_SIDE, _GPU_SIDE = 96, 512
"""Sides in pixels of the image that is timed."""

_COUNTED = (("planned", "to do"), ("skipped", "existing"), ("failed", "cannot be done"))


@dataclass(frozen=True)
class DryRun:
    """A run that is only described: jobs, the cost of those to do, and what is downloaded first."""

    description: RunDescription
    jobs: Sequence[Job]
    estimates: Sequence[Sequence[Estimate]]
    """Of each job one for every image; none where it is finished or cannot be done."""
    download: int | bool = False
    """Bytes of weights to download; True where their number is unknown, False where none."""


def calibrate(upscaler: Upscaler, settings: UpscaleSettings) -> None:
    """Time a small image of noise, from which later estimates extrapolate.

    Of `settings` only the share of a second network matters: which of the two are run.
    """
    side = _CPU_SIDE if upscaler.policy.device == "cpu" else _GPU_SIDE
    side = min(side, 2 * upscaler.policy.tile or side)
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    upscaler(Image(noise), UpscaleSettings(blend=settings.blend))


def estimate_costs(upscaler: Upscaler, job: Job) -> list[Estimate]:
    """Estimate the cost of each image of a job; none where there is nothing to do."""
    return [_estimate(upscaler, image) for image in job.members or (job,) if job.pending]


def _estimate(upscaler: Upscaler, job: Job) -> Estimate:
    info = job.info
    assert info is not None
    shape = ImageShape(info.height, info.width, info.channels, info.has_alpha, info.bits)
    return upscaler.estimate(shape, job.upscale)


def print_dry_run(run: DryRun, style: Style) -> None:
    """Print the plan on stdout: lines for people, or one JSON object per image and a summary."""
    rows = list(zip(run.jobs, run.estimates, strict=True))
    totals = add_up(run.jobs, run.estimates)
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
    target = "stdout" if job.target is None else str(job.target)
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


def add_up(jobs: Sequence[Job], estimates: Sequence[Sequence[Estimate]]) -> dict[str, Any]:
    """Return counts, time, memory and disk of the whole run; None for an unknown time."""
    costs = [cost for of_job in estimates for cost in of_job]
    seconds = _add_seconds(costs)
    targets = [job.target for job in jobs if job.pending and job.target is not None]
    free = [_free_bytes(folder) for folder in dict.fromkeys(t.parent for t in targets)]
    return {
        "planned": sum(bool(of_job) for of_job in estimates),
        "skipped": sum(job.finished for job in jobs),
        "failed": sum(job.error is not None for job in jobs),
        "seconds": None if seconds is None else round(seconds, 1),
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
        words.append(_format_time(totals["seconds"]))
        words.append(f"working memory {format_bytes(totals['peak_bytes'])}")
        disk = f"at most {format_bytes(totals['output_bytes'])} to write"
        if totals["free_bytes"] is not None:
            disk += f" ({format_bytes(totals['free_bytes'])} free)"
        words.append(disk)
    return ", ".join(words) or "nothing to do"
