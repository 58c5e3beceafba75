"""Taking model files that the user already has into the cache; official ones known by hash."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from realesr_cli.atomic import atomic_path, remove_stale_files, write_errors
from realesr_cli.errors import (
    CheckpointFormatError,
    ConfigError,
    UnknownArchitectureError,
    UnknownModelError,
    WeightsError,
    WeightsWriteError,
)
from realesr_cli.nets.architecture import Architecture, shapes_of
from realesr_cli.nets.detection import detect
from realesr_cli.text import format_names, format_value
from realesr_cli.weights import cache, model_files, registry
from realesr_cli.weights.checkpoints import State, read_state
from realesr_cli.weights.provenance import license_of
from realesr_cli.weights.registry import MAX_NAME_BYTES, RegistryEntry, is_inner_path

TOOL_FOLDERS = ("models/upscale_models", "models/ESRGAN", "models/RealESRGAN")
"""Where ComfyUI (the first) and A1111 keep upscaling models, below their own folder."""


@dataclass(frozen=True)
class ImportedModel:
    """A model now in the cache; `new` is False where it was there before."""

    source: Path
    entry: RegistryEntry
    path: Path
    new: bool


@dataclass(frozen=True)
class SkippedFile:
    """A file that was not imported, and why."""

    source: Path
    reason: str


def find_candidates(path: Path) -> list[Path]:
    """Return the weight files that `path` stands for, sorted.

    A file is itself; of a ComfyUI or A1111 folder it is what their model folders hold, of any
    other folder what it holds at any depth. Raises UnknownModelError where there is nothing.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UnknownModelError(f"{path}: no such file or folder")
    folders = [path / name for name in TOOL_FOLDERS if (path / name).is_dir()] or [path]
    found = {
        file
        for folder in folders
        for file in folder.rglob("*")
        if file.suffix.lower() in registry.SUFFIXES and file.is_file()
    }
    if not found:
        searched = ", ".join(str(folder) for folder in folders)
        raise UnknownModelError(f"no {', '.join(registry.SUFFIXES)} file in {searched}")
    return sorted(found)


def import_models(path: Path) -> tuple[list[ImportedModel], list[SkippedFile]]:
    """Import every candidate of `path`; a file that cannot be imported does not stop the others."""
    imported: list[ImportedModel] = []
    skipped: list[SkippedFile] = []
    for source in find_candidates(path):
        try:
            imported.append(import_file(source))
        except (WeightsError, ConfigError) as error:
            if isinstance(error, WeightsWriteError):
                raise
            skipped.append(SkippedFile(source, str(error)))
    return imported, skipped


def import_file(
    source: Path, *, name: str | None = None, assume: Mapping[str, str] | None = None
) -> ImportedModel:
    """Copy one model file into the cache atomically, and make its name known.

    An official file is recognized by its SHA-256 whatever it is called. Any other must be a
    generator this package knows; it is called `name`, or as the file is. `assume` settles what its
    tensors cannot, as in `{"activation": "leakyrelu"}` or `{"scale": "3"}`. Raises what
    `read_state` and `recognize` raise, ConfigError for a name that is taken and for an assumption
    that the tensors exclude, and WeightsWriteError where the cache cannot be written.
    """
    try:
        sha256 = cache.sha256_of(source)
    except FileNotFoundError:
        raise UnknownModelError(f"{source}: no such file") from None
    except OSError as error:
        raise CheckpointFormatError(f"{source}: cannot be read: {error.strerror}") from error
    entry = registry.find_by_hash(sha256)
    if entry is None and name is None:
        entry = _find_official_without_hash(source)
    changed = entry is None
    if entry is None:
        entry = _new_entry(source, sha256, name or source.stem, assume or {})
    elif assume:
        if not entry.imported:
            raise ConfigError(f"{source}: {entry.name} is an official model, nothing to assume")
        architecture = _choose_architecture(source, read_state(source)[0], assume)
        plain, scale = architecture.to_plain(), architecture.scale
        entry = dataclasses.replace(entry, architecture=plain, scale=scale)
        changed = True
    target = registry.cache_path(entry)
    present = target.is_file() and cache.current_hash(target) == sha256
    if not present:
        _copy(source, target, sha256)
    if changed:
        registry.add_imported(entry)
    return ImportedModel(source, entry, target, not present)


def _find_official_without_hash(source: Path) -> RegistryEntry | None:
    """Return the official discriminator of that file name, whose hash nobody has published."""
    entry = registry.find(source.name)
    if entry is None or entry.sha256 is not None or entry.kind != "discriminator":
        return None
    state, _ = read_state(source)
    return entry if {"conv0.weight", "conv9.weight"} <= state.keys() else None


def _new_entry(source: Path, sha256: str, name: str, assume: Mapping[str, str]) -> RegistryEntry:
    """Return the entry of a model that is not official; reads the file to see what it is."""
    file = f"imported/{name}{source.suffix.lower()}"
    if not name.strip() or "/" in name or not (is_inner_path(name) and is_inner_path(file)):
        raise ConfigError(
            f"name: expected at most {MAX_NAME_BYTES} bytes, no folder, got {format_value(name)}"
        )
    state, metadata = read_state(source)
    known = _choose_architecture(source, state, assume) if assume else None
    architecture, _ = model_files.recognize(state, metadata, str(source), known)
    if known is not None and architecture != known:
        raise ConfigError(f"{source}: it states itself that it is {architecture.describe()}")
    taken = registry.find(name)
    if taken is not None:
        kind = "an imported" if taken.imported else "the official"
        raise ConfigError(
            f"{source}: has the name of {kind} model {taken.name}, but is another file",
            advice="import-name",
        )
    return RegistryEntry(
        name=name,
        file=file,
        about=f"Imported: {architecture.describe()}.",
        license=license_of(None, metadata),
        scale=architecture.scale,
        architecture=architecture.to_plain(),
        bytes=source.stat().st_size,
        sha256=sha256,
        imported=True,
    )


def _choose_architecture(source: Path, state: State, assume: Mapping[str, str]) -> Architecture:
    """Return that of the architectures with these tensors which has the assumed fields."""
    try:
        found = detect(shapes_of(state))
    except UnknownArchitectureError as error:
        raise error.prefixed(str(source)) from error
    possible = (found.architecture, *found.alternatives)
    for architecture in possible:
        plain = architecture.to_plain()
        if all(str(plain.get(key)) == value for key, value in assume.items()):
            return architecture
    wanted = ", ".join(f"{key} = {value}" for key, value in assume.items())
    shown = format_names([one.describe() for one in possible])
    raise ConfigError(f"{source}: {wanted} does not fit its tensors, which are of {shown}")


def _copy(source: Path, target: Path, sha256: str) -> None:
    with write_errors(target, WeightsWriteError):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_files(target.parent)
        with atomic_path(target) as part:
            shutil.copyfile(source, part)
            if cache.sha256_of(part) != sha256:
                raise CheckpointFormatError(f"{source}: changed while it was copied; try again")
    cache.remember_hash(target, sha256)
