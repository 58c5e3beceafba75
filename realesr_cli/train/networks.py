"""The networks a run starts from: checked before anything is computed, then loaded."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from realesr_cli.errors import ConfigError, ModelUnavailableError, UnknownModelError
from realesr_cli.metrics.perceptual import PerceptualDistance
from realesr_cli.nets.architecture import Architecture
from realesr_cli.nets.discriminators import load_discriminator
from realesr_cli.progress import Progress, no_progress
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.losses import LossConfig, active_losses
from realesr_cli.train.settings import FEATURES
from realesr_cli.train.state import new_discriminator, new_generator
from realesr_cli.train.teacher import Teacher, architecture_of
from realesr_cli.weights.checkpoints import read_state
from realesr_cli.weights.fetch import ensure
from realesr_cli.weights.load import OpenedModel, open_model
from realesr_cli.weights.locate import locate
from realesr_cli.weights.registry import RegistryEntry, cached, find, resolve


def adopt_architecture(config: TrainConfig) -> TrainConfig:
    """Return the configuration with the architecture of `generator.init`, so that it fits.

    Unchanged where there is no such model, where only a download can tell, and for
    `generator.init_partial`. Raises UnknownModelError and what reading a file raises.
    """
    init = config.generator.init
    found = architecture_of(init) if init and not config.generator.init_partial else None
    if found is None:
        return config
    plain = found.to_plain()
    generator = dataclasses.replace(
        config.generator,
        kind=found.kind,
        blocks=plain["convs"] if "convs" in plain else plain["blocks"],
        features=plain["features"],
        growth=plain.get("growth", config.generator.growth),
    )
    return dataclasses.replace(config, generator=generator)


def check_models(config: TrainConfig, *, resumed: bool = False) -> None:
    """Check the models that a configuration names, without a download, before anything is computed.

    Raises UnknownModelError for a model or file that does not exist, and ConfigError for one that
    does not fit the run, as far as the registry or a file on this machine can tell.
    """
    init = config.generator.init
    if init and not resumed:
        found = architecture_of(init)
        if found is not None and not config.generator.init_partial:
            _require_start(config, found)
    files = [stage.perceptual.weights for stage in config.stages if stage.perceptual.weight]
    if config.discriminator.init and _registered(config.discriminator.init) is None:
        files.append(config.discriminator.init)
    for name in filter(None, [*files, config.validation.feat_weights]):
        if not Path(os.path.expanduser(name)).is_file():
            raise UnknownModelError(f"{name}: no such file")
    for stage in config.stages:
        if stage.distill.weight:
            _check_teacher(config, stage.distill.teacher)


def _check_teacher(config: TrainConfig, teacher: str) -> None:
    if not teacher:
        raise ConfigError("distill.teacher: expected a model to learn from", advice="train-teacher")
    try:
        found = architecture_of(teacher)
    except UnknownModelError as error:
        raise error.prefixed("distill.teacher") from None
    if found is not None:
        _require_teacher(config, teacher, found)


def _require_teacher(config: TrainConfig, teacher: str, found: Architecture) -> None:
    """Raise ConfigError where a teacher's images have another size than the student's."""
    if found.scale != config.scale:
        raise ConfigError(
            f"distill.teacher: {teacher} is a x{found.scale} network, but the run's scale is "
            f"{config.scale}; choose a recipe of scale {found.scale} or another teacher"
        )
    if config.data.patch % found.multiple:
        raise ConfigError(
            f"data.patch = {config.data.patch}: the teacher {teacher} expects a multiple of "
            f"{found.multiple}"
        )


@dataclass(frozen=True)
class StartNetworks:
    """The networks a run starts from.

    `discriminators` are those of `discriminator.init` by stage; a stage without one starts from
    random weights. `losses` are the frozen networks of losses by their settings. `distance` is the
    perceptual distance for validation if it is not that of a loss.
    """

    generator: nn.Module
    discriminators: Mapping[int, nn.Module]
    losses: Mapping[LossConfig, nn.Module]
    distance: nn.Module | None = None


def load_networks(
    config: TrainConfig,
    *,
    first_stage: int = 0,
    resumed: bool = False,
    progress: Progress = no_progress,
) -> StartNetworks:
    """Load every network that a run starts from, or continues with, downloaded if needed.

    `progress` counts bytes. Raises ConfigError for networks that do not fit the run,
    ModelUnavailableError for those that cannot be had, and what reading them raises.
    """
    losses = {
        loss: spec.load(loss, progress)
        for stage in config.stages
        for _, spec, loss in active_losses(stage)
        if spec.load is not None
    }
    discriminators = {
        number: load_start_discriminator(config, number, progress)
        for number, stage in enumerate(config.stages)
        if stage.adversarial and config.discriminator.init and number >= first_stage
    }
    for stage in config.stages:
        if stage.distill.weight:
            teacher = losses[stage.distill]
            assert isinstance(teacher, Teacher)
            _require_teacher(config, stage.distill.teacher, teacher.architecture)
    # A resumed run has its weights in the checkpoint.
    generator = new_generator(config) if resumed else load_start_generator(config, progress)
    return StartNetworks(generator, discriminators, losses, _load_distance(config, progress))


def _load_distance(config: TrainConfig, progress: Progress) -> nn.Module | None:
    validation = config.validation
    if validation.perceptual != FEATURES or not validation.every:
        return None
    if validation.feat_weights:
        return PerceptualDistance(read_state(Path(os.path.expanduser(validation.feat_weights)))[0])
    try:
        path = ensure(resolve(FEATURES), progress=progress)
    except ModelUnavailableError as error:
        raise ModelUnavailableError(str(error), advice="train-features") from error
    return PerceptualDistance(read_state(path)[0])


def load_start_generator(config: TrainConfig, progress: Progress = no_progress) -> nn.Module:
    """Return the generator of `generator.init`, or a random one.

    Raises ConfigError where the model has another scale or architecture than the run, and what
    `open_model` raises.
    """
    init = config.generator.init
    if not init:
        return new_generator(config)
    opened = open_model(init, progress=progress)
    if config.generator.init_partial:
        return _load_partial(config, opened)
    _require_start(config, opened.architecture)
    return opened.net


def _require_start(config: TrainConfig, found: Architecture) -> None:
    """Raise ConfigError where a run cannot start from a model of this architecture."""
    init, expected = config.generator.init, config.architecture
    if found.scale != config.scale:
        raise ConfigError(
            f"generator.init: {init} is a x{found.scale} network, but the run's scale is "
            f"{config.scale}",
            advice="init-scale",
        )
    if found != expected:
        raise ConfigError(
            f"generator.init: {init} is {found.describe()}, but the run trains "
            f"{expected.describe()}; set generator.kind, .blocks, .features and .growth as in the "
            "model, or generator.init_partial to load only the tensors that fit"
        )


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
    path = Path(os.path.expanduser(init)) if entry is None else ensure(entry, progress=progress)
    load_discriminator(net, read_state(path)[0])
    return net


def find_downloads(config: TrainConfig, *, resumed: bool = False) -> tuple[RegistryEntry, ...]:
    """Return the registered files that a run needs at its start and that are not cached yet."""
    found = [entry for name in _names(config, resumed=resumed) for entry in _entries(name)]
    return tuple(entry for entry in dict.fromkeys(found) if cached(entry) is None)


def _names(config: TrainConfig, *, resumed: bool) -> Iterator[str]:
    """Yield the names of all models that a run loads; some are empty."""
    if not resumed:
        yield config.generator.init
    if any(stage.adversarial for stage in config.stages):
        yield config.discriminator.init
    for stage in config.stages:
        for _, spec, loss in active_losses(stage):
            if spec.model is not None:
                yield spec.model(loss)
    if config.validation.every and config.validation.perceptual == FEATURES:
        yield "" if config.validation.feat_weights else FEATURES


def _entries(name: str) -> list[RegistryEntry]:
    """Return the registry entries of a name or mixture; none for a path."""
    entry = _registered(name) if name else None
    if entry is not None or not name or Path(os.path.expanduser(name)).exists():
        return [entry] if entry is not None else []
    return [part.entry for part in locate(name).parts if part.entry is not None]


def _registered(name: str) -> RegistryEntry | None:
    """Return the registry entry of a name; None for a path."""
    return None if Path(os.path.expanduser(name)).exists() else find(name)
