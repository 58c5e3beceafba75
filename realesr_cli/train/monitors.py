"""What a run watches itself for: scores below the start, color drift, discriminator collapse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from realesr_cli.train.config import StageConfig
from realesr_cli.train.events import Scores
from realesr_cli.train.settings import ValidationConfig
from realesr_cli.train.state import TrainProgress

COLOR_DRIFT = 2.0
"""Increase of the color score over the start, of 255, that is reported."""

SSIM_TOLERANCE = 0.002
"""Drop of SSIM that still counts as equal."""

PERCEPTUAL_TOLERANCE = 0.02
"""Relative increase of the perceptual distance that still counts as equal."""

LOWER_IS_BETTER = ("perceptual",)
"""Scores of which the lowest is the best."""

MAX_SKIPPED = 10
"""Steps in a row without a finite loss after which a run stops."""

LOGITS_AFTER = 500
"""Discriminator updates before its logits are looked at."""

LOGITS_DECAY = 0.99
"""Decay of the running means of the logits."""


@dataclass(frozen=True)
class ValidationVerdict:
    """What a validation means: new progress, messages, whether it is the best, whether to stop.

    `worse` are the scores that are below the start of the stage, as text.
    """

    progress: TrainProgress
    messages: tuple[str, ...]
    best: bool
    stop: bool
    worse: tuple[str, ...] = ()


def best_by(stage: StageConfig, validation: ValidationConfig) -> str:
    """Return the score that selects the best checkpoint of a stage; last: the newest one."""
    if validation.best == "auto":
        return "last" if stage.adversarial else "psnr"
    return validation.best


def assess_validation(
    progress: TrainProgress,
    scores: Scores,
    stage: StageConfig,
    validation: ValidationConfig,
    bicubic: Scores | None = None,
) -> ValidationVerdict:
    """Compare scores with the start of the stage, with the best ones so far and with bicubic.

    The start itself is the first candidate for the best, so that a run that only gets worse keeps
    it. A validation is the best one only if no score is worse than at the start: an average can
    raise PSNR while it loses structure or shifts colors. In a stage that keeps the newest weights,
    only its own perceptual loss is held against the start, unless `validation.patience` is set.
    """
    now = scores.plain()
    by = best_by(stage, validation)
    start = progress.stage_start or now
    limit = validation.patience
    fidelity = by != "last" or bool(limit)
    worse = _find_worse(start, now, stage, validation, fidelity=fidelity)
    best = by == "last" or not progress.best or (_improves(by, now, progress.best) and not worse)
    count = progress.worse + 1 if worse else 0
    messages = []
    if worse:
        stops = f", stops at {limit}" if limit else ""
        messages.append(
            f"worse than at the start of this stage: {', '.join(worse)} ({count} in a row{stops})"
        )
    drift = scores.color - start["color"]
    if drift > COLOR_DRIFT and not fidelity:
        messages.append(_describe_drift(scores.color, drift))
    if bicubic is not None and fidelity and progress.stage_start:
        gap = bicubic.psnr - scores.psnr
        if gap > validation.tolerance:
            messages.append(f"PSNR is still {gap:.2f} dB below bicubic's")
    new = replace(
        progress,
        worse=count,
        best=now if best else progress.best,
        best_step=progress.step if best else progress.best_step,
        stage_start=start,
        run_start=progress.run_start or start,
    )
    stop = bool(limit) and count >= limit
    return ValidationVerdict(new, tuple(messages), best, stop, worse)


def _find_worse(
    start: Mapping[str, float],
    now: Mapping[str, float],
    stage: StageConfig,
    validation: ValidationConfig,
    *,
    fidelity: bool,
) -> tuple[str, ...]:
    """Return the scores that are worse than at the start, as text."""
    found = []
    psnr, ssim = start["psnr"] - now["psnr"], start["ssim"] - now["ssim"]
    drift = now["color"] - start["color"]
    if fidelity and psnr > validation.tolerance:
        found.append(f"PSNR by {psnr:.2f} dB")
    if fidelity and ssim > SSIM_TOLERANCE:
        found.append(f"SSIM by {ssim:.4f}")
    if fidelity and drift > COLOR_DRIFT:
        found.append(_describe_drift(now["color"], drift))
    before, after = start.get("perceptual"), now.get("perceptual")
    if before and after and (stage.perceptual.weight or validation.best == "perceptual"):
        increase = after / before - 1
        if increase > PERCEPTUAL_TOLERANCE:
            found.append(f"perceptual distance by {increase:.0%}")
    return tuple(found)


def _describe_drift(color: float, drift: float) -> str:
    return (
        f"colors drift: the mean of a channel is off by {color:.1f} of 255, {drift:.1f} more than "
        "at the start"
    )


def _improves(by: str, now: Mapping[str, float], best: Mapping[str, float]) -> bool:
    """Return whether the score `by` is better than the best one; False where it is missing."""
    if by not in now or by not in best:
        return False
    return now[by] < best[by] if by in LOWER_IS_BETTER else now[by] > best[by]


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
