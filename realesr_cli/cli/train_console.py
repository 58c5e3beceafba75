"""What a training run says on the terminal: its plan, steps, scores and files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from realesr_cli.cli.terminal import ProgressBar, say_warning

if TYPE_CHECKING:
    from realesr_cli.train.config import TrainConfig
    from realesr_cli.train.events import Event, Note, Saved, StageBegun, StepDone, Validated
    from realesr_cli.train.machine import Machine
    from realesr_cli.train.plan import TrainingPlan
    from realesr_cli.train.validation import Scores

LINE_EVERY = 10.0
"""Seconds between lines where there is no terminal to draw a bar on."""

SMOOTHING = 0.95
"""Share kept of the running means shown."""

_SHOWN = ("pixel", "structure", "perceptual", "gan", "discriminator")


class TrainConsole:
    """The voice of one run; call it with the events of the run."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar = ProgressBar(unit="step", enabled=not quiet)
        self._means: dict[str, float] = {}
        self._last_line = 0.0

    def __call__(self, event: Event) -> None:
        """Show an event."""
        # By name, because importing the classes would import torch, which the help does without.
        handler = getattr(self, f"_{type(event).__name__}")
        handler(event)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()

    def line(self, text: str) -> None:
        """A line on stderr unless quiet."""
        if not self.quiet:
            self._bar.write(text)

    def _StageBegun(self, event: StageBegun) -> None:
        self._means.clear()
        self._bar.close()
        where = f" from step {event.step:,}" if event.step else ""
        self.line(
            f"stage {event.number} of {event.stages}: {event.stage}, "
            f"{event.iterations:,} steps{where}"
        )
        self._bar.relabel(event.stage)

    def _StepDone(self, event: StepDone) -> None:
        seconds = sum(event.seconds.values())
        self._learn("seconds", seconds)
        for part, spent in event.seconds.items():
            self._learn(f"s_{part}", spent)
        for name in _SHOWN:
            if name in event.losses and not event.skipped:
                self._learn(name, event.losses[name])
        if event.skipped:
            self.line(f"step {event.step:,}: the loss was not finite; the step was skipped")
        self._bar(event.total, event.of)
        now = time.monotonic()
        if not self._bar.enabled and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self.line(self.step_line(event))
        elif self._bar.enabled:
            self._bar.relabel(f"{event.stage} {self._losses()}")

    def step_line(self, event: StepDone) -> str:
        """`gan 1,200/400,000  pixel 0.021 ...  2.31 it/s  ETA 2 d 3 h  data 1% ...`."""
        seconds = self._means["seconds"]
        left = duration((event.of - event.total) * seconds)
        parts = " ".join(
            f"{name[2:]} {spent / seconds:.0%}"
            for name, spent in self._means.items()
            if name.startswith("s_") and seconds
        )
        pace = f"{1 / seconds:.2f} it/s" if seconds else ""
        return (
            f"{event.stage} {event.step:,}/{event.iterations:,}  {self._losses()}  "
            f"lr {event.losses['lr']:.2e}  {pace}  ETA {left}  {parts}"
        )

    def _Validated(self, event: Validated) -> None:
        best = "  best so far" if event.best and event.step else ""
        text = scores_text(event.scores, event.baseline, event.bicubic)
        self.line(f"validation at {event.stage} {event.step:,}: {text}{best}")
        if event.origin != event.baseline:
            gain = event.scores.psnr - event.origin.psnr
            self.line(f"  since the run's start: PSNR {gain:+.3f} dB")
        self.line(f"  sample sheet: {event.sheet}")

    def _Saved(self, event: Saved) -> None:
        self.line(f"saved {event.path}")

    def _Note(self, event: Note) -> None:
        self._bar.close()
        say_warning(event.text)

    def _losses(self) -> str:
        return " ".join(f"{n} {self._means[n]:.4f}" for n in _SHOWN if n in self._means)

    def _learn(self, name: str, value: float) -> None:
        old = self._means.get(name, value)
        self._means[name] = SMOOTHING * old + (1 - SMOOTHING) * value


def scores_text(scores: Scores, start: Scores, bicubic: Scores) -> str:
    """Each score with what has changed since the stage's start, and bicubic's."""
    parts = [
        f"PSNR {scores.psnr:.3f} dB ({scores.psnr - start.psnr:+.3f} since its start, bicubic "
        f"{bicubic.psnr:.3f})",
        f"SSIM {scores.ssim:.4f} ({scores.ssim - start.ssim:+.4f}, bicubic {bicubic.ssim:.4f})",
    ]
    if scores.perceptual is not None:
        change = scores.perceptual - (start.perceptual or 0.0)
        parts.append(
            f"perceptual {scores.perceptual:.4f} ({change:+.4f}, bicubic {bicubic.perceptual:.4f}; "
            "less is better)"
        )
    return ", ".join(parts)


def plan_lines(config: TrainConfig, plan: TrainingPlan, machine: Machine, out: str) -> list[str]:
    """The plan of a run for people."""
    from realesr_cli.train.plan import machine_text, stage_text

    judge = ""
    if plan.discriminator:
        judge = f"; discriminator {plan.discriminator}, {plan.discriminator_parameters:,}"
    room = "" if plan.disk < plan.free else ": MORE THAN THERE IS"
    lines = [
        f"recipe    {config.recipe}, scale {config.scale}, into {out}",
        f"network   {plan.network}, {plan.parameters:,} parameters{judge}",
        f"images  {plan.images:,} to train on ({plan.megapixels:,.0f} megapixels), "
        f"{plan.held_out} to validate with",
        f"batch     {plan.batch} crops of {config.data.patch} low-quality pixels a side"
        + (f", in {config.data.accumulate} passes" if config.data.accumulate > 1 else ""),
        f"machine   {machine_text(machine)}",
    ]
    for number, stage in enumerate(config.stages, 1):
        lines.append(f"stage {number}   {stage.name}: {stage_text(stage)}")
    lines.append(
        f"disk      about {size(plan.disk)} ({size(plan.checkpoint)} a checkpoint), "
        f"{size(plan.free)} free{room}"
    )
    return lines


def duration(seconds: float) -> str:
    """Seconds for people: `42 s`, `3 min`, `5 h 10 min`, `12 d 3 h`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 36:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def size(count: int) -> str:
    """Bytes for people, in powers of 1024."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
