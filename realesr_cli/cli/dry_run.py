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
    print_json,
    record_line,
    record_plain,
    seconds,
    size_text,
    sizes,
)
from realesr_cli.engine.estimate import Estimate, ImageShape
from realesr_cli.engine.settings import UpscaleSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.image.types import Image

_CPU_SIDE, _GPU_SIDE = 96, 512
"""Sides in pixels of the image that is timed."""


@dataclass(frozen=True)
class DryRunModel:
    """What the images would be made with; `download` are bytes, None where not known."""

    used: RunDescription
    reasons: tuple[str, ...]
    missing: bool = False
    download: int | None = None


def calibrate(upscaler: Upscaler, settings: UpscaleSettings) -> None:
    """Time a small image of noise, so that estimates know how long theirs will take.

    Of `settings` only the share of a second network matters: which of the two are run.
    """
    side = _CPU_SIDE if upscaler.policy.device == "cpu" else _GPU_SIDE
    side = min(side, 2 * upscaler.policy.tile or side)
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    upscaler(Image(noise), UpscaleSettings(blend=settings.blend))


def estimate(upscaler: Upscaler, job: Job, settings: UpscaleSettings) -> Estimate:
    """What one image would cost."""
    header = job.header
    assert header is not None
    shape = ImageShape(header.height, header.width, header.channels, header.has_alpha, header.bits)
    return upscaler.estimate(shape, settings)


def show(
    model: DryRunModel, jobs: Sequence[Job], estimates: Sequence[Estimate | None], style: Style
) -> None:
    """Print the plan on stdout: lines for people, or one JSON object per image and a summary."""
    if style.json:
        for job, found in zip(jobs, estimates, strict=True):
            print_json(_plain(job, found, model))
        print_json({"summary": {**totals(jobs, estimates), "fetch": _fetch(model)}})
        return
    click.echo(_model_line(model))
    if style.verbose:
        click.echo("\n".join(f"  {reason}" for reason in model.reasons))
    for job, found in zip(jobs, estimates, strict=True):
        click.echo(_line(job, found, style))
    click.echo(_totals_line(totals(jobs, estimates)))


def _fetch(model: DryRunModel) -> int | bool:
    return (model.download or True) if model.missing else False


def _model_line(model: DryRunModel) -> str:
    used = model.used
    text = f"{used.model} on {used.device}, {used.precision}, tile {used.tile or 'whole image'}"
    text += used.describe()
    if not model.missing:
        return text
    size = f" ({size_text(model.download)})" if model.download else ""
    return f"{text}; its weights are not here yet and would be fetched{size}"


def _plain(job: Job, found: Estimate | None, model: DryRunModel) -> dict[str, Any]:
    plain = record_plain(planned(job), model.used)
    if found is None:
        return plain
    cost = {
        "tiles": found.tiles,
        "passes": found.passes,
        "tile": found.tile,
        "overlap": found.overlap,
        "output_bytes": found.output_bytes,
        "peak_bytes": found.peak_bytes,
        "seconds": None if found.seconds is None else round(found.seconds, 1),
    }
    return plain | cost


def _line(job: Job, found: Estimate | None, style: Style) -> str:
    if found is None:
        return record_line(planned(job), style)
    target = "stdout" if job.target is None else str(job.target)
    tiles = f"{found.tiles} tile{'s' if found.tiles != 1 else ''}"
    if found.passes != 1:
        tiles += f" x {found.passes} passes"
    time = "time not known" if found.seconds is None else f"about {seconds(found.seconds)}"
    return (
        f"{job.source.name} -> {target}  {sizes(job)}  {tiles}, "
        f"result {size_text(found.output_bytes)}, "
        f"working memory {size_text(found.peak_bytes)}, {time}"
    )


def totals(jobs: Sequence[Job], estimates: Sequence[Estimate | None]) -> dict[str, Any]:
    """Counts, time, memory and disk of the whole run; times are None where one is not known."""
    todo = [found for found in estimates if found is not None]
    times = [found.seconds for found in todo if found.seconds is not None]
    targets = [j.target for j, p in zip(jobs, estimates, strict=True) if p is not None and j.target]
    free = [free_bytes(folder) for folder in dict.fromkeys(t.parent for t in targets)]
    return {
        "planned": len(todo),
        "skipped": sum(job.finished for job in jobs),
        "failed": sum(job.error is not None for job in jobs),
        "seconds": round(sum(times), 1) if len(times) == len(todo) else None,
        "peak_bytes": max((found.peak_bytes for found in todo), default=0),
        "output_bytes": sum(found.output_bytes for found in todo),
        "free_bytes": min(free, default=None),
    }


def free_bytes(folder: Path) -> int:
    """Free space of the disk that a folder is, or would be, on."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _totals_line(total: dict[str, Any]) -> str:
    words = [f"{total[k]} {w}" for k, w in _COUNTED if total[k]]
    if total["planned"]:
        time = total["seconds"]
        words.append("time not known" if time is None else f"about {seconds(time)}")
        words.append(f"working memory {size_text(total['peak_bytes'])}")
        disk = f"at most {size_text(total['output_bytes'])} to write"
        if total["free_bytes"] is not None:
            disk += f" ({size_text(total['free_bytes'])} free)"
        words.append(disk)
    return ", ".join(words) or "nothing to do"


_COUNTED = (("planned", "to do"), ("skipped", "there already"), ("failed", "cannot be done"))
