"""What a run watches itself for: scores below the start, color drift, discriminator collapse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from realesr_cli.train.config import StageConfig, ValidationConfig
from realesr_cli.train.events import Scores
from realesr_cli.train.state import TrainProgress

COLOR_DRIFT = 2.0
"""Increase of the color score over the start, of 255, that is reported."""

MAX_SKIPPED = 10
"""Steps in a row without a finite loss after which a run stops."""

LOGITS_AFTER = 500
"""Discriminator updates before its logits are looked at."""

LOGITS_DECAY = 0.99
"""Decay of the running means of the logits."""


@dataclass(frozen=True)
class ValidationVerdict:
    """What a validation means: new progress, messages, whether it is the best, whether to stop."""

    progress: TrainProgress
    messages: tuple[str, ...]
    best: bool
    stop: bool


def best_by(stage: StageConfig, validation: ValidationConfig) -> str:
    """Return the score that selects the best checkpoint of a stage; last: the newest one."""
    if validation.best == "auto":
        return "last" if stage.adversarial else "psnr"
    return validation.best


def assess_validation(
    progress: TrainProgress, scores: Scores, stage: StageConfig, validation: ValidationConfig
) -> ValidationVerdict:
    """Compare scores with the start of the stage and with the best ones so far.

    The start itself is the first candidate for the best, so that a run that only gets worse keeps
    it.
    """
    now = scores.plain()
    by = best_by(stage, validation)
    best = by == "last" or not progress.best or now[by] > progress.best[by]
    start = progress.stage_start or now
    below = start["psnr"] - scores.psnr
    worse = progress.worse + 1 if below > validation.tolerance else 0
    limit = validation.patience
    messages = []
    if worse and (limit or by != "last"):
        count = f" ({worse} in a row{f', stops at {limit}' if limit else ''})"
        messages.append(f"PSNR is {below:.2f} dB below the start of this stage{count}")
    drift = scores.color - start["color"]
    if drift > COLOR_DRIFT:
        messages.append(
            f"colors drift: the mean of a channel is off by {scores.color:.1f} of 255, "
            f"{drift:.1f} more than at the start"
        )
    new = replace(
        progress,
        worse=worse,
        best=now if best else progress.best,
        best_step=progress.step if best else progress.best_step,
        stage_start=start,
        run_start=progress.run_start or start,
    )
    return ValidationVerdict(new, tuple(messages), best, stop=bool(limit) and worse >= limit)


def watch_discriminator(
    logits: Mapping[str, float], stats: Mapping[str, float]
) -> tuple[dict[str, float], str]:
    """Update running means of the discriminator's logits; return them, and a message on collapse.

    The message appears once per stage and kind: the discriminator recognizes every generated image,
    so that the generator learns nothing from it, or it distinguishes nothing.
    """
    means = dict(logits)
    for name in ("d_real", "d_fake"):
        means[name] = LOGITS_DECAY * means.get(name, stats[name]) + (1 - LOGITS_DECAY) * stats[name]
    means["seen"] = means.get("seen", 0) + 1
    if means["seen"] < LOGITS_AFTER:
        return means, ""
    margin = means["d_real"] - means["d_fake"]
    if margin > 10 and not means.get("reported_strong"):
        means["reported_strong"] = 1
        return means, (
            f"the discriminator has won: logits of real and generated images are {margin:.0f} "
            "apart, which leaves the generator little to learn from; lower "
            "optimizer.discriminator_lr or gan.weight"
        )
    if margin < 1e-3 and not means.get("reported_weak"):
        means["reported_weak"] = 1
        return means, (
            "the discriminator has collapsed: it does not distinguish real from generated images; "
            "start it from published weights (discriminator.init) or raise "
            "optimizer.discriminator_lr"
        )
    return means, ""
