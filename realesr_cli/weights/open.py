"""What a user calls a model (a name, a file, a training run, `auto`) as a network ready to use."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from realesr_cli.errors import (
    CheckpointFormat,
    ConfigError,
    ModelUnavailable,
    RealesrWarning,
    UnknownModel,
)
from realesr_cli.nets.arch import Architecture, canonical
from realesr_cli.settings import did_you_mean
from realesr_cli.weights import files, registry
from realesr_cli.weights.fetch import ensure
from realesr_cli.weights.registry import Entry
from realesr_cli.weights.store import Report

AUTO = "auto"
"""The model name that stands for the official network of the factor asked."""

RUN_FILE = "generator.safetensors"
"""The file of a training run's folder that holds its generator."""

_WEAK = "-wdn-x4v3"
_STRONG = "-x4v3"


@dataclass(frozen=True)
class OpenedModel:
    """A network, what it is called and where it came from (`entry` None: a path)."""

    net: nn.Module
    name: str
    path: Path
    entry: Entry | None

    @property
    def architecture(self) -> Architecture:
        """What the network is made of."""
        found: Architecture = self.net.architecture  # type: ignore[assignment]
        return found


@dataclass(frozen=True)
class LocatedModel:
    """Where a model's file is or will be; `path` is None for an official one not yet cached."""

    name: str
    path: Path | None
    entry: Entry | None


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
    to a .pth or .safetensors file, or the folder of a training run. `denoise` (0..1) mixes a
    network with its weak-denoise partner: 1 is the network itself, 0 the partner. `report` gets
    the bytes of a download.

    Raises UnknownModel, ModelUnavailable, DownloadError, ChecksumMismatch, CheckpointFormat,
    UnknownArchitecture, and ConfigError for a `denoise` that cannot be.
    """
    if denoise is not None:
        if not 0 <= denoise <= 1:
            raise ConfigError(f"denoise = {denoise:g}: must be between 0 and 1")
        denoise_partner(locate(model, scale=scale))  # refused before anything is fetched
    located = _located_or_bundled(model, scale, offline, report)
    assert located.path is not None
    if denoise is None:
        net = files.load_model(located.path)
    else:
        net = _denoised(located, denoise, offline, report)
    return OpenedModel(net, located.name, located.path, located.entry)


def load_model(
    model: str | Path, *, offline: bool | None = None, report: Report | None = None
) -> nn.Module:
    """The generator of that name or path: an nn.Module with `.architecture` and `.scale`.

    Maps (B, 3, H, W) RGB in [0, 1] to (B, 3, H * scale, W * scale), not clamped. Raises what
    `open_model` raises.
    """
    return open_model(model, offline=offline, report=report).net


def locate(model: str | Path = AUTO, *, scale: float | None = None) -> LocatedModel:
    """Where a model's file is, without fetching or reading it.

    A file wins over a registered name, a registered name over a folder (`./name` is the folder).
    Raises UnknownModel for what is none of them, CheckpointFormat for a folder that is no run.
    """
    text, path = str(model), Path(model).expanduser()
    if isinstance(model, str) and text.lower() == AUTO:
        return _located_entry(registry.automatic(scale))
    if path.is_file():
        return LocatedModel(path.stem, path, None)
    is_path = isinstance(model, Path) or any(mark in text for mark in "/\\")
    entry = None if is_path else registry.find(text)
    if entry is not None:
        return _located_entry(entry)
    if path.is_dir():
        return LocatedModel(path.resolve().name, _run_file(path), None)
    if is_path:
        near = [p.name for p in path.parent.glob("*") if p.suffix in registry.SUFFIXES]
        raise UnknownModel(f"{text}: no such file{did_you_mean(path.name, near)}")
    return _located_entry(registry.resolve(text))


def _located_entry(entry: Entry) -> LocatedModel:
    return LocatedModel(entry.name, registry.cached(entry), entry)


def _run_file(folder: Path) -> Path:
    path = folder / RUN_FILE
    if not path.is_file():
        raise CheckpointFormat(
            f"{folder}: a folder without {RUN_FILE}: no training run, or one that has not saved yet"
        )
    return path


def _located_or_bundled(
    model: str | Path, scale: float | None, offline: bool | None, report: Report | None
) -> LocatedModel:
    """The model with its file at hand; the bundled one where `auto` cannot be fetched."""
    located = locate(model, scale=scale)
    if located.entry is None:
        return located
    _require_generator(located.entry)
    try:
        path = ensure(located.entry, offline=offline, report=report)
        return dataclasses.replace(located, path=path)
    except ModelUnavailable as error:
        spare = registry.bundled() if str(model).lower() == AUTO else None
        if spare is None:
            raise
        warnings.warn(f"{error}; using {spare.name} meanwhile", RealesrWarning, stacklevel=3)
        return LocatedModel(spare.name, registry.cached(spare), spare)


def _require_generator(entry: Entry) -> None:
    if entry.kind != "generator":
        raise ConfigError(
            f"{entry.name} is no network to upscale with ({entry.kind}): {entry.about}"
        )


def _denoised(
    located: LocatedModel, denoise: float, offline: bool | None, report: Report | None
) -> nn.Module:
    """theta = d general + (1 - d) weak-denoise, over all tensors."""
    assert located.path is not None
    partner = denoise_partner(located)
    if isinstance(partner, Entry):
        partner = ensure(partner, offline=offline, report=report)
    pair = (located.path, partner)
    strong, weak = reversed(pair) if _is_weak(located) else pair
    architecture, general = _read_canonical(strong)
    _, noisy = _read_canonical(weak)
    return files.build_network(files.interpolate(noisy, general, denoise), architecture)


def _read_canonical(path: Path) -> tuple[Architecture, files.State]:
    state, metadata = files.read_state(path)
    architecture = files.recognise(state, metadata, str(path))
    files.require_finite(state, str(path))
    return architecture, canonical(state, architecture)


def denoise_partner(located: LocatedModel) -> Path | Entry:
    """What `denoise` mixes a model with: a registered model, or a file beside its own.

    Nothing is fetched or read. Raises ConfigError where there is no partner.
    """
    official = located.entry is not None and not located.entry.imported
    if not official and located.path is not None:
        marks = (_WEAK, _STRONG) if _is_weak(located) else (_STRONG, _WEAK)
        beside = located.path.with_name(located.path.name.replace(*marks, 1))
        if beside != located.path and beside.is_file():
            return beside
    entry = _partner_entry(located)
    if entry is None:
        raise ConfigError(
            f"{located.name} has no weak-denoise partner, so --denoise cannot be used with it; "
            "realesr-general-x4v3 has one"
        )
    return entry


def _is_weak(located: LocatedModel) -> bool:
    """Whether a model is the one of the two that keeps the noise."""
    return _WEAK in (located.name if located.path is None else located.path.name)


def _partner_entry(located: LocatedModel) -> Entry | None:
    entry = located.entry
    if entry is None or entry.imported:  # a copy such as realesr-general-x4v3.fp16.pth
        mark = _WEAK if _is_weak(located) else _STRONG
        stem, found, _ = located.name.partition(mark)
        entry = registry.find(stem + mark) if found else None
    if entry is None:
        return None
    if entry.denoise_partner:
        return registry.resolve(entry.denoise_partner)
    pairs = (e for e in registry.entries() if e.denoise_partner == entry.name)
    return next(pairs, None)
