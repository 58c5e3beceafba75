"""Taking model files that the user already has into the cache; official ones known by hash."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from realesr_cli.atomic import atomic_path
from realesr_cli.errors import (
    CheckpointFormatError,
    ConfigError,
    RealesrError,
    UnknownModelError,
    WeightsError,
    WeightsWriteError,
)
from realesr_cli.weights import cache, model_files, registry
from realesr_cli.weights.provenance import license_of
from realesr_cli.weights.registry import RegistryEntry

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
    """A file that was not taken, and why."""

    source: Path
    reason: str


def candidates(path: Path) -> list[Path]:
    """The weight files that `path` stands for, sorted.

    A file is itself; of a ComfyUI or A1111 folder it is what their model folders hold, of any
    other folder what it holds at any depth. Raises UnknownModel where there is nothing.
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
    """Import every candidate of `path`; a file that cannot be taken does not stop the others."""
    imported: list[ImportedModel] = []
    skipped: list[SkippedFile] = []
    for source in candidates(path):
        try:
            imported.append(import_file(source))
        except (WeightsError, ConfigError) as error:
            if isinstance(error, WeightsWriteError):
                raise
            skipped.append(SkippedFile(source, str(error)))
    return imported, skipped


def import_file(source: Path, *, name: str | None = None) -> ImportedModel:
    """Copy one model file into the cache, whole or not at all, and make its name known.

    An official file is recognized by its SHA-256 whatever it is called. Any other must be a
    generator this package knows; it is called `name`, or as the file is. Raises what
    `read_state` and `detect_architecture` raise, ConfigError for a name that is taken, and
    WeightsWriteError where the cache cannot be written.
    """
    try:
        sha256 = cache.sha256_of(source)
    except FileNotFoundError:
        raise UnknownModelError(f"{source}: no such file") from None
    except OSError as error:
        raise CheckpointFormatError(f"{source}: cannot be read ({error.strerror})") from error
    entry = next((e for e in registry.entries() if e.sha256 == sha256), None)
    if entry is None:
        entry = _unhashed_official(source) if name is None else None
    new = entry is None
    if entry is None:
        entry = _own_entry(source, sha256, name or source.stem)
    target = registry.cache_path(entry)
    present = target.is_file() and cache.current_hash(target) == sha256
    if not present:
        _copy(source, target, sha256)
    if new:
        registry.add_imported(entry)
    return ImportedModel(source, entry, target, not present)


def _unhashed_official(source: Path) -> RegistryEntry | None:
    """The official discriminator of that file name, whose hash nobody has published."""
    entry = registry.find(source.name)
    if entry is None or entry.sha256 is not None or entry.kind != "discriminator":
        return None
    state, _ = model_files.read_state(source)
    return entry if {"conv0.weight", "conv9.weight"} <= state.keys() else None


def _own_entry(source: Path, sha256: str, name: str) -> RegistryEntry:
    """The entry of a model that is not official; reads the file to see what it is."""
    if not name.strip() or Path(name).name != name or name in (".", ".."):
        raise ConfigError(f"{name!r} cannot be the name of a model: no folders, not empty")
    state, metadata = model_files.read_state(source)
    architecture, _ = model_files.recognize(state, metadata, str(source))
    taken = registry.find(name)
    if taken is not None:
        kind = "an imported" if taken.imported else "the official"
        raise ConfigError(
            f"{source}: called like {kind} model {taken.name}, but it is another file; give it "
            "another name with --name"
        )
    return RegistryEntry(
        name=name,
        file=f"imported/{name}{source.suffix.lower()}",
        about=f"Imported: {architecture.describe()}.",
        license=license_of(None, metadata),
        scale=architecture.scale,
        architecture=architecture.to_plain(),
        bytes=source.stat().st_size,
        sha256=sha256,
        imported=True,
    )


def _copy(source: Path, target: Path, sha256: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as part:
            shutil.copyfile(source, part)
            if cache.sha256_of(part) != sha256:
                raise CheckpointFormatError(f"{source}: changed while it was copied; try again")
    except OSError as error:
        if isinstance(error, RealesrError):
            raise
        raise WeightsWriteError(f"{target}: cannot be written ({error})") from error
    cache.remember_hash(target, sha256)
