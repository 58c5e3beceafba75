"""What a run will take, before it starts: disk, time and memory, measured on real steps."""

from __future__ import annotations

import dataclasses
import gc
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from realesr_cli.engine.guard import is_out_of_memory
from realesr_cli.errors import OutOfMemoryError
from realesr_cli.train.config import StageConfig, TrainConfig
from realesr_cli.train.cropping import CropBatch
from realesr_cli.train.data import PinnedCrops, degrade_crops
from realesr_cli.train.files import TrainingImages
from realesr_cli.train.losses import active_losses
from realesr_cli.train.machine import Machine, Stopwatch
from realesr_cli.train.state import new_discriminator, new_generator, new_stage
from realesr_cli.train.step import make_setup, train_step

FLOAT = 4
"""Bytes of a number in a checkpoint."""

SHEET_BYTES = 600_000
"""Typical size of a row of a sample sheet as PNG."""

MEASURED_STEPS = 5
"""Warm steps whose median is the estimate."""

TIME_LIMIT = 20.0
"""Seconds after which no further step is measured."""

MIN_PATCH = 16
"""Patches in LQ pixels below this are not tried."""


@dataclass(frozen=True)
class TrainingPlan:
    """The size of a run; sizes in bytes."""

    network: str
    parameters: int
    discriminator: str
    discriminator_parameters: int
    images: int
    megapixels: float
    held_out: int
    batch: int
    """Samples per step in one process."""
    steps: int
    checkpoint: int
    disk: int
    free: int


def make_plan(config: TrainConfig, images: TrainingImages, out: Path) -> TrainingPlan:
    """Return the plan of a run in a folder; nothing is computed or written."""
    parameters = config.architecture.count_parameters()
    adversarial = [n for n, stage in enumerate(config.stages) if stage.adversarial]
    discriminator = 0
    if adversarial:
        with torch.device("meta"):
            net = new_discriminator(config, adversarial[0])
        discriminator = sum(p.numel() for p in net.parameters())
    checkpoint = checkpoint_bytes(config, parameters, discriminator)
    return TrainingPlan(
        network=config.architecture.describe(),
        parameters=parameters,
        discriminator=config.discriminator.kind if adversarial else "",
        discriminator_parameters=discriminator,
        images=len(images.train),
        megapixels=sum(p.height * p.width for p in images.train) / 1e6,
        held_out=len(images.validation),
        batch=config.data.batch * config.data.accumulate,
        steps=config.total_steps,
        checkpoint=checkpoint,
        disk=disk_bytes(config, parameters, checkpoint, samples=len(images.validation)),
        free=shutil.disk_usage(_existing_parent(out)).free,
    )


def checkpoint_bytes(config: TrainConfig, parameters: int, discriminator: int) -> int:
    """Return the size of a checkpoint: weights, average, two Adam moments each, and the pool."""
    side, scale = config.data.patch, config.scale
    pair = 3 * side**2 * (1 + 2 * scale**2)
    return FLOAT * (4 * parameters + 3 * discriminator + config.degradation.pool * pair)


def disk_bytes(config: TrainConfig, parameters: int, checkpoint: int, *, samples: int) -> int:
    """Return the peak disk usage: checkpoints kept and one being written, model, sample sheets."""
    kept = config.checkpoints.keep + 2
    every = config.validation.every
    sheets = sum(1 + stage.iterations // every for stage in config.stages) if every else 0
    rows = config.validation.sheet if samples else 0
    model = FLOAT * parameters * (3 if config.checkpoints.pth else 1)
    return kept * checkpoint + model + sheets * rows * SHEET_BYTES


def describe_stage(stage: StageConfig) -> str:
    """Return a stage in one line: steps, losses, learning rate."""
    losses = [
        f"{spec.label(config)} x {config.weight:g}" for _, spec, config in active_losses(stage)
    ]
    rate = f"lr {stage.optimizer.lr:g}, {stage.schedule.kind}"
    return f"{stage.iterations:,} steps, {' + '.join(losses)}, {rate}"


def _existing_parent(path: Path) -> Path:
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path


@dataclass(frozen=True)
class StepCost:
    """Seconds per step of a stage (median, fastest and slowest), degradation included."""

    seconds: float
    fastest: float
    slowest: float
    peak_bytes: int | None
    """Peak of accelerator memory; None on a CPU."""


def measure_step(config: TrainConfig, machine: Machine, stage: int) -> StepCost:
    """Measure warm steps of a stage on random images, with throwaway networks.

    On a CPU a single sample is measured and multiplied where a whole batch would take long. The
    first step allocates and selects algorithms, so it counts only where it is the only one. Raises
    the device's out-of-memory error where a step does not fit.
    """
    batch = config.data.batch
    count = 1 if machine.device.type == "cpu" else batch
    run = trial_step(config, machine, stage=stage, batch=count, patch=config.data.patch)
    times = [_measure(run)]
    if count < batch and times[0] * batch < TIME_LIMIT / MEASURED_STEPS:
        count = batch
        run = trial_step(config, machine, stage=stage, batch=count, patch=config.data.patch)
        times = [_measure(run)]
    began = time.perf_counter() - times[0]
    while len(times) <= MEASURED_STEPS and time.perf_counter() - began < TIME_LIMIT:
        times.append(_measure(run))
    warm = [t * batch / count * config.data.accumulate for t in times[1:] or times]
    return StepCost(statistics.median(warm), min(warm), max(warm), machine.peak_memory())


def _measure(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def trial_step(
    config: TrainConfig, machine: Machine, *, stage: int, batch: int, patch: int
) -> Callable[[], None]:
    """Return a function that runs one training step on random images and discards the results."""
    data = dataclasses.replace(config.data, batch=batch, patch=patch)
    config = dataclasses.replace(
        config, data=data, degradation=dataclasses.replace(config.degradation, pool=0)
    )
    settings = config.stages[stage]
    state = new_stage(config, machine, stage=stage, generator=new_generator(config))
    networks = {
        name: spec.build(loss).to(machine.device)
        for name, spec, loss in active_losses(settings)
        if spec.build is not None
    }
    setup = make_setup(config, machine, state, networks=networks)
    rng = np.random.default_rng(0)

    def run() -> None:
        crops = PinnedCrops.of(_random_crops(config, rng), machine)
        pair = degrade_crops(crops, config, machine)
        train_step(state, setup, [pair], Stopwatch(machine))
        machine.synchronize()

    return run


def _random_crops(config: TrainConfig, rng: np.random.Generator) -> CropBatch:
    count, patch, synthetic = config.data.batch, config.data.patch, config.data.synthetic

    def draw(side: int) -> np.ndarray:
        return rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)

    side = config.data.crop(config.scale, paired=not synthetic)
    if synthetic:
        return CropBatch(draw(side), None, None, rng)
    return CropBatch(None, draw(side), draw(patch), rng)


@dataclass(frozen=True)
class Fit:
    """What fits in memory: samples per pass, passes per step, patch side in LQ pixels."""

    batch: int
    accumulate: int
    patch: int

    def __str__(self) -> str:
        return (
            f"data.batch={self.batch}, data.accumulate={self.accumulate}, data.patch={self.patch}"
        )


Trial = Callable[[int, int], object]
"""Runs whole steps with a batch and patch; an out-of-memory error says that they do not fit."""


def fits(trial: Trial, batch: int, patch: int) -> bool:
    """Return whether steps with this batch and patch fit in memory."""
    try:
        trial(batch, patch)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def largest_fit(trial: Trial, *, batch: int, accumulate: int, patches: Sequence[int]) -> Fit | None:
    """Return the largest divisor of the batch that fits; accumulation keeps the effective batch.

    Where not even one sample of the first patch fits, the next patches are tried. None where
    nothing fits.
    """
    for patch in patches:
        for size in sorted((n for n in range(1, batch + 1) if batch % n == 0), reverse=True):
            if fits(trial, size, patch):
                return Fit(size, accumulate * batch // size, patch)
    return None


def smaller_patches(patch: int) -> tuple[int, ...]:
    """Return the patch and its halves down to the smallest, all but the first multiples of 8."""
    found = [patch]
    while found[-1] // 16 * 8 >= MIN_PATCH:
        found.append(found[-1] // 16 * 8)
    return tuple(found)


def find_fit(config: TrainConfig, machine: Machine, trial: Trial | None = None) -> Fit | None:
    """Return the largest batch, or else patch, whose steps fit in memory; None if nothing does."""
    fixed = config.discriminator.kind == "vgg" and any(s.adversarial for s in config.stages)
    patch = config.data.patch
    return largest_fit(
        trial or memory_trial(config, machine),
        batch=config.data.batch,
        accumulate=config.data.accumulate,
        patches=(patch,) if fixed else smaller_patches(patch),
    )


def memory_trial(config: TrainConfig, machine: Machine) -> Trial:
    """Return a function that runs two steps of each stage with a given batch and patch."""

    def run_two_steps(stage: int, batch: int, patch: int) -> None:
        run = trial_step(config, machine, stage=stage, batch=batch, patch=patch)
        # Two, because the first step creates the optimizer's moments.
        run()
        run()

    def trial(batch: int, patch: int) -> None:
        for stage in range(len(config.stages)):
            try:
                run_two_steps(stage, batch, patch)
            finally:
                gc.collect()
                if machine.device.type == "cuda":
                    torch.cuda.empty_cache()

    return trial


def fit_batch(config: TrainConfig, machine: Machine, trial: Trial | None = None) -> TrainConfig:
    """Return the configuration with a batch that fits; accumulation keeps the effective batch.

    Raises OutOfMemoryError, with the patch that would fit, where not even one sample does.
    """
    fit = find_fit(config, machine, trial)
    if fit is None or fit.patch != config.data.patch:
        raise OutOfMemoryError(
            f"not even one sample of patch {config.data.patch} fits in memory. {describe_fit(fit)}"
        )
    data = dataclasses.replace(config.data, batch=fit.batch, accumulate=fit.accumulate)
    return dataclasses.replace(config, data=data)


def propose_fit(config: TrainConfig, machine: Machine, trial: Trial | None = None) -> str:
    """Return a sentence that says what to change after memory ran out."""
    smaller = config
    if config.data.batch > 1:
        # The batch that ran out does not fit in the whole run, even if it should fit alone.
        half = max(n for n in range(1, config.data.batch) if config.data.batch % n == 0)
        more = config.data.accumulate * config.data.batch // half
        smaller = dataclasses.replace(
            config, data=dataclasses.replace(config.data, batch=half, accumulate=more)
        )
    return describe_fit(find_fit(smaller, machine, trial))


def describe_fit(fit: Fit | None) -> str:
    """Return a sentence that names what fits."""
    if fit is None:
        return f"No patch of {MIN_PATCH} or more fits; use a smaller network or another device"
    return f"These settings fit: {fit}"
