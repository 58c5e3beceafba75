"""Everything there is to say about one model, registered or a file, as a plain record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realesr_cli.nets.detection import architecture_from_plain
from realesr_cli.weights import cache, fetch, model_files, registry
from realesr_cli.weights.locate import LocatedModel, Mixture, locate
from realesr_cli.weights.mixing import alpha_label, require_alike
from realesr_cli.weights.provenance import license_of, merged_license
from realesr_cli.weights.registry import RegistryEntry


@dataclass(frozen=True)
class ModelInfo:
    """One model as `realesr models info` shows it; None is what is not known.

    `description` is the network in words, `recorded` what a trained file says of itself beyond
    its network, `problem` what is wrong with a cached file.
    """

    name: str
    aliases: tuple[str, ...]
    kind: str
    about: str
    license: str
    scale: int | None
    description: str | None
    architecture: dict[str, Any] | None
    parameters: int | None
    path: Path | None
    cached: bool
    bytes: int | None
    sha256: str | None
    urls: tuple[str, ...]
    recorded: dict[str, Any]
    problem: str


def inspect(model: str | Path) -> ModelInfo:
    """What is known of a registered model, a weight file, a training run's folder or a mixture.

    A registered model's file is checked if it is cached, never fetched. Raises UnknownModel, for
    a path what `read_state` and `detect_architecture` raise, and ConfigError for a mixture that
    cannot be.
    """
    located = locate(model)
    if located.mixture is not None:
        return _of_mixture(located.name, located.mixture)
    return _of_one(located)


def _of_one(located: LocatedModel) -> ModelInfo:
    if located.entry is not None:
        return _of_entry(located.entry, located.path)
    assert located.path is not None
    return _of_file(located.name, located.path)


def _of_mixture(name: str, mixture: Mixture) -> ModelInfo:
    infos = [_of_one(part) for part in (mixture.first, mixture.second)]
    first, second = (architecture_from_plain(info.architecture or {}) for info in infos)
    require_alike(first, second, (infos[0].name, infos[1].name))
    shared = infos[0]
    about = (f"{alpha_label(s)} of {i.name}" for s, i in zip(mixture.shares, infos, strict=True))
    sources = [
        {"name": info.name, "sha256": info.sha256, "license": info.license, "share": share}
        for info, share in zip(infos, mixture.shares, strict=True)
    ]
    return ModelInfo(
        name=name,
        aliases=(),
        kind=shared.kind,
        about=f"A mixture: {' and '.join(about)}.",
        license=merged_license([info.license for info in infos]),
        scale=shared.scale,
        description=shared.description,
        architecture=shared.architecture,
        parameters=shared.parameters,
        path=None,
        cached=all(info.cached for info in infos),
        bytes=None,
        sha256=None,
        urls=(),
        recorded={"alpha": mixture.alpha, "sources": sources},
        problem="; ".join(info.problem for info in infos if info.problem),
    )


def _of_entry(entry: RegistryEntry, path: Path | None) -> ModelInfo:
    is_generator = entry.kind == "generator" and entry.architecture is not None
    architecture = architecture_from_plain(entry.architecture or {}) if is_generator else None
    return ModelInfo(
        name=entry.name,
        aliases=entry.aliases,
        kind=entry.kind,
        about=entry.about,
        license=entry.license,
        scale=entry.scale,
        description=architecture.describe() if architecture else None,
        architecture=entry.architecture,
        parameters=architecture.count_parameters() if architecture else None,
        path=path,
        cached=path is not None,
        bytes=entry.bytes if path is None else path.stat().st_size,
        sha256=entry.sha256 or (cache.recorded_hash(path) if path else None),
        urls=entry.urls,
        recorded={},
        problem=fetch.problem(entry, path, allow_unverified=True) if path else "",
    )


def _of_file(name: str, path: Path) -> ModelInfo:
    state, metadata = model_files.read_state(path)
    architecture, _ = model_files.recognize(state, metadata, str(path))
    sha256 = cache.sha256_of(path)
    same = next((e for e in registry.entries() if e.sha256 == sha256), None)
    own = ("format", "architecture", "scale", "license")
    return ModelInfo(
        name=same.name if same else name,
        aliases=same.aliases if same else (),
        kind="generator",
        about=same.about if same else "",
        license=license_of(same, metadata),
        scale=architecture.scale,
        description=architecture.describe(),
        architecture=architecture.to_plain(),
        parameters=architecture.count_parameters(),
        path=path,
        cached=True,
        bytes=path.stat().st_size,
        sha256=sha256,
        urls=same.urls if same else (),
        recorded={key: value for key, value in metadata.items() if key not in own},
        problem="",
    )
