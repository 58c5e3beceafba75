"""The training loop: stages of steps, with validation and checkpoints between them."""

from __future__ import annotations

import functools
import gc
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from realesr_cli.engine.guard import is_out_of_memory
from realesr_cli.errors import CancelledError, OutOfMemoryError
from realesr_cli.progress import Progress, StopRequested, never, no_progress
from realesr_cli.train.checkpoint import restore
from realesr_cli.train.checkpoint_manager import CheckpointManager
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.cropping import Crops
from realesr_cli.train.data import Batches
from realesr_cli.train.events import Listener, Notice, StageStarted, StepDone, ignore_event
from realesr_cli.train.loggers import MetricsLog
from realesr_cli.train.losses import active_losses
from realesr_cli.train.machine import Stopwatch
from realesr_cli.train.monitors import watch_discriminator
from realesr_cli.train.networks import StartNetworks
from realesr_cli.train.plan import propose_fit
from realesr_cli.train.session import Session
from realesr_cli.train.state import TrainProgress, TrainState, new_stage, undo_on_error
from realesr_cli.train.step import (
    StageSetup,
    StepResult,
    apply_gradients,
    compute_gradients,
    is_healthy,
    make_setup,
)
from realesr_cli.train.validation import Validator
from realesr_cli.weights.locate import RUN_FILE


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves: the file of its generator, and scores by name.

    `best` are those of the file, `stage_start` of the weights its last stage started from,
    `run_start` of those the run started from; empty without validation.
    """

    generator: Path
    steps: int
    run_start: dict[str, float]
    stage_start: dict[str, float]
    best: dict[str, float]


@dataclass(frozen=True)
class _Run:
    """A session that is being trained."""

    session: Session
    networks: StartNetworks
    crops: Crops
    validator: Validator | None
    listener: Listener
    stop_requested: StopRequested


def train(
    session: Session,
    *,
    listener: Listener = ignore_event,
    stop_requested: StopRequested = never,
    progress: Progress = no_progress,
) -> TrainResult:
    """Train a session from its first step, or from its checkpoint, to the end of its last stage.

    `stop_requested` is asked after each step; `progress` counts downloaded bytes. Raises what
    `Session.load_networks` raises, CancelledError when asked to stop (a checkpoint is saved first),
    DivergedError, WeightsWriteError when a checkpoint cannot be saved, and OutOfMemoryError that
    names the largest batch that fits.
    """
    config = session.config
    networks = session.load_networks(progress)
    validator = make_validator(session, networks)
    crops = Crops(session.images.train, config.data, scale=config.scale, seed=config.seed)
    session.make_folder()
    if session.world.first:
        for text in session.notices():
            listener(Notice(text))
    session.world.wait()
    try:
        return _train(_Run(session, networks, crops, validator, listener, stop_requested))
    except Exception as error:
        if not is_out_of_memory(error) or isinstance(error, OutOfMemoryError):
            raise
        reason = str(error).splitlines()[0]
    finally:
        crops.close()
    # Outside the handler, whose traceback would keep the failed step's tensors alive.
    raise _out_of_memory(session, reason)


def _train(run: _Run) -> TrainResult:
    """Train the stages in order; each starts from the average of the one before."""
    session, stages = run.session, run.session.config.stages
    generator, progress = run.networks.generator, TrainProgress()
    for number in range(session.first_stage, len(stages)):
        state, setup = _start_stage(run, number, generator, progress)
        _train_stage(run, state, setup)
        generator.load_state_dict(state.averaged.state_dict())
        progress = state.progress
    return TrainResult(
        session.out / RUN_FILE,
        session.config.total_steps,
        progress.run_start,
        progress.stage_start,
        progress.best,
    )


def _train_stage(run: _Run, state: TrainState, setup: StageSetup) -> None:
    """Train from where the state is to the end of the stage; nothing if it is there already."""
    session, stage = run.session, setup.stage
    config, world, machine = session.config, session.world, session.machine
    before = config.steps_before(state.progress.stage)
    steps = range(before + state.progress.step, before + stage.iterations)
    if not steps:
        return
    run.listener(_stage_started(session, state))
    streams = world.streams(config.data.accumulate)
    with (
        MetricsLog(session.out, config, resumed_at=steps[0], enabled=world.first) as log,
        Batches(
            run.crops, config, machine, pool=state.pool, steps=steps, streams=streams
        ) as batches,
    ):
        manager = CheckpointManager(session, state, run.validator, log, run.listener)
        manager.before_first_step()
        with manager.save_on_error():
            for step in steps:
                upcoming = replace(state.progress, step=state.progress.step + 1)
                watch = Stopwatch(machine, precise=_is_logged(config, upcoming))
                with undo_on_error(state):
                    pairs = batches.take(step, watch)
                    gradients = compute_gradients(state, setup, pairs, watch)
                result = apply_gradients(state, setup, gradients)
                _advance(state, result)
                _report(run, state, result, watch, log)
                stopping = world.any(run.stop_requested())
                healthy = functools.partial(is_healthy, state, setup, pairs[0])
                manager.after_step(healthy, stopping=stopping)
                if stopping and step != steps[-1]:
                    raise CancelledError(f"stopped after step {state.progress.step:,}")


def _start_stage(
    run: _Run, number: int, generator: nn.Module, previous: TrainProgress
) -> tuple[TrainState, StageSetup]:
    """Return the state of a stage at its start or at the session's checkpoint, and its setup."""
    session, networks = run.session, run.networks
    config, machine, checkpoint = session.config, session.machine, session.checkpoint
    state = new_stage(
        config,
        machine,
        stage=number,
        generator=generator,
        discriminator=networks.discriminators.get(number),
    )
    state.progress = replace(state.progress, run_start=previous.run_start)
    if checkpoint is not None and checkpoint.progress.stage == number:
        restore(state, checkpoint)
    frozen = {
        name: networks.losses[loss].to(machine.device)
        for name, _, loss in active_losses(config.stages[number])
        if loss in networks.losses
    }
    return state, make_setup(config, machine, state, networks=frozen, world=session.world)


def make_validator(session: Session, networks: StartNetworks) -> Validator | None:
    """Return the validator of a run, or None where there is nothing to validate with.

    If the perceptual distance is that of a loss, it is the last stage's, so that scores of all
    stages are comparable.
    """
    config, images = session.config, session.images.validation
    if not config.validation.every or not images:
        return None
    perceptual = networks.distance or networks.losses.get(config.stages[-1].perceptual)
    if perceptual is not None:
        perceptual.to(session.machine.device)
    return Validator(images, config, perceptual=perceptual)


def _stage_started(session: Session, state: TrainState) -> StageStarted:
    stages, progress = session.config.stages, state.progress
    stage = stages[progress.stage]
    return StageStarted(
        stage.name, progress.stage + 1, len(stages), progress.step, stage.iterations
    )


def _is_logged(config: TrainConfig, progress: TrainProgress) -> bool:
    """Return whether a step is logged: every so many, at least 20 times, and the last one."""
    iterations = config.stages[progress.stage].iterations
    every = min(config.runtime.log_every, max(1, iterations // 20))
    return progress.step % every == 0 or progress.step == iterations


def _advance(state: TrainState, result: StepResult) -> None:
    """Count a step."""
    progress = state.progress
    state.progress = replace(
        progress,
        step=progress.step + 1,
        skipped=progress.skipped + 1 if result.skipped else 0,
    )


def _report(
    run: _Run, state: TrainState, result: StepResult, watch: Stopwatch, log: MetricsLog
) -> None:
    """Report a step to the listener, log it now and then, and watch the discriminator."""
    config, progress = run.session.config, state.progress
    stage = config.stages[progress.stage]
    total = config.steps_before(progress.stage) + progress.step
    run.listener(
        StepDone(
            stage=stage.name,
            step=progress.step,
            iterations=stage.iterations,
            total=total,
            total_steps=config.total_steps,
            losses=result.losses,
            stats=result.stats,
            duration=watch.total,
            seconds=watch.seconds,
            skipped=result.skipped,
        )
    )
    if result.skipped or _is_logged(config, progress):
        times = {f"s_{part}": round(spent, 5) for part, spent in watch.seconds.items()}
        values = {"stage": stage.name, "step": progress.step, **result.losses, **result.stats}
        log.write("skipped" if result.skipped else "step", total, values | times)
    if "discriminator" in result.losses and not result.skipped:
        logits, message = watch_discriminator(progress.logits, result.stats)
        state.progress = replace(progress, logits=logits)
        if message:
            run.listener(Notice(message))


def _out_of_memory(session: Session, reason: str) -> OutOfMemoryError:
    """Free what can be freed, and return the error that says what fits."""
    gc.collect()
    if session.machine.device.type == "cuda":
        torch.cuda.empty_cache()
    proposal = propose_fit(session.config, session.machine)
    return OutOfMemoryError(f"out of memory while training ({reason}). {proposal}")
