"""What a run tells its caller while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from realesr_cli.train.validation import Scores


@dataclass(frozen=True)
class StageBegun:
    """A stage starts, or goes on after a resume, at `step` of `iterations`."""

    stage: str
    number: int
    stages: int
    step: int
    iterations: int


@dataclass(frozen=True)
class StepDone:
    """One update. `total` counts the steps of the whole run done so far, `of` all of them."""

    stage: str
    step: int
    iterations: int
    total: int
    of: int
    losses: dict[str, float]
    """Terms of the losses, learning rates and gradient norms by name."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of this step: data, degradation, generator, discriminator."""
    skipped: bool = False


@dataclass(frozen=True)
class Validated:
    """Scores of the averaged generator, and to compare with those of other weights and bicubic.

    `baseline` has what the stage started from, `origin` what the run did.
    """

    stage: str
    step: int
    scores: Scores
    baseline: Scores
    origin: Scores
    bicubic: Scores
    best: bool
    sheet: Path


@dataclass(frozen=True)
class Saved:
    """A file was written: a checkpoint or the generator."""

    path: Path


@dataclass(frozen=True)
class Note:
    """Something the user should know."""

    text: str


Event = StageBegun | StepDone | Validated | Saved | Note
Listener = Callable[[Event], None]


def nobody(event: Event) -> None:
    """A listener that does nothing."""
