"""What a run watches itself for: scores below the start, color drift, discriminator collapse."""

from __future__ import annotations

from dataclasses import dataclass

from realesr_cli.train.config import StageConfig, ValidationConfig
from realesr_cli.train.state import TrainProgress
from realesr_cli.train.validation import Scores

COLOR_DRIFT = 2.0
"""Shift of a channel's mean beyond that of the start, of 255, that is reported."""

SKIPS_ALLOWED = 10
"""Steps in a row without a finite loss after which a run stops."""

WATCH_AFTER = 500
"""Updates of the discriminator before anything is said about it."""

MEMORY = 0.99
"""Share of the running means kept at each step."""


@dataclass(frozen=True)
class ValidationVerdict:
    """What a validation means: things to say, whether it is the best so far, whether to stop."""

    messages: tuple[str, ...]
    best: bool
    stop: bool


def best_by(stage: StageConfig, validation: ValidationConfig) -> str:
    """What makes the best checkpoint of a stage: psnr, ssim or last."""
    if validation.best == "auto":
        return "last" if stage.adversarial else "psnr"
    return validation.best


def update_best(
    progress: TrainProgress, scores: Scores, stage: StageConfig, validation: ValidationConfig
) -> ValidationVerdict:
    """Compare scores with the start of the stage and the best so far, and count what is worse.

    Changes `progress` (worse, best, best_step). The start itself is the first candidate, so that
    a run that only gets worse keeps it.
    """
    now = scores.plain()
    by = best_by(stage, validation)
    best = by == "last" or not progress.best or now[by] > progress.best[by]
    if best:
        progress.best, progress.best_step = dict(now), progress.step
    messages = []
    start = progress.baseline or now
    below = start["psnr"] - scores.psnr
    progress.worse = progress.worse + 1 if below > validation.tolerance else 0
    limit = validation.stop_if_worse
    stop = bool(limit) and progress.worse >= limit
    if progress.worse and (limit or by != "last"):
        of = f" ({progress.worse} in a row{f', stops at {limit}' if limit else ''})"
        messages.append(f"PSNR is {below:.2f} dB below the start of this stage{of}")
    drift = scores.color - start["color"]
    if drift > COLOR_DRIFT:
        messages.append(
            f"colors drift: the mean of a channel is off by {scores.color:.1f} of 255, "
            f"{drift:.1f} more than at the start"
        )
    return ValidationVerdict(tuple(messages), best, stop)


def watch_discriminator(progress: TrainProgress, losses: dict[str, float]) -> str:
    """Keep running means of the discriminator's outputs; a message when they show a collapse.

    Said once per stage and kind: the discriminator knows all fakes (the generator learns nothing
    from it any more), or tells nothing apart (neither does the generator).
    """
    means = progress.loss
    for name in ("discriminator", "d_real", "d_fake"):
        means[name] = MEMORY * means.get(name, losses[name]) + (1 - MEMORY) * losses[name]
    means["seen"] = means.get("seen", 0) + 1
    if means["seen"] < WATCH_AFTER:
        return ""
    margin = means["d_real"] - means["d_fake"]
    if margin > 10 and not means.get("told_strong"):
        means["told_strong"] = 1
        return (
            f"the discriminator has won: real and generated images are {margin:.0f} logits "
            "apart, which leaves the generator little to learn from; lower "
            "optimizer.discriminator_lr or gan.weight"
        )
    if margin < 1e-3 and not means.get("told_weak"):
        means["told_weak"] = 1
        return (
            "the discriminator tells nothing apart (collapse): give it a start with --init-d, or "
            "raise optimizer.discriminator_lr"
        )
    return ""
