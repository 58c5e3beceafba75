"""The learning rate at a step: a pure function, so there is nothing to save or restore."""

from __future__ import annotations

import math

from realesr_cli.train.config import ScheduleConfig


def learning_rate(schedule: ScheduleConfig, base: float, *, step: int, iterations: int) -> float:
    """The rate for the update after `step` updates of a stage of `iterations`.

    A milestone m halves (by gamma) every update after the m-th. A cosine falls from `base` to
    `lowest` over its period and starts again (Loshchilov & Hutter 2017, equation 5). Warm-up
    multiplies by (step + 1) / warmup.
    """
    rate = base
    if schedule.kind == "multistep":
        rate *= schedule.gamma ** sum(step >= milestone for milestone in schedule.milestones)
    elif schedule.kind == "cosine":
        period = schedule.period or max(1, iterations)
        turn = math.cos(math.pi * (step % period) / period)
        rate = schedule.lowest + (base - schedule.lowest) * (1 + turn) / 2
    return rate * min(1.0, (step + 1) / schedule.warmup) if schedule.warmup else rate
