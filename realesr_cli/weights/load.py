"""What a user calls a model (name, file, run, `auto`, `A:B@0.8`) as a network ready to use."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realesr_cli.errors import ConfigError, DownloadError, ModelUnavailableError, RealesrWarning
from realesr_cli.nets.architecture import Architecture, Generator
from realesr_cli.weights import model_files, registry
from realesr_cli.weights.cache import Report
from realesr_cli.weights.download import RetryPolicy
from realesr_cli.weights.fetch import DEFAULT_RETRY, QUICK_RETRY, ensure
from realesr_cli.weights.locate import (
    AUTO,
    LocatedModel,
    Mixture,
    denoise_partner,
    is_weak,
    locate,
    located_entry,
    require_generator,
)
from realesr_cli.weights.mixing import require_alike
from realesr_cli.weights.provenance import WeightsSource
from realesr_cli.weights.registry import RegistryEntry


@dataclass(frozen=True)
class OpenedModel:
    """A network, what it is called and where it came from.

    `path` is None for a mixture, `entry` for a mixture and for a file that is not registered;
    `sources` are the one or two files the weights are from.
    """

    net: Generator
    name: str
    path: Path | None
    entry: RegistryEntry | None
    sources: tuple[WeightsSource, ...] = ()

    @property
    def architecture(self) -> Architecture:
        """What the network is made of."""
        return self.net.architecture


@dataclass(frozen=True)
class ModelFile:
    """A generator's file, read: float32 tensors by canonical name, and what it records."""

    located: LocatedModel
    path: Path
    architecture: Architecture
    state: model_files.State
    recorded: dict[str, Any]

    def source(self, share: float = 1.0) -> WeightsSource:
        """This file as a part of a network."""
        return WeightsSource(self.located.name, self.path, self.located.entry, share, self.recorded)


def open_model(
    model: str | Path = AUTO,
    *,
    scale: float | None = None,
    denoise: float | None = None,
    offline: bool | None = None,
    report: Report | None = None,
) -> OpenedModel:
    """Find, fetch if needed, and load a generator.

    `model` is `auto` (the official network for `scale`), a name or alias of the registry, a path
    to a .pth or .safetensors file, the folder of a training run, or two of these as `A:B@ALPHA`,
    which is (1 - ALPHA) of A plus ALPHA of B. `denoise` (0..1) mixes a network with its
    weak-denoise partner: 1 is the network itself, 0 the partner. `report` gets the bytes of a
    download.

    Raises UnknownModel, ModelUnavailable, DownloadError, ChecksumMismatch, CheckpointFormat,
    UnknownArchitecture, and ConfigError for a `denoise` that cannot be and for networks that
    cannot be mixed.
    """
    located = locate(model, scale=scale)
    if denoise is not None:
        if not 0 <= denoise <= 1:
            raise ConfigError(f"denoise = {denoise:g}: must be between 0 and 1")
        denoise_partner(located)  # refused before anything is fetched
    mixture = located.mixture
    if mixture is None:
        located = _at_hand_or_bundled(located, str(model).lower() == AUTO, offline, report)
        mixture = None if denoise is None else _denoised(located, denoise)
    if mixture is None:
        file = read_model(located)
        net = model_files.build_network(file.state, file.architecture)
        return OpenedModel(net, located.name, file.path, located.entry, (file.source(),))
    pair = open_pair(mixture, offline=offline, report=report)
    state = model_files.interpolate(pair[0].state, pair[1].state, mixture.alpha)
    net = model_files.build_network(state, pair[0].architecture)
    return OpenedModel(net, located.name, located.path, located.entry, pair_sources(pair, mixture))


def pair_sources(
    pair: tuple[ModelFile, ModelFile], mixture: Mixture
) -> tuple[WeightsSource, WeightsSource]:
    """The two files of a mixture with their shares."""
    shares = mixture.shares
    return pair[0].source(shares[0]), pair[1].source(shares[1])


def load_model(
    model: str | Path, *, offline: bool | None = None, report: Report | None = None
) -> Generator:
    """The generator of that name or path: an nn.Module with `.architecture` and `.scale`.

    Maps (B, 3, H, W) RGB in [0, 1] to (B, 3, H * scale, W * scale), not clamped. Raises what
    `open_model` raises.
    """
    return open_model(model, offline=offline, report=report).net


def open_pair(
    mixture: Mixture, *, offline: bool | None = None, report: Report | None = None
) -> tuple[ModelFile, ModelFile]:
    """Both networks of a mixture, fetched if needed and read.

    Raises what `open_model` raises, and ConfigError, naming the first difference, where they
    cannot be mixed.
    """
    first, second = (
        read_model(_at_hand(part, offline, report)) for part in (mixture.first, mixture.second)
    )
    names = (first.located.name, second.located.name)
    require_alike(first.architecture, second.architecture, names)
    return first, second


def read_model(located: LocatedModel) -> ModelFile:
    """A generator's file, recognized and checked; it must be at hand."""
    path = located.path
    assert path is not None
    state, metadata = model_files.read_state(path)
    architecture, state = model_files.recognize(
        state, metadata, str(path), located.known_architecture
    )
    return ModelFile(located, path, architecture, state, metadata)


def _at_hand_or_bundled(
    located: LocatedModel, automatic: bool, offline: bool | None, report: Report | None
) -> LocatedModel:
    """The model with its file at hand; the bundled one where `auto` cannot be fetched."""
    spare = registry.bundled() if automatic else None
    if spare is None:
        return _at_hand(located, offline, report)
    try:
        return _at_hand(located, offline, report, QUICK_RETRY)
    except (ModelUnavailableError, DownloadError) as error:
        what = error.what if isinstance(error, ModelUnavailableError) else str(error)
        warnings.warn(
            f"{what or error}; using {spare.name}, the small model that is installed "
            f"(`realesr models pull {located.name}` fetches the large one)",
            RealesrWarning,
            stacklevel=3,
        )
        return LocatedModel(spare.name, registry.cached(spare), spare)


def _at_hand(
    located: LocatedModel,
    offline: bool | None,
    report: Report | None,
    network: RetryPolicy = DEFAULT_RETRY,
) -> LocatedModel:
    """A single model with its file, which is fetched if need be."""
    if located.entry is None:
        return located
    require_generator(located.entry)
    path = ensure(located.entry, offline=offline, report=report, network=network)
    return dataclasses.replace(located, path=path)


def _denoised(located: LocatedModel, denoise: float) -> Mixture:
    """theta = d general + (1 - d) weak-denoise, over all tensors."""
    partner = denoise_partner(located)
    if isinstance(partner, RegistryEntry):
        other = located_entry(partner)
    else:
        other = LocatedModel(partner.stem, partner, None)
    if is_weak(located):
        return Mixture(located, other, denoise)
    return Mixture(other, located, denoise)
