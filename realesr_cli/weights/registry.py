"""Names of models and the files that belong to them: the list that ships, and what was imported."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import platformdirs

from realesr_cli.atomic import atomic_write_bytes
from realesr_cli.errors import ConfigError, UnknownModelError
from realesr_cli.settings import from_plain, to_plain
from realesr_cli.text import did_you_mean
from realesr_cli.weights import cache

Kind = Literal["generator", "discriminator", "features"]

FORMAT = 1
"""Version of weights.json and of the index of imported models."""

UNKNOWN = "unknown"
"""The license of a model of which nothing states any."""

SUFFIXES = (".pth", ".pt", ".safetensors")
"""Endings of weight files; a name may be given with or without."""

_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class RegistryEntry:
    """One model: what it is for, and where its file comes from.

    `bytes` and `sha256` are None where they are not known; `urls` is empty where the file can only
    be imported; `architecture` is the plain form of the network's record; `bundled` is a path
    inside the package, for a model that needs no download.
    """

    name: str
    file: str
    kind: Kind = "generator"
    about: str = ""
    license: str = UNKNOWN
    aliases: tuple[str, ...] = ()
    scale: int | None = None
    architecture: dict[str, Any] | None = field(default=None, hash=False)
    urls: tuple[str, ...] = ()
    bytes: int | None = None
    sha256: str | None = None
    denoise_partner: str | None = None
    bundled: str | None = None
    imported: bool = False


def home() -> Path:
    """The cache folder: REALESR_HOME, or the platform's place for caches; it need not exist."""
    chosen = os.environ.get("REALESR_HOME")
    if chosen:
        return Path(chosen).expanduser()
    return Path(platformdirs.user_cache_dir("realesr", appauthor=False))


def weights_dir() -> Path:
    """Where weight files are kept, below `home()`."""
    return home() / "weights"


def list_path() -> Path:
    """weights.json: inside an installed package, or beside it in a checkout."""
    inside = _PACKAGE / "weights.json"
    return inside if inside.is_file() else _PACKAGE.parent / "weights.json"


def index_path() -> Path:
    """The list of models that the user imported."""
    return home() / "imported.json"


@functools.cache
def official() -> tuple[RegistryEntry, ...]:
    """The models of weights.json, in its order."""
    return _read_list(list_path())


def imported() -> tuple[RegistryEntry, ...]:
    """The models that the user imported; ConfigError where their list is damaged."""
    path = index_path()
    return _read_list(path) if path.is_file() else ()


def entries() -> tuple[RegistryEntry, ...]:
    """Every known model: official ones first."""
    return official() + imported()


def _read_list(path: Path) -> tuple[RegistryEntry, ...]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ConfigError(f"{path}: format {data['format']} is not known; update realesr-cli")
        return tuple(from_plain(RegistryEntry, item, f"{path}: ") for item in data["models"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: damaged list of models ({error}); move it away") from error


def add_imported(entry: RegistryEntry) -> None:
    """Put a model on the user's list, replacing one of the same name."""
    _change_imported(entry.name, dataclasses.replace(entry, imported=True))


def remove_imported(name: str) -> None:
    """Take a model off the user's list."""
    _change_imported(name, None)


def _change_imported(name: str, entry: RegistryEntry | None) -> None:
    home().mkdir(parents=True, exist_ok=True)
    with cache.locked(home() / "imported.lock"):
        kept = [e for e in imported() if _key(e.name) != _key(name)]
        models = [*kept, entry] if entry else kept
        data = {"format": FORMAT, "models": [to_plain(e) for e in models]}
        atomic_write_bytes(index_path(), json.dumps(data, indent=1).encode())


def _key(name: str) -> str:
    lowered = name.strip().lower().replace("_", "-")
    for suffix in SUFFIXES:
        lowered = lowered.removesuffix(suffix)
    return lowered


def names_of(entry: RegistryEntry) -> tuple[str, ...]:
    """Everything an entry answers to: its name, its aliases and its file's stem."""
    return tuple(dict.fromkeys((entry.name, *entry.aliases, Path(entry.file).stem)))


def find(name: str) -> RegistryEntry | None:
    """The entry that answers to a name (upper and lower case, `_` and `-` alike), or None."""
    wanted = _key(name)
    for entry in entries():
        if any(_key(known) == wanted for known in names_of(entry)):
            return entry
    return None


def resolve(name: str) -> RegistryEntry:
    """The entry that answers to a name; UnknownModel, with the nearest known name, if none does."""
    entry = find(name)
    if entry is None:
        known = [n for e in entries() for n in names_of(e)]
        raise UnknownModelError(
            f"unknown model {name!r}{did_you_mean(name, known)} (`realesr models list` shows all; "
            "a path to a .pth or .safetensors file or to a training run works too)"
        )
    return entry


def automatic(scale: float | None = None) -> RegistryEntry:
    """The official network for a factor: RealESRGAN_x2plus up to 2, RealESRGAN_x4plus above.

    Without a factor it is the x4 network.
    """
    return resolve("RealESRGAN_x2plus" if scale is not None and scale <= 2 else "RealESRGAN_x4plus")


def bundled(among: Sequence[RegistryEntry] | None = None) -> RegistryEntry | None:
    """The model inside the package, to fall back on without a network; None where there is none."""
    for entry in official() if among is None else among:
        path = bundled_path(entry)
        if path is not None and path.is_file():
            return entry
    return None


def bundled_path(entry: RegistryEntry) -> Path | None:
    """Where the package keeps the file of a bundled model."""
    return _PACKAGE / entry.bundled if entry.bundled else None


def cache_path(entry: RegistryEntry) -> Path:
    """Where the entry's file is kept once it is there."""
    return weights_dir() / entry.file


def cached(entry: RegistryEntry) -> Path | None:
    """The entry's file if it is at hand, bundled or cached; its contents are not looked at."""
    for path in (bundled_path(entry), cache_path(entry)):
        if path is not None and path.is_file():
            return path
    return None
