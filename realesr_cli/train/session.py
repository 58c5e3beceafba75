"""All that a run needs before its first step, checked and at hand: folder, images, networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from realesr_cli.atomic import atomic_write_bytes
from realesr_cli.degrade.pairs import Pair, PairPlan, make_pairs
from realesr_cli.errors import ConfigError, ResumeMismatchError, TrainingError
from realesr_cli.text import format_names
from realesr_cli.train.checkpoint import checkpoints, read_checkpoint
from realesr_cli.train.config import PerceptualConfig, TrainConfig
from realesr_cli.train.data import CropBatch, Crops
from realesr_cli.train.distributed import ALONE, World
from realesr_cli.train.events import Listener, Note, nobody
from realesr_cli.train.files import TrainingImages, gather
from realesr_cli.train.initialization import (
    starting_discriminator,
    starting_generator,
    starting_perceptual,
)
from realesr_cli.train.log import FILE as LOG_FILE
from realesr_cli.train.losses import PerceptualLoss
from realesr_cli.train.machine import Machine
from realesr_cli.train.recipes import config_toml, differences
from realesr_cli.train.state import TrainProgress, TrainState
from realesr_cli.train.validation import Scene, prepare_scenes

CONFIG_FILE = "config.toml"

HARMLESS = (
    "checkpoints.", "runtime.device", "runtime.log_every", "runtime.tensorboard",
    "data.workers", "data.prefetch", "validation.sheet", "validation.best",
    "validation.stop_if_worse", "validation.tolerance",
)  # fmt: skip
"""Settings that a resumed run may change: they alter neither what is learned nor its scores."""


@dataclass(frozen=True)
class RunContext:
    """Who runs a training: where events go, whether to stop, and which process this is."""

    listener: Listener = nobody
    stop: Callable[[], bool] = lambda: False
    world: World = ALONE
    accept_changes: bool = False
    """Resume although settings differ from those the run was made with."""
    download: Callable[[int, int], None] | None = None
    """Progress of fetching weights, in bytes."""
    looking: Callable[[int, int], None] | None = None
    """Progress of looking at images, in files."""


@dataclass(frozen=True)
class Resumed:
    """A checkpoint to go on from."""

    path: Path
    progress: TrainProgress
    parts: dict[str, Any]


@dataclass(frozen=True)
class PreparedRun:
    """A run as far as it is known without any network: its images, and where it goes on."""

    config: TrainConfig
    out: Path
    machine: Machine
    caller: RunContext
    images: TrainingImages
    resumed: Resumed | None


@dataclass(frozen=True)
class Session:
    """A run that is ready to start."""

    config: TrainConfig
    out: Path
    machine: Machine
    caller: RunContext
    images: TrainingImages
    crops: Crops
    scenes: tuple[Scene, ...]
    generator: nn.Module
    """Where the first stage starts; a resumed run's weights replace it."""
    perceptual: dict[PerceptualConfig, PerceptualLoss | None]
    resumed: Resumed | None

    @property
    def first_stage(self) -> int:
        """Number of the stage to start or go on with."""
        return self.resumed.progress.stage if self.resumed else 0

    def before(self, stage: int) -> int:
        """Steps of all stages before this one."""
        return sum(s.iterations for s in self.config.stages[:stage])

    def begin(self) -> None:
        """Make the folder and write down the configuration; the first file of a run."""
        if self.caller.world.first:
            self.out.mkdir(parents=True, exist_ok=True)
            atomic_write_bytes(self.out / CONFIG_FILE, config_toml(self.config).encode())

    def pair(self, state: TrainState, batch: CropBatch) -> Pair:
        """Crops to a training batch on the device: degraded, cut, exchanged with the pool."""
        gt = self.machine.images(torch.from_numpy(batch.gt))
        if batch.lq is not None:
            return Pair(self.machine.images(torch.from_numpy(batch.lq)), gt, gt)
        accelerated = self.machine.device.type == "cuda"
        plan = PairPlan(
            scale=self.config.scale,
            patch=self.config.data.patch,
            sharpened_gt=self.config.sharpens,
            noise_device="input" if accelerated else "cpu",
        )
        pair = make_pairs(gt, self.config.degradation, batch.rng, plan)
        return pair if state.pool is None else state.pool.exchange(pair, batch.rng)


def survey(
    config: TrainConfig, out: Path, machine: Machine, caller: RunContext, *, resume: bool
) -> PreparedRun:
    """Look at the run's folder and images; nothing is fetched, computed or written.

    Raises DatasetError, ConfigError, CheckpointFormat, ResumeMismatch, and TrainingError for a
    folder that holds a run already, or none to resume.
    """
    resumed = resumable(config, out, caller) if resume else None
    if not resume:
        _refuse_used(out)
    images = gather(config.data, config.validation, scale=config.scale, report=caller.looking)
    return PreparedRun(config, out, machine, caller, images, resumed)


def open_session(found: PreparedRun) -> Session:
    """Check what else could fail later, and load what the first step needs, fetched if need be.

    Raises ConfigError for networks that do not fit, ModelUnavailable for those that cannot be had,
    what reading them raises, and the ImageError of a validation image that cannot be decoded.
    """
    config, caller, images = found.config, found.caller, found.images
    perceptual = {
        stage.perceptual: starting_perceptual(stage.perceptual, caller.download)
        for stage in config.stages
    }
    for number, stage in enumerate(config.stages):
        if stage.adversarial and config.discriminator.init:
            starting_discriminator(config, number, caller.download)
    generator = starting_generator(
        config if found.resumed is None else _from_scratch(config), caller.download
    )
    crops = Crops(images.train, config.data, scale=config.scale, seed=config.seed)
    scenes = prepare_scenes(images.validation, config) if config.validation.every else ()
    session = Session(
        config, found.out, found.machine, caller, images, crops, scenes, generator, perceptual,
        found.resumed,
    )  # fmt: skip
    if caller.world.first:
        _tell(session)
    caller.world.wait()
    return session


def resumable(config: TrainConfig, out: Path, caller: RunContext) -> Resumed:
    """The newest checkpoint of a run, if it was made with this configuration.

    Raises TrainingError where there is none, CheckpointFormat where it is damaged, and
    ResumeMismatch that lists what differs, unless the caller accepts that.
    """
    found = checkpoints(out)
    if not found:
        raise TrainingError(f"{out}: no checkpoint to resume from; leave out --resume to start")
    path = found[-1]
    old, progress, parts = read_checkpoint(path)
    changed = [line for line in differences(old, config) if not _harmless(line, old, config)]
    if changed and not caller.accept_changes:
        raise ResumeMismatchError(
            f"{out}: the run was made with other settings: {'; '.join(changed)}. Resume it with "
            "its own (--resume --out alone takes them), or say --accept-changes"
        )
    if changed and caller.world.first:
        caller.listener(Note(f"resumed with other settings: {'; '.join(changed)}"))
    return Resumed(path, progress, parts)


def _harmless(line: str, old: TrainConfig, new: TrainConfig) -> bool:
    """Whether a difference may be, among them a longer last stage and rarer validations."""
    last = new.stages[-1]
    depends = last.schedule.kind == "cosine" and not last.schedule.period
    longer = line.startswith(f"stages.{last.name}.iterations:") and not depends
    # With 0 no image is held out, so switching validation on or off changes what is trained on.
    validates = bool(old.validation.every and new.validation.every)
    rarer = line.startswith("validation.every:") and validates
    return longer or rarer or line.startswith(HARMLESS)


def _refuse_used(out: Path) -> None:
    if checkpoints(out) or (out / LOG_FILE).is_file():
        raise TrainingError(f"{out} holds a run already: --resume goes on with it, or name another")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: a file, not a folder")


def _from_scratch(config: TrainConfig) -> TrainConfig:
    """The same without a file to start from: a resumed run has its weights in the checkpoint."""
    return dataclasses.replace(config, generator=dataclasses.replace(config.generator, init=""))


def _tell(session: Session) -> None:
    """Say what was found: files left out, and where there is nothing to validate with."""
    say, found = session.caller.listener, session.images
    if found.left_out:
        names = [f"{item.path.name} ({item.reason})" for item in found.left_out]
        say(Note(f"{len(names)} files cannot be read and are left out: {format_names(names)}"))
    if session.config.validation.every and not session.scenes:
        say(
            Note(
                f"no validation: {len(found.train)} images are too few to hold some out; "
                "give a folder with --val"
            )
        )
    if session.crops.window:
        say(
            Note(
                f"the images do not fit in data.cache = {session.config.data.cache} MiB: crops "
                f"are cut of {session.crops.window} regions at a time, which change as it goes on"
            )
        )
