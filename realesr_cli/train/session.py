"""A run before its first step: its folder, its images, and the networks it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from realesr_cli.atomic import atomic_write_bytes, remove_stale_files
from realesr_cli.errors import ConfigError, ResumeMismatchError, TrainingError
from realesr_cli.nets.discriminators import load_discriminator
from realesr_cli.progress import Progress, no_progress
from realesr_cli.text import format_names
from realesr_cli.train.checkpoint import FOLDER as CHECKPOINTS
from realesr_cli.train.checkpoint import Checkpoint, list_checkpoints
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.cropping import window_size
from realesr_cli.train.distributed import ALONE, World
from realesr_cli.train.files import TrainingImages, find_training_images
from realesr_cli.train.loggers import FILE as LOG_FILE
from realesr_cli.train.losses import LossConfig, active_losses
from realesr_cli.train.machine import Machine
from realesr_cli.train.recipes import config_to_toml, differences
from realesr_cli.train.state import new_discriminator, new_generator
from realesr_cli.weights.checkpoints import read_state
from realesr_cli.weights.fetch import ensure
from realesr_cli.weights.load import OpenedModel, open_model
from realesr_cli.weights.registry import RegistryEntry, cached, find

CONFIG_FILE = "config.toml"
SAMPLES = "samples"

HARMLESS = (
    "checkpoints.", "runtime.device", "runtime.log_every", "runtime.tensorboard",
    "data.workers", "data.prefetch", "validation.sheet", "validation.best",
    "validation.patience", "validation.tolerance",
)  # fmt: skip
"""Settings that a resumed run may change: they alter neither what is learned nor its scores."""


@dataclass(frozen=True)
class Session:
    """A run as far as it is known without any network."""

    config: TrainConfig
    out: Path
    machine: Machine
    images: TrainingImages
    world: World = ALONE
    checkpoint: Checkpoint | None = None
    """Where the run continues; None: at its first step."""

    @property
    def first_stage(self) -> int:
        """Index of the stage to start with or to continue."""
        return self.checkpoint.progress.stage if self.checkpoint else 0

    def make_folder(self) -> None:
        """Create the folder and write the configuration, in the first process only."""
        if self.world.first:
            self.out.mkdir(parents=True, exist_ok=True)
            # What a killed run left in the middle of writing.
            for folder in (self.out, self.out / CHECKPOINTS, self.out / SAMPLES):
                remove_stale_files(folder)
            atomic_write_bytes(self.out / CONFIG_FILE, config_to_toml(self.config).encode())

    def notices(self) -> list[str]:
        """Return what the user should know before the first step."""
        config, images, found = self.config, self.images, []
        if images.excluded:
            names = [f"{item.path.name} ({item.reason})" for item in images.excluded]
            found.append(
                f"{len(names)} files cannot be read and are skipped: {format_names(names)}"
            )
        if config.validation.every and not images.validation:
            found.append(
                f"no validation: {len(images.train)} images are too few to hold some out; set "
                "validation.gt to a folder of other images"
            )
        window = window_size(images.train, config.data, config.scale) if images.train else 0
        if window:
            found.append(
                f"the images exceed data.cache = {config.data.cache} MiB: crops are cut from a "
                f"sliding window of {window} decoded regions"
            )
        return found


@dataclass(frozen=True)
class Resume:
    """Continue the run in a folder: from its checkpoint, or from the start if it has none yet."""

    checkpoint: Checkpoint | None = None


def open_session(
    config: TrainConfig,
    out: Path,
    machine: Machine,
    *,
    world: World = ALONE,
    resume: Resume | None = None,
    progress: Progress = no_progress,
) -> Session:
    """Check the folder and find the images of a run; nothing is fetched, computed or written.

    Without `resume` the folder must not contain a run. `progress` counts files. Raises
    DatasetError, ConfigError, ResumeMismatchError for a checkpoint of a run with other settings,
    and TrainingError for a folder that contains a run.
    """
    checkpoint = resume.checkpoint if resume is not None else None
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; expected a folder for the run")
    if resume is None and (list_checkpoints(out) or (out / LOG_FILE).is_file()):
        raise TrainingError(f"{out} already contains a run", advice="resume-or-rename")
    changes = changed_settings(checkpoint, config) if checkpoint is not None else []
    if changes:
        raise ResumeMismatchError(
            f"{out}: the run was started with other settings: {'; '.join(changes)}",
            advice="accept-changes",
        )
    images = find_training_images(
        config.data, config.validation, scale=config.scale, progress=progress
    )
    return Session(config, out, machine, images, world, checkpoint)


def changed_settings(checkpoint: Checkpoint, config: TrainConfig) -> list[str]:
    """Return the settings that differ from those of a checkpoint, except for harmless ones."""
    old = checkpoint.config
    return [line for line in differences(old, config) if not _is_harmless(line, old, config)]


def _is_harmless(line: str, old: TrainConfig, new: TrainConfig) -> bool:
    """Return whether a setting may change, as may a longer last stage and rarer validations."""
    last = new.stages[-1]
    depends = last.schedule.kind == "cosine" and not last.schedule.period
    longer = line.startswith(f"stages.{last.name}.iterations:") and not depends
    # Without validation no image is held out, so switching it changes what is trained on.
    validates = bool(old.validation.every and new.validation.every)
    rarer = line.startswith("validation.every:") and validates
    return longer or rarer or line.startswith(HARMLESS)


@dataclass(frozen=True)
class StartNetworks:
    """The networks a run starts from.

    `discriminators` are those of `discriminator.init` by stage; a stage without one starts from
    random weights. `losses` are the frozen networks of losses by their settings.
    """

    generator: nn.Module
    discriminators: Mapping[int, nn.Module]
    losses: Mapping[LossConfig, nn.Module]


def load_networks(session: Session, progress: Progress = no_progress) -> StartNetworks:
    """Load every network that a run starts from, downloaded if needed.

    `progress` counts bytes. Raises ConfigError for networks that do not fit the run,
    ModelUnavailableError for those that cannot be had, and what reading them raises.
    """
    config = session.config
    losses = {
        loss: spec.load(loss, progress)
        for stage in config.stages
        for _, spec, loss in active_losses(stage)
        if spec.load is not None
    }
    discriminators = {
        number: load_start_discriminator(config, number, progress)
        for number, stage in enumerate(config.stages)
        if stage.adversarial and config.discriminator.init and number >= session.first_stage
    }
    # A resumed run has its weights in the checkpoint.
    resumed = session.checkpoint is not None
    generator = new_generator(config) if resumed else load_start_generator(config, progress)
    return StartNetworks(generator, discriminators, losses)


def load_start_generator(config: TrainConfig, progress: Progress = no_progress) -> nn.Module:
    """Return the generator of `generator.init`, or a random one.

    Raises ConfigError where the model has another scale or architecture than the run, and what
    `open_model` raises.
    """
    init = config.generator.init
    if not init:
        return new_generator(config)
    opened = open_model(init, progress=progress)
    expected, found = config.architecture, opened.architecture
    if config.generator.init_partial:
        return _load_partial(config, opened)
    if found.scale != config.scale:
        raise ConfigError(
            f"generator.init: {init} is a x{found.scale} network, but the run's scale is "
            f"{config.scale}",
            advice="init-scale",
        )
    if found != expected:
        raise ConfigError(
            f"generator.init: {init} is {found.describe()}, but the run trains "
            f"{expected.describe()}; omit generator.kind, .blocks, .features and .growth to take "
            "them from the model, or set generator.init_partial to load only the tensors that fit"
        )
    return opened.net


def _load_partial(config: TrainConfig, start: OpenedModel) -> nn.Module:
    """Build the run's network and copy the tensors of `start` whose names and shapes match.

    RRDB networks of scale 4, 2 and 1, for example, differ in their first layer only. Raises
    ConfigError where no tensor matches.
    """
    net = new_generator(config)
    own, given = net.state_dict(), start.net.state_dict()
    shared = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    if not shared:
        raise ConfigError(
            f"generator.init: no tensor of {start.architecture.describe()} fits "
            f"{config.architecture.describe()}"
        )
    net.load_state_dict(own | shared)
    return net


def load_start_discriminator(
    config: TrainConfig, stage: int, progress: Progress = no_progress
) -> nn.Module:
    """Return the discriminator of `discriminator.init` for a stage.

    Raises CheckpointFormatError where the file does not fit, and what fetching and reading raise.
    """
    net, init = new_discriminator(config, stage), config.discriminator.init
    entry = _registered(init)
    path = Path(init).expanduser() if entry is None else ensure(entry, progress=progress)
    load_discriminator(net, read_state(path)[0])
    return net


def find_downloads(config: TrainConfig, *, resumed: bool = False) -> tuple[RegistryEntry, ...]:
    """Return the registered files that a run needs at its start and that are not cached yet."""
    names = [] if resumed else [config.generator.init]
    if any(stage.adversarial for stage in config.stages):
        names.append(config.discriminator.init)
    names += [
        spec.download(loss)
        for stage in config.stages
        for _, spec, loss in active_losses(stage)
        if spec.download is not None
    ]
    found = [_registered(name) for name in dict.fromkeys(names) if name]
    return tuple(entry for entry in found if entry is not None and cached(entry) is None)


def _registered(init: str) -> RegistryEntry | None:
    """Return the registry entry of a name; None for a path."""
    return None if Path(init).expanduser().exists() else find(init)
