"""A run before its first step: its folder, its images, and what a resumed one may change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from realesr_cli.atomic import atomic_write_bytes, remove_stale_files
from realesr_cli.errors import ConfigError, ResumeMismatchError, TrainingError
from realesr_cli.progress import Progress, no_progress
from realesr_cli.text import format_names
from realesr_cli.train.checkpoint import FOLDER as CHECKPOINTS
from realesr_cli.train.checkpoint import Checkpoint, list_checkpoints
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.cropping import window_size
from realesr_cli.train.distributed import ALONE, World
from realesr_cli.train.files import TrainingImages, find_training_images
from realesr_cli.train.loggers import FILE as LOG_FILE
from realesr_cli.train.loggers import check_trackers
from realesr_cli.train.machine import Machine
from realesr_cli.train.networks import StartNetworks, check_models, load_networks
from realesr_cli.train.recipes import config_to_toml, differences

CONFIG_FILE = "config.toml"
SAMPLES = "samples"

HARMLESS = (
    "checkpoints.", "runtime.device", "runtime.log_every", "runtime.tensorboard",
    "runtime.wandb", "runtime.mlflow",
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

    def load_networks(self, progress: Progress = no_progress) -> StartNetworks:
        """Load every network the run starts from; raises what `networks.load_networks` raises."""
        return load_networks(
            self.config, first_stage=self.first_stage, resumed=self.checkpoint is not None,
            progress=progress,
        )  # fmt: skip

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
    TrainingError for a folder that contains a run, MissingDependencyError for a logger that is not
    installed, and what `check_models` raises.
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
    check_trackers(config.runtime)
    check_models(config, resumed=checkpoint is not None)
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
