"""One step on made-up images: how long it takes, how much memory, and what fits."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from realesr_cli.degrade.pairs import Pair
from realesr_cli.errors import OutOfMemoryError
from realesr_cli.nets.features import BACKBONES
from realesr_cli.train.config import PerceptualConfig, TrainConfig
from realesr_cli.train.distributed import ALONE
from realesr_cli.train.fit import Fit, Trial, largest_fit, smaller_patches
from realesr_cli.train.losses import PerceptualLoss
from realesr_cli.train.machine import Machine
from realesr_cli.train.state import TrainState, new_generator, new_stage
from realesr_cli.train.step import Setup, update_discriminator, update_generator

LONG_STEP = 20.0
"""Seconds from which a first step is not repeated to be measured."""


@dataclass(frozen=True)
class StepCost:
    """What a step of a stage takes, without reading and degrading images."""

    seconds: float
    peak_bytes: int | None
    """Most memory held on the accelerator; None on a CPU."""


def step_cost(config: TrainConfig, machine: Machine, stage: int) -> StepCost:
    """Measure steps of a stage with throwaway networks.

    On a CPU one sample is measured and multiplied, as a whole batch could take minutes. The first
    step allocates and chooses algorithms, so it counts only where it took long anyway. Raises the
    device's out-of-memory error where a step does not fit.
    """
    count = 1 if machine.device.type == "cpu" else config.data.batch
    run = _trial_step(config, machine, stage=stage, batch=count, patch=config.data.patch)
    seconds = _timed(run)
    if seconds < LONG_STEP:
        seconds = _timed(run)
    per_step = seconds * config.data.batch / count * config.data.accumulate
    return StepCost(per_step, machine.peak_memory())


def _timed(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def dearest_stage(config: TrainConfig) -> int:
    """Number of the stage that needs most memory: the last with a discriminator, else the last."""
    numbers = range(len(config.stages))
    return max(numbers, key=lambda n: (config.stages[n].adversarial, n))


def find_fit(config: TrainConfig, machine: Machine, trial: Trial | None = None) -> Fit | None:
    """The largest batch, or else patch, whose step fits in memory; None where nothing does."""
    fixed = config.discriminator.kind == "vgg" and any(s.adversarial for s in config.stages)
    patch = config.data.patch
    return largest_fit(
        trial or memory_trial(config, machine),
        batch=config.data.batch,
        accumulate=config.data.accumulate,
        patches=(patch,) if fixed else smaller_patches(patch),
    )


def memory_trial(config: TrainConfig, machine: Machine) -> Trial:
    """A function that runs the dearest stage's step twice with a given batch and patch."""

    def trial(batch: int, patch: int) -> None:
        try:
            # Twice, because the optimizer's moments come into being with the first step.
            run = _trial_step(
                config, machine, stage=dearest_stage(config), batch=batch, patch=patch
            )
            run()
            run()
        finally:
            gc.collect()
            if machine.device.type == "cuda":
                torch.cuda.empty_cache()

    return trial


def fitted(config: TrainConfig, machine: Machine, trial: Trial | None = None) -> TrainConfig:
    """The configuration with a batch that fits, accumulation keeping the effective batch.

    Raises OutOfMemory, with the patch that would fit, where not even one sample does.
    """
    fit = find_fit(config, machine, trial)
    if fit is None or fit.patch != config.data.patch:
        raise OutOfMemoryError(
            f"not even one sample of patch {config.data.patch} fits in memory. {proposal(fit)}"
        )
    data = dataclasses.replace(config.data, batch=fit.batch, accumulate=fit.accumulate)
    return dataclasses.replace(config, data=data)


def propose_fit(config: TrainConfig, machine: Machine, trial: Trial | None = None) -> str:
    """What to change after memory ran out, as a sentence."""
    smaller = config
    if config.data.batch > 1:
        # What was tried does not fit in the whole run, even if it should fit alone.
        half = max(n for n in range(1, config.data.batch) if config.data.batch % n == 0)
        more = config.data.accumulate * config.data.batch // half
        smaller = dataclasses.replace(
            config, data=dataclasses.replace(config.data, batch=half, accumulate=more)
        )
    return proposal(find_fit(smaller, machine, trial))


def proposal(fit: Fit | None) -> str:
    """A sentence that names what fits."""
    if fit is None:
        return "No patch of 16 or more fits either: take a smaller network or another device"
    return f"This fits: {fit.settings} (or --batch-size auto)"


def _trial_step(
    config: TrainConfig, machine: Machine, *, stage: int, batch: int, patch: int
) -> Callable[[], None]:
    """A function that does one whole step on random images; results are thrown away."""
    settings = config.stages[stage]
    state = new_stage(config, machine, stage=stage, generator=new_generator(config))
    setup = Setup(
        stage=settings,
        machine=machine,
        world=ALONE,
        generator=state.generator,
        discriminator=state.discriminator,
        perceptual=random_perceptual(settings.perceptual, machine),
        ema_decay=config.ema.decay,
    )
    side = patch * config.scale
    lq = torch.rand(batch, 3, patch, patch, device=machine.device)
    gt = torch.rand(batch, 3, side, side, device=machine.device)
    pair = Pair(lq, gt, gt)

    def run() -> None:
        _one_step(state, setup, pair)
        machine.synchronize()

    return run


def _one_step(state: TrainState, setup: Setup, pair: Pair) -> None:
    outcome = update_generator(state, setup, [pair])
    if state.discriminator is not None:
        update_discriminator(state, setup, [pair], outcome.fakes)


def random_perceptual(config: PerceptualConfig, machine: Machine) -> PerceptualLoss | None:
    """The perceptual loss with random weights, which cost as much as the real ones."""
    if not config.weight:
        return None
    weights = config.by_layer()
    return PerceptualLoss(BACKBONES[config.backbone](list(weights)), weights).to(machine.device)
