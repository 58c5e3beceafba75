"""What a training run prints: its plan, steps, scores and files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from realesr_cli.cli.terminal import ProgressBar, say_warning
from realesr_cli.text import format_bytes, format_seconds
from realesr_cli.train.events import (
    Event,
    Notice,
    Saved,
    Scores,
    StageStarted,
    StepDone,
    Validated,
)

if TYPE_CHECKING:
    from realesr_cli.train.config import TrainConfig
    from realesr_cli.train.distributed import World
    from realesr_cli.train.machine import Machine
    from realesr_cli.train.plan import TrainingPlan
    from realesr_cli.train.session import Session

LINE_EVERY = 10.0
"""Seconds between lines where there is no terminal to draw a bar on."""

DECAY = 0.95
"""Decay of the running means shown."""


class TrainConsole:
    """Prints the events of one run to stderr; use it as the listener of the run."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar = ProgressBar(unit="step", enabled=not quiet)
        self._losses: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._pace: dict[str, float] = {}
        self._last_line = 0.0

    def __call__(self, event: Event) -> None:
        """Print an event."""
        match event:
            case StageStarted():
                self._stage_started(event)
            case StepDone():
                self._step_done(event)
            case Validated():
                self._validated(event)
            case Saved():
                self.line(f"saved {event.path}")
            case Notice():
                self._bar.close()
                say_warning(event.text)

    def close(self) -> None:
        """Remove the progress bar."""
        self._bar.close()

    def line(self, text: str) -> None:
        """Print a line unless quiet."""
        if not self.quiet:
            self._bar.write(text)

    def _stage_started(self, event: StageStarted) -> None:
        self._losses, self._seconds, self._pace = {}, {}, {}
        self._bar.close()
        where = f" from step {event.step:,}" if event.step else ""
        self.line(
            f"stage {event.number} of {event.stages}: {event.stage}, "
            f"{event.iterations:,} steps{where}"
        )
        self._bar.relabel(event.stage)

    def _step_done(self, event: StepDone) -> None:
        _update_means(self._seconds, event.seconds)
        _update_means(self._pace, {"seconds": event.duration})
        if event.skipped:
            self.line(f"step {event.step:,} skipped: the loss was not finite")
        else:
            _update_means(self._losses, event.losses)
        self._bar(event.total, event.total_steps)
        now = time.monotonic()
        if not self._bar.enabled and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self.line(self.step_line(event))
        elif self._bar.enabled:
            self._bar.relabel(f"{event.stage} {self._losses_text()}")

    def step_line(self, event: StepDone) -> str:
        """Return `gan 1,200/400,000  pixel 0.021 ...  2.31 it/s  ETA 2 d 03 h  data 1% ...`."""
        seconds, measured = self._pace["seconds"], sum(self._seconds.values())
        remaining = format_seconds((event.total_steps - event.total) * seconds)
        parts = " ".join(
            f"{name} {spent / measured:.0%}" for name, spent in self._seconds.items() if measured
        )
        pace = f"{1 / seconds:.2f} it/s" if seconds else ""
        return (
            f"{event.stage} {event.step:,}/{event.iterations:,}  {self._losses_text()}  "
            f"lr {event.stats['lr']:.2e}  {pace}  ETA {remaining}  {parts}"
        )

    def _validated(self, event: Validated) -> None:
        best = "  best so far" if event.best and event.step else ""
        text = format_scores(event.scores, event.stage_start, event.bicubic)
        self.line(f"validation at {event.stage} {event.step:,}: {text}{best}")
        if event.run_start != event.stage_start:
            gain = event.scores.psnr - event.run_start.psnr
            self.line(f"  since the start of the run: PSNR {gain:+.3f} dB")
        self.line(f"  sample sheet: {event.sheet}")

    def _losses_text(self) -> str:
        return " ".join(f"{name} {value:.4f}" for name, value in self._losses.items())


def _update_means(means: dict[str, float], values: Mapping[str, float]) -> None:
    """Update running means in place."""
    for name, value in values.items():
        means[name] = DECAY * means.get(name, value) + (1 - DECAY) * value


def format_scores(scores: Scores, start: Scores, bicubic: Scores) -> str:
    """Return each score with its change since the start of the stage, and bicubic's."""
    parts = [
        f"PSNR {scores.psnr:.3f} dB ({scores.psnr - start.psnr:+.3f} since the start of the stage, "
        f"bicubic {bicubic.psnr:.3f})",
        f"SSIM {scores.ssim:.4f} ({scores.ssim - start.ssim:+.4f}, bicubic {bicubic.ssim:.4f})",
    ]
    if scores.perceptual is not None:
        change = scores.perceptual - (start.perceptual or 0.0)
        parts.append(
            f"perceptual {scores.perceptual:.4f} ({change:+.4f}, bicubic {bicubic.perceptual:.4f}; "
            "lower is better)"
        )
    return ", ".join(parts)


def plan_lines(config: TrainConfig, plan: TrainingPlan, machine: Machine, out: str) -> list[str]:
    """Return the lines of a run's plan."""
    from realesr_cli.train.plan import describe_stage

    discriminator = ""
    if plan.discriminator:
        count = f"{plan.discriminator_parameters:,}"
        discriminator = f"; discriminator {plan.discriminator}, {count} parameters"
    passes = f", in {config.data.accumulate} passes" if config.data.accumulate > 1 else ""
    patch = config.data.patch
    full = "" if plan.disk < plan.free else ": NOT ENOUGH"
    stages = [
        f"stage {number}   {stage.name}: {describe_stage(stage)}"
        for number, stage in enumerate(config.stages, 1)
    ]
    return [
        f"recipe    {config.recipe}, scale {config.scale}, output {out}",
        f"network   {plan.network}, {plan.parameters:,} parameters{discriminator}",
        f"images    {plan.images:,} for training ({plan.megapixels:,.0f} megapixels), "
        f"{plan.held_out} for validation",
        f"batch     {plan.batch} crops of {patch}x{patch} LQ pixels{passes}",
        f"machine   {machine.describe()}",
        *stages,
        f"disk      about {format_bytes(plan.disk)} ({format_bytes(plan.checkpoint)} per "
        f"checkpoint), {format_bytes(plan.free)} free{full}",
    ]


def print_plan(session: Session, console: TrainConsole) -> bool:
    """Print plan, disk usage, downloads and measured cost; return whether anything is missing."""
    from realesr_cli.train.networks import find_downloads
    from realesr_cli.train.plan import make_plan
    from realesr_cli.weights.fetch import is_offline

    resumed = session.checkpoint is not None
    missing = () if is_offline() else find_downloads(session.config, resumed=resumed)
    if console.quiet:
        return bool(missing)
    plan = make_plan(session.config, session.images, session.out)
    for line in plan_lines(session.config, plan, session.machine, str(session.out)):
        console.line(line)
    for entry in missing:
        size = format_bytes(entry.bytes) if entry.bytes else "size unknown"
        console.line(f"download  {entry.name}, {size}, once: it is cached for later runs")
    console.line(_cost_line(session.config, session.machine, session.world))
    return bool(missing)


def _cost_line(config: TrainConfig, machine: Machine, world: World) -> str:
    """Return the line about time and memory, measured on steps of each stage."""
    from realesr_cli.engine.guard import is_out_of_memory
    from realesr_cli.train.plan import measure_step

    total, low, high, parts, peak = 0.0, 0.0, 0.0, [], 0
    for number, stage in enumerate(config.stages):
        try:
            cost = measure_step(config, machine, number)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return "cost      a step does not fit in memory; training would say what does"
        total += cost.seconds * stage.iterations
        low += cost.fastest * stage.iterations
        high += cost.slowest * stage.iterations
        peak = max(peak, cost.peak_bytes or 0)
        parts.append(f"{stage.name} {cost.seconds:.3g} s per step")
    memory = f", {format_bytes(peak)} of device memory" if peak else ""
    hours = total * world.size * machine.units / 3600
    unit = "core-hours" if machine.device.type == "cpu" else "GPU-hours"
    amount = f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
    return (
        f"cost      {', '.join(parts)}: about {format_seconds(total)} "
        f"({format_seconds(low)} to {format_seconds(high)}), {amount} {unit}{memory}"
    )
