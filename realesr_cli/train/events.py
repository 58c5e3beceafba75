"""What a run reports to its listener while it trains; importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Scores:
    """Mean scores over all validation samples; higher `psnr` and `ssim`, lower others are better.

    `psnr` is in dB on RGB, `ssim` on luma, both with `scale` border pixels cropped. `color` is the
    largest difference between the channel means of output and ground truth, of 255. `perceptual` is
    the feature distance of the perceptual loss; None if the run has no such loss.
    """

    psnr: float
    ssim: float
    color: float
    perceptual: float | None = None

    def plain(self) -> dict[str, float]:
        """Return the scores that are not None, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class StageStarted:
    """A stage starts, or continues after a resume, at `step` of `iterations`."""

    stage: str
    number: int
    stages: int
    step: int
    iterations: int


@dataclass(frozen=True)
class StepDone:
    """One training step is done, as the `total`-th of `total_steps` steps of all stages."""

    stage: str
    step: int
    iterations: int
    total: int
    total_steps: int
    losses: dict[str, float]
    """Weighted loss terms of the generator, and the discriminator's loss."""
    stats: dict[str, float] = field(default_factory=dict)
    """Learning rates, gradient norms, mean logits, and the generator's total loss."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by part: data, degradation, generator, discriminator; empty if not measured."""
    duration: float = 0.0
    """Seconds of the whole step."""
    skipped: bool = False


@dataclass(frozen=True)
class Validated:
    """Scores of the averaged generator, with those to compare them with.

    `stage_start` are the scores of the weights the stage started from, `run_start` of those the
    run started from.
    """

    stage: str
    step: int
    scores: Scores
    stage_start: Scores
    run_start: Scores
    bicubic: Scores
    best: bool
    sheet: Path


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written."""

    path: Path


@dataclass(frozen=True)
class Notice:
    """Something that the user should know."""

    text: str


Event = StageStarted | StepDone | Validated | Saved | Notice
Listener = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """Do nothing."""
