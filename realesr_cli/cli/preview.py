"""`realesr upscale --dry-run`: what would be done, with which model, and at what cost."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from realesr_cli.cli.console import (
    Style,
    Used,
    print_json,
    record_line,
    record_plain,
    seconds,
    size_text,
    sizes,
)
from realesr_cli.image.record import Image
from realesr_cli.infer.jobs import Job
from realesr_cli.infer.records import planned
from realesr_cli.infer.settings import UpscaleSettings
from realesr_cli.infer.upscaler import Plan, Upscaler

_CPU_SIDE, _GPU_SIDE = 96, 512
"""Sides in pixels of the picture that is timed."""


@dataclass(frozen=True)
class Model:
    """What the pictures would be made with; `download` are bytes, None where not known."""

    used: Used
    reasons: tuple[str, ...]
    missing: bool = False
    download: int | None = None


def calibrate(upscaler: Upscaler) -> None:
    """Time a small picture of noise, so that plans know how long theirs will take."""
    side = _CPU_SIDE if upscaler.policy.device == "cpu" else _GPU_SIDE
    side = min(side, 2 * upscaler.policy.tile or side)
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    upscaler(Image(noise))


def estimate(upscaler: Upscaler, job: Job, settings: UpscaleSettings) -> Plan:
    """What one picture would cost."""
    header = job.header
    assert header is not None
    return upscaler.plan(
        header.height,
        header.width,
        settings,
        channels=header.channels,
        alpha=header.has_alpha,
        bits=header.bits,
    )


def show(model: Model, jobs: Sequence[Job], plans: Sequence[Plan | None], style: Style) -> None:
    """Print the plan on stdout: lines for people, or one JSON object per picture and a summary."""
    if style.json:
        for job, plan in zip(jobs, plans, strict=True):
            print_json(_plain(job, plan, model))
        print_json({"summary": {**totals(jobs, plans), "fetch": _fetch(model)}})
        return
    click.echo(_model_line(model))
    if style.verbose:
        click.echo("\n".join(f"  {reason}" for reason in model.reasons))
    for job, plan in zip(jobs, plans, strict=True):
        click.echo(_line(job, plan, style))
    click.echo(_totals_line(totals(jobs, plans)))


def _fetch(model: Model) -> int | bool:
    return (model.download or True) if model.missing else False


def _model_line(model: Model) -> str:
    used = model.used
    text = f"{used.model} on {used.device}, {used.precision}, tile {used.tile or 'whole picture'}"
    if not model.missing:
        return text
    size = f" ({size_text(model.download)})" if model.download else ""
    return f"{text}; its weights are not here yet and would be fetched{size}"


def _plain(job: Job, plan: Plan | None, model: Model) -> dict[str, Any]:
    plain = record_plain(planned(job), model.used)
    if plan is None:
        return plain
    cost = {
        "tiles": plan.tiles,
        "passes": plan.passes,
        "tile": plan.tile,
        "overlap": plan.overlap,
        "output_bytes": plan.output_bytes,
        "peak_bytes": plan.peak_bytes,
        "seconds": None if plan.seconds is None else round(plan.seconds, 1),
    }
    return plain | cost


def _line(job: Job, plan: Plan | None, style: Style) -> str:
    if plan is None:
        return record_line(planned(job), style)
    target = "stdout" if job.target is None else str(job.target)
    tiles = f"{plan.tiles} tile{'s' if plan.tiles != 1 else ''}"
    if plan.passes != 1:
        tiles += f" x {plan.passes} passes"
    time = "time not known" if plan.seconds is None else f"about {seconds(plan.seconds)}"
    return (
        f"{job.source.name} -> {target}  {sizes(job)}  {tiles}, "
        f"result {size_text(plan.output_bytes)}, memory {size_text(plan.peak_bytes)}, {time}"
    )


def totals(jobs: Sequence[Job], plans: Sequence[Plan | None]) -> dict[str, Any]:
    """Counts, time, memory and disk of the whole run; times are None where one is not known."""
    todo = [plan for plan in plans if plan is not None]
    times = [plan.seconds for plan in todo if plan.seconds is not None]
    targets = [j.target for j, p in zip(jobs, plans, strict=True) if p is not None and j.target]
    free = [free_bytes(folder) for folder in dict.fromkeys(t.parent for t in targets)]
    return {
        "planned": len(todo),
        "skipped": sum(job.finished for job in jobs),
        "failed": sum(job.error is not None for job in jobs),
        "seconds": round(sum(times), 1) if len(times) == len(todo) else None,
        "peak_bytes": max((plan.peak_bytes for plan in todo), default=0),
        "output_bytes": sum(plan.output_bytes for plan in todo),
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
        words.append(f"memory {size_text(total['peak_bytes'])}")
        disk = f"at most {size_text(total['output_bytes'])} to write"
        if total["free_bytes"] is not None:
            disk += f" ({size_text(total['free_bytes'])} free)"
        words.append(disk)
    return ", ".join(words) or "nothing to do"


_COUNTED = (("planned", "to do"), ("skipped", "there already"), ("failed", "cannot be done"))
