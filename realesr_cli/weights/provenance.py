"""What is known of a model: its sources and license, and everything else as a plain record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realesr_cli._version import __version__
from realesr_cli.nets.architecture import Architecture
from realesr_cli.nets.detection import architecture_from_plain
from realesr_cli.weights import cache, model_files, registry
from realesr_cli.weights.checkpoints import read_state
from realesr_cli.weights.locate import (
    LocatedModel,
    Mixture,
    alpha_label,
    locate,
    require_same_architecture,
)
from realesr_cli.weights.registry import UNKNOWN, RegistryEntry

_OURS = ("format", "architecture", "scale", "license", "sources", "alpha", "tool")
"""Keys of a description that are written anew for every file."""


@dataclass(frozen=True)
class WeightsSource:
    """A file whose weights went into a network, with its share and what it records of itself."""

    name: str
    path: Path
    entry: RegistryEntry | None = None
    share: float = 1.0
    recorded: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return plain data: name, SHA-256, license, share, and the file's own sources if any."""
        sha256 = cache.sha256_of(self.path)
        same = registry.find_by_hash(sha256) or self.entry
        plain = {
            "name": same.name if same else self.name,
            "sha256": sha256,
            "license": license_of(same, self.recorded),
            "share": self.share,
        }
        earlier = self.recorded.get("sources")
        return {**plain, "sources": earlier} if earlier else plain


def license_of(entry: RegistryEntry | None, recorded: Mapping[str, Any]) -> str:
    """Return the license the registry states, else the one the file states, else `unknown`."""
    if entry is not None and entry.license != UNKNOWN:
        return entry.license
    return str(recorded.get("license") or UNKNOWN)


def merge_licenses(licenses: Sequence[str]) -> str:
    """Return what holds for a mixture: every license of its parts, joined as SPDX does."""
    different = list(dict.fromkeys(licenses)) or [UNKNOWN]
    if len(different) == 1:
        return different[0]
    return " AND ".join(f"({text})" if " " in text else text for text in different)


def describe_network(
    architecture: Architecture, sources: Sequence[WeightsSource]
) -> dict[str, Any]:
    """Return the description for a file made of these sources.

    What the only source records of itself (its training, its scores) is kept; of a mixture no
    such record would be true.
    """
    plain = [source.describe() for source in sources]
    recorded = sources[0].recorded if len(sources) == 1 else {}
    extra = {key: value for key, value in recorded.items() if key not in _OURS}
    extra |= {
        "license": merge_licenses([str(source["license"]) for source in plain]),
        "sources": plain,
        "tool": f"realesr-cli {__version__}",
    }
    if len(sources) == 2:
        extra["alpha"] = sources[1].share
    return model_files.model_metadata(architecture, extra)


# --- everything about one model -----------------------------------------------------------------


@dataclass(frozen=True)
class ModelInfo:
    """One model as `realesr models info` shows it; None is what is not known.

    `description` is the network in words, `recorded` what a trained file says of itself beyond
    its network, `problem` what is wrong with a cached file.
    """

    name: str
    kind: str
    license: str
    scale: int | None
    architecture: dict[str, Any] | None
    path: Path | None
    aliases: tuple[str, ...] = ()
    about: str = ""
    description: str | None = None
    parameters: int | None = None
    cached: bool = True
    bytes: int | None = None
    sha256: str | None = None
    urls: tuple[str, ...] = ()
    quality: str | None = None
    speed: float | None = None
    samples: str | None = None
    recorded: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def inspect_model(model: str | Path | LocatedModel) -> ModelInfo:
    """Return what is known of a registered model, a file, a training run's folder or a mixture.

    A registered model's file is checked if it is cached, never fetched. Raises UnknownModelError,
    for a path what `read_state` and `recognize` raise, and ConfigError for a mixture that is not
    possible.
    """
    located = model if isinstance(model, LocatedModel) else locate(model)
    if located.mixture is not None:
        return _inspect_mixture(located.name, located.mixture)
    return _inspect_one(located)


def _inspect_one(located: LocatedModel) -> ModelInfo:
    if located.entry is not None:
        return _inspect_entry(located.entry, located.path)
    assert located.path is not None
    return _inspect_file(located.name, located.path)


def _inspect_mixture(name: str, mixture: Mixture) -> ModelInfo:
    infos = [_inspect_one(part) for part in (mixture.first, mixture.second)]
    first, second = (architecture_from_plain(info.architecture) for info in infos)
    require_same_architecture(first, second, (infos[0].name, infos[1].name))
    about = (f"{alpha_label(s)} of {i.name}" for s, i in zip(mixture.shares, infos, strict=True))
    sources = [
        {"name": info.name, "sha256": info.sha256, "license": info.license, "share": share}
        for info, share in zip(infos, mixture.shares, strict=True)
    ]
    return ModelInfo(
        name=name,
        kind=infos[0].kind,
        license=merge_licenses([info.license for info in infos]),
        scale=infos[0].scale,
        architecture=infos[0].architecture,
        path=None,
        about=f"A mixture: {' and '.join(about)}.",
        description=infos[0].description,
        parameters=infos[0].parameters,
        cached=all(info.cached for info in infos),
        recorded={"alpha": mixture.alpha, "sources": sources},
        problem="; ".join(info.problem for info in infos if info.problem),
    )


def _inspect_entry(entry: RegistryEntry, path: Path | None) -> ModelInfo:
    from realesr_cli.weights.fetch import find_problem

    is_generator = entry.kind == "generator" and entry.architecture is not None
    architecture = architecture_from_plain(entry.architecture) if is_generator else None
    return ModelInfo(
        name=entry.name,
        kind=entry.kind,
        license=entry.license,
        scale=entry.scale,
        architecture=entry.architecture,
        path=path,
        aliases=entry.aliases,
        about=entry.about,
        description=architecture.describe() if architecture else None,
        parameters=architecture.count_parameters() if architecture else None,
        cached=path is not None,
        bytes=entry.bytes if path is None else path.stat().st_size,
        sha256=entry.sha256 or (cache.recorded_hash(path) if path else None),
        urls=entry.urls,
        quality=entry.quality,
        speed=entry.speed,
        samples=entry.samples,
        problem=find_problem(entry, path, allow_unverified=True) if path else "",
    )


def _inspect_file(name: str, path: Path) -> ModelInfo:
    state, metadata = read_state(path)
    sha256 = cache.sha256_of(path)
    same = registry.find_by_hash(sha256)
    known = LocatedModel(name, path, same).known_architecture
    architecture, _ = model_files.recognize(state, metadata, str(path), known)
    own = ("format", "architecture", "scale", "license")
    return ModelInfo(
        name=same.name if same else name,
        kind="generator",
        license=license_of(same, metadata),
        scale=architecture.scale,
        architecture=architecture.to_plain(),
        path=path,
        aliases=same.aliases if same else (),
        about=same.about if same else "",
        description=architecture.describe(),
        parameters=architecture.count_parameters(),
        bytes=path.stat().st_size,
        sha256=sha256,
        urls=same.urls if same else (),
        quality=same.quality if same else None,
        speed=same.speed if same else None,
        samples=same.samples if same else None,
        recorded={key: value for key, value in metadata.items() if key not in own},
    )
