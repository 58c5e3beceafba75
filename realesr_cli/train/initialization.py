"""The networks a run starts from: random, registered or from files, and the frozen features."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from realesr_cli.errors import ConfigError, ModelUnavailableError, WeightsError
from realesr_cli.nets.discriminators import load_discriminator
from realesr_cli.nets.features import BACKBONES
from realesr_cli.train.config import PerceptualConfig, TrainConfig
from realesr_cli.train.losses import PerceptualLoss
from realesr_cli.train.state import new_discriminator, new_generator
from realesr_cli.weights.cache import Report
from realesr_cli.weights.fetch import ensure
from realesr_cli.weights.load import OpenedModel, open_model
from realesr_cli.weights.model_files import read_state
from realesr_cli.weights.registry import RegistryEntry, cached, find, resolve


def starting_generator(config: TrainConfig, report: Report | None = None) -> nn.Module:
    """The generator of `generator.init`, or a random one.

    Raises ConfigError where the file is a network of another scale or size than the run's, and
    what `open_model` raises.
    """
    if not config.generator.init:
        return new_generator(config)
    opened = open_model(config.generator.init, report=report)
    wanted, found = config.architecture, opened.architecture
    if config.generator.init_partial:
        return _partial(config, opened)
    if found.scale != config.scale:
        raise ConfigError(
            f"--init {config.generator.init} is a x{found.scale} network, but the run's scale is "
            f"{config.scale}: take a recipe of scale {found.scale} or another network, or take "
            "only the tensors that fit with --set generator.init_partial=true"
        )
    if found != wanted:
        raise ConfigError(
            f"--init {config.generator.init} is {found.describe()}, but the run trains "
            f"{wanted.describe()}: set generator.kind, .blocks, .features and .growth to match, "
            "or take only the tensors that fit with generator.init_partial=true"
        )
    return opened.net


def _partial(config: TrainConfig, start: OpenedModel) -> nn.Module:
    """Build the run's network and copy the tensors of `start` whose names and shapes match.

    RRDB networks of scale 4, 2 and 1, for one, differ in their first layer only. Raises ConfigError
    where no tensor matches.
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


def starting_discriminator(
    config: TrainConfig, stage: int, report: Report | None = None
) -> nn.Module:
    """The discriminator of `discriminator.init`, or a random one.

    Raises CheckpointFormat where the file does not fit, and what fetching and reading raise.
    """
    net = new_discriminator(config, stage)
    init = config.discriminator.init
    if init:
        load_discriminator(net, read_state(_file(init, report))[0])
    return net


def starting_perceptual(
    config: PerceptualConfig, report: Report | None = None
) -> PerceptualLoss | None:
    """The perceptual loss with its frozen network; None where its weight is 0.

    Raises ModelUnavailable, with the ways out, where the weights cannot be had.
    """
    if not config.weight:
        return None
    weights = config.by_layer()
    features = BACKBONES[config.backbone](list(weights))
    if not config.weights and config.backbone != "vgg19":
        raise ConfigError(
            f"perceptual.backbone = {config.backbone!r}: its weights are not fetched; give their "
            "file, in torchvision's layout, as perceptual.weights"
        )
    try:
        path = Path(config.weights) if config.weights else ensure(resolve("vgg19"), report=report)
        features.load(read_state(path)[0])
    except WeightsError as error:
        raise ModelUnavailableError(
            f"the perceptual loss has no weights: {error}. {WAYS_OUT}"
        ) from error
    return PerceptualLoss(features, weights, relative=config.backbone != "vgg19")


WAYS_OUT = (
    "Ways out: a copy of the file as --set perceptual.weights=FILE; the stand-in of "
    "docs/training.md, --set perceptual.backbone=squeezenet1_1 with its own perceptual.weights; "
    "--set perceptual.weight=0, to train without it"
)


def to_fetch(config: TrainConfig, *, resumed: bool = False) -> tuple[RegistryEntry, ...]:
    """The registered files a run needs at its start that are not on this machine yet."""
    names = [] if resumed else [config.generator.init]
    if any(stage.adversarial for stage in config.stages):
        names.append(config.discriminator.init)
    for stage in config.stages:
        part = stage.perceptual
        if part.weight and part.backbone == "vgg19" and not part.weights:
            names.append("vgg19")
    found = [_registered(name) for name in dict.fromkeys(names) if name]
    return tuple(entry for entry in found if entry is not None and cached(entry) is None)


def _registered(init: str) -> RegistryEntry | None:
    """The entry of a name; None for a path."""
    return None if Path(init).expanduser().exists() else find(init)


def _file(init: str, report: Report | None) -> Path:
    entry = _registered(init)
    return Path(init).expanduser() if entry is None else ensure(entry, report=report)
