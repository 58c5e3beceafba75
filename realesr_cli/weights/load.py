"""What a user calls a model (name, file, run, `auto`, `A:B@0.8`) as a network ready to use."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from realesr_cli.errors import ConfigError, DownloadError, ModelUnavailableError, RealesrWarning
from realesr_cli.nets.architecture import Architecture, Generator, shapes_of
from realesr_cli.nets.detection import first_difference, match
from realesr_cli.progress import Progress, no_progress
from realesr_cli.weights import model_files
from realesr_cli.weights.checkpoints import State, read_state
from realesr_cli.weights.locate import (
    AUTO,
    LocatedModel,
    Mixture,
    check_alpha,
    locate,
    locate_entry,
    require_generator,
    require_same_architecture,
)
from realesr_cli.weights.provenance import WeightsSource, describe_network
from realesr_cli.weights.registry import RegistryEntry

MIXTURE_SUFFIXES = (".safetensors", ".pth")
"""What a mixture can be written as."""


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
    """A generator's file, read: float32 tensors by the built network's names, and its metadata."""

    located: LocatedModel
    path: Path
    architecture: Architecture
    state: State
    recorded: dict[str, Any]

    def source(self, share: float = 1.0) -> WeightsSource:
        """Return this file as a part of a network."""
        return WeightsSource(self.located.name, self.path, self.located.entry, share, self.recorded)


def open_model(
    model: str | Path | LocatedModel = AUTO,
    *,
    scale: float | None = None,
    denoise: float | None = None,
    offline: bool | None = None,
    progress: Progress = no_progress,
) -> OpenedModel:
    """Find, fetch if needed, and load a generator.

    `model` is `auto` (the official network for `scale`), a name or alias of the registry, a path
    to a .pth or .safetensors file, the folder of a training run, or two of these as `A:B@ALPHA`,
    which is (1 - ALPHA) of A plus ALPHA of B; or what `locate` found, for which `scale` and
    `denoise` are settled. `denoise` (0..1) mixes a network with its weak-denoise partner: 1 is the
    network itself, 0 the partner. `progress` gets the bytes of a download.

    Raises UnknownModelError, ModelUnavailableError, DownloadError, ChecksumMismatchError,
    CheckpointFormatError, UnknownArchitectureError, and ConfigError for a `denoise` that is not
    possible and for networks that cannot be mixed.
    """
    if isinstance(model, LocatedModel):
        located = model
    else:
        located = locate(model, scale=scale, denoise=denoise)
    if located.mixture is None:
        located = _fetch_or_spare(located, offline, progress)
        file = read_model(located)
        net = model_files.build_network(file.state, file.architecture)
        return OpenedModel(net, located.name, file.path, located.entry, (file.source(),))
    pair = open_pair(located.mixture, offline=offline, progress=progress)
    state = interpolate(pair[0].state, pair[1].state, located.mixture.alpha)
    net = model_files.build_network(state, pair[0].architecture)
    sources = _sources(pair, located.mixture)
    return OpenedModel(net, located.name, located.path, located.entry, sources)


def load_model(
    model: str | Path, *, offline: bool | None = None, progress: Progress = no_progress
) -> Generator:
    """Return the generator of that name or path: an nn.Module with `.architecture` and `.scale`.

    Maps (B, 3, H, W) RGB in [0, 1] to (B, 3, H * scale, W * scale), not clamped. Raises what
    `open_model` raises.
    """
    return open_model(model, offline=offline, progress=progress).net


def open_pair(
    mixture: Mixture, *, offline: bool | None = None, progress: Progress = no_progress
) -> tuple[ModelFile, ModelFile]:
    """Fetch if needed, and read both networks of a mixture.

    Raises what `open_model` raises, and ConfigError, naming the first difference, where they
    cannot be mixed.
    """
    first, second = (
        read_model(_fetch(part, offline, progress)) for part in (mixture.first, mixture.second)
    )
    names = (first.located.name, second.located.name)
    require_same_architecture(first.architecture, second.architecture, names)
    return first, second


def read_model(located: LocatedModel) -> ModelFile:
    """Read, recognize and check a generator's file; it must be on this machine."""
    path = located.path
    assert path is not None
    state, metadata = read_state(path)
    known = located.known_architecture
    architecture, state = model_files.recognize(state, metadata, str(path), known)
    return ModelFile(located, path, architecture, state, metadata)


def _fetch_or_spare(
    located: LocatedModel, offline: bool | None, progress: Progress
) -> LocatedModel:
    """Return the model with its file; its spare with a warning where it cannot be fetched."""
    spare = located.spare
    if spare is None:
        return _fetch(located, offline, progress)
    try:
        return _fetch(located, offline, progress, quick=True)
    except (ModelUnavailableError, DownloadError) as error:
        text = f"{error}; using {spare.name}, the small model that is installed"
        warning = RealesrWarning(text, advice="spare-model", values={"name": located.name})
        warnings.warn(warning, stacklevel=3)
        return locate_entry(spare)


def _fetch(
    located: LocatedModel, offline: bool | None, progress: Progress, *, quick: bool = False
) -> LocatedModel:
    """Return a single model with its file, which is fetched if need be."""
    if located.entry is None:
        return located
    # Files of the user need nothing of the network.
    from realesr_cli.weights.fetch import DEFAULT_RETRY, QUICK_RETRY, ensure

    require_generator(located.entry)
    retry = QUICK_RETRY if quick else DEFAULT_RETRY
    path = ensure(located.entry, offline=offline, progress=progress, retry=retry)
    return dataclasses.replace(located, path=path)


# --- mixtures -----------------------------------------------------------------------------------


def interpolate(a: Mapping[str, Tensor], b: Mapping[str, Tensor], alpha: float) -> State:
    """Return (1 - alpha) a + alpha b for every tensor (network interpolation); ends are exact.

    Source: "ESRGAN" (2018), section 3.4. Raises ConfigError where alpha is outside 0..1 or the
    networks differ, naming the first tensor that does.
    """
    check_alpha(alpha)
    difference = first_difference(shapes_of(b), shapes_of(a))
    if difference:
        raise ConfigError(f"these networks cannot be interpolated: {difference}")
    if alpha in (0, 1):
        return {name: tensor.clone() for name, tensor in (b if alpha else a).items()}
    return {name: (1 - alpha) * tensor + alpha * b[name] for name, tensor in a.items()}


def save_mixture(pair: tuple[ModelFile, ModelFile], mixture: Mixture, target: Path) -> None:
    """Write a mixture atomically as .safetensors or, by its name, as .pth.

    Between the ends the tensors are float32; at an end they are the file's own, bit by bit and in
    its own dtype. Raises ConfigError for another suffix and WeightsWriteError.
    """
    check_mixture_suffix(target)
    model_files.make_folder(target)
    description = describe_network(pair[0].architecture, _sources(pair, mixture))
    if mixture.alpha in (0, 1):
        end = pair[int(mixture.alpha)]
        stored, _ = read_state(end.path, as_stored=True)
        state = match(shapes_of(stored), end.architecture).canonical(stored)
    else:
        state = interpolate(pair[0].state, pair[1].state, mixture.alpha)
    if target.suffix.lower() == ".pth":
        model_files.save_pth(target, {"params_ema": state}, description)
    else:
        model_files.save_safetensors(target, state, description)


def check_mixture_suffix(target: Path) -> None:
    """Raise ConfigError where a file's name does not say how the mixture is to be written."""
    if target.suffix.lower() not in MIXTURE_SUFFIXES:
        expected = " or ".join(MIXTURE_SUFFIXES)
        raise ConfigError(f"{target}: expected a name that ends in {expected}")


def _sources(
    pair: tuple[ModelFile, ModelFile], mixture: Mixture
) -> tuple[WeightsSource, WeightsSource]:
    shares = mixture.shares
    return pair[0].source(shares[0]), pair[1].source(shares[1])
