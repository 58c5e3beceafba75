"""The order of things: stages of steps, with validation and checkpoints between them."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from realesr_cli.engine.guard import is_out_of_memory
from realesr_cli.errors import CancelledError, OutOfMemoryError
from realesr_cli.train.checkpoint import restore
from realesr_cli.train.checkpoint_manager import CheckpointManager
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.cost import propose_fit
from realesr_cli.train.data import CropBatch
from realesr_cli.train.events import Note, StageBegun, StepDone
from realesr_cli.train.initialization import starting_discriminator
from realesr_cli.train.log import Log, open_log
from realesr_cli.train.machine import Machine, Stopwatch
from realesr_cli.train.monitors import watch_discriminator
from realesr_cli.train.prefetch import Prefetcher, step_keys
from realesr_cli.train.session import RunContext, Session, open_session, survey
from realesr_cli.train.state import TrainState, new_stage, set_rates
from realesr_cli.train.step import (
    Outcome,
    Setup,
    generate,
    update_discriminator,
    update_generator,
)
from realesr_cli.weights.locate import RUN_FILE


@dataclass(frozen=True)
class Result:
    """What a finished run leaves: its generator's file and how that scores.

    Scores by name: `best` those of the file, `baseline` of the weights its last stage started
    from, `origin` of those the run did; empty without validation.
    """

    generator: Path
    steps: int
    origin: dict[str, float]
    baseline: dict[str, float]
    best: dict[str, float]


def train(
    config: TrainConfig,
    out: Path,
    machine: Machine,
    caller: RunContext,
    *,
    resume: bool = False,
) -> Result:
    """Train all stages of a configuration in the folder `out`.

    Raises what `survey`, `open_session` and `train_session` raise.
    """
    return train_session(open_session(survey(config, out, machine, caller, resume=resume)))


def train_session(session: Session) -> Result:
    """Train a session from where it stands to the end of its last stage.

    Raises Cancelled when asked to stop (a checkpoint is saved first), Diverged, WeightsWriteError
    when a checkpoint cannot be saved, and OutOfMemory that names the largest batch that fits.
    """
    config, machine = session.config, session.machine
    session.begin()
    try:
        return _train(session)
    except Exception as error:
        if not is_out_of_memory(error) or isinstance(error, OutOfMemoryError):
            raise
        reason = str(error).splitlines()[0]
    finally:
        session.crops.close()
    # Outside the handler, whose traceback would keep the failed step's tensors alive.
    gc.collect()
    if machine.device.type == "cuda":
        torch.cuda.empty_cache()
    raise OutOfMemoryError(
        f"out of memory while training ({reason}). {propose_fit(config, machine)}"
    )


def _train(session: Session) -> Result:
    generator, progress = session.generator, None
    for number in range(session.first_stage, len(session.config.stages)):
        state, setup = _begin(session, number, generator)
        if progress is not None:
            state.progress.origin = progress.origin
        _run_stage(session, state, setup)
        generator, progress = _successor(state.ema, generator), state.progress
    assert progress is not None
    return Result(
        session.out / RUN_FILE,
        session.before(number + 1),
        progress.origin,
        progress.baseline,
        progress.best,
    )


def _successor(ema: nn.Module, generator: nn.Module) -> nn.Module:
    """The next stage's start: the averaged weights of this one."""
    generator.load_state_dict(ema.state_dict())
    return generator


def _begin(session: Session, number: int, generator: nn.Module) -> tuple[TrainState, Setup]:
    """The state of a stage at its start or where the checkpoint left it, and its setup."""
    config, machine, caller = session.config, session.machine, session.caller
    stage, resumed = config.stages[number], session.resumed
    judge = starting_discriminator(config, number, caller.download) if stage.adversarial else None
    state = new_stage(config, machine, stage=number, generator=generator, discriminator=judge)
    if resumed is not None and resumed.progress.stage == number:
        restore(state, resumed.progress, resumed.parts, resumed.path)
    perceptual = session.perceptual[stage.perceptual]
    world, net = caller.world, state.generator
    setup = Setup(
        stage=stage,
        machine=machine,
        world=world,
        generator=world.wrap(net, machine.device),
        discriminator=(
            world.wrap(state.discriminator, machine.device) if state.discriminator else None
        ),
        perceptual=perceptual.to(machine.device) if perceptual is not None else None,
        ema_decay=config.ema.decay,
    )
    return state, setup


def _run_stage(session: Session, state: TrainState, setup: Setup) -> None:
    """Steps from where the state is to the end of the stage; nothing if it is there already."""
    config, progress, caller = session.config, state.progress, session.caller
    begun, iterations = session.before(progress.stage), setup.stage.iterations
    if progress.step >= iterations:
        return
    caller.listener(_stage_begun(session, state))
    streams = caller.world.streams(config.data.accumulate)
    keys = step_keys(begun + progress.step, begun + iterations, streams)
    with (
        open_log(session.out, begun + progress.step, config.runtime, caller.world) as log,
        Prefetcher(session.crops.batch, keys, config.data.prefetch) as prefetcher,
    ):
        keeper = CheckpointManager(session, state, log)
        keeper.before_first_step()
        while progress.step < iterations:
            watch = Stopwatch(session.machine)
            crops = [prefetcher.take(begun + progress.step, stream) for stream in streams]
            watch.mark("data")
            outcome = _step(session, state, setup, crops, watch)
            progress.step += 1
            progress.skipped = progress.skipped + 1 if outcome.skipped else 0
            _announce(session, state, outcome, watch, log)
            keeper.check_skipped()
            stopping = caller.world.any(caller.stop(), session.machine.device)
            keeper.after_step(stopping=stopping)
            if stopping and progress.step < iterations:
                raise CancelledError(f"stopped and saved; go on with --resume --out {session.out}")


def _step(
    session: Session, state: TrainState, setup: Setup, crops: list[CropBatch], watch: Stopwatch
) -> Outcome:
    """Degrade, update the generator, update the discriminator."""
    stage, step = setup.stage, state.progress.step
    rates = set_rates(state, stage, step)
    pairs = [session.pair(state, batch) for batch in crops]
    watch.mark("degradation")
    if stage.adversarial and step < stage.gan.warmup:
        outcome = Outcome(fakes=generate(setup, pairs))
    else:
        outcome = update_generator(state, setup, pairs)
    watch.mark("generator")
    losses = outcome.losses | rates
    skipped = outcome.skipped
    if stage.adversarial and not skipped:
        judged = update_discriminator(state, setup, pairs, outcome.fakes)
        losses, skipped = losses | judged.losses, judged.skipped
        watch.mark("discriminator")
    return Outcome(losses, skipped)


def _stage_begun(session: Session, state: TrainState) -> StageBegun:
    progress, stages = state.progress, session.config.stages
    stage = stages[progress.stage]
    return StageBegun(stage.name, progress.stage + 1, len(stages), progress.step, stage.iterations)


def _announce(
    session: Session, state: TrainState, outcome: Outcome, watch: Stopwatch, log: Log | None
) -> None:
    """Tell the caller of a step, write a line now and then, and watch the discriminator."""
    config, progress = session.config, state.progress
    stage = config.stages[progress.stage]
    total = session.before(progress.stage) + progress.step
    event = StepDone(
        stage=stage.name,
        step=progress.step,
        iterations=stage.iterations,
        total=total,
        of=session.before(len(config.stages)),
        losses=outcome.losses,
        seconds=watch.seconds,
        skipped=outcome.skipped,
    )
    session.caller.listener(event)
    last = progress.step == stage.iterations
    if log is not None and (
        last or outcome.skipped or progress.step % config.runtime.log_every == 0
    ):
        times = {f"s_{part}": round(spent, 5) for part, spent in watch.seconds.items()}
        values = {"stage": stage.name, "step": progress.step, **outcome.losses, **times}
        log.write("skipped" if outcome.skipped else "step", total, values)
    if "discriminator" in outcome.losses and not outcome.skipped:
        message = watch_discriminator(progress, outcome.losses)
        if message:
            session.caller.listener(Note(message))
