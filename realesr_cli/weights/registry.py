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

from realesr_cli.atomic import atomic_write, remove_stale_files, write_errors
from realesr_cli.errors import ConfigError, UnknownModelError, WeightsWriteError
from realesr_cli.plain import read_json
from realesr_cli.settings import from_plain, option, to_plain
from realesr_cli.text import did_you_mean, format_value
from realesr_cli.weights import cache

Kind = Literal["generator", "discriminator", "features"]

FORMAT = 1
"""Version of weights.json and of the index of imported models."""

UNKNOWN = "unknown"
"""The license of a model of which nothing states any."""

SUFFIXES = (".pth", ".pt", ".safetensors")
"""Extensions of weight files; a name may be given with or without."""

MAX_NAME_BYTES = 200
"""Length of a file's name in the cache; suffixes of files beside it still fit in 255 bytes."""

_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class RegistryEntry:
    """One model: what it is for, and where its file comes from.

    `bytes` and `sha256` are None where they are not known; `urls` is empty where the file can only
    be imported; `architecture` is the plain form of the network's record; `bundled` is a path
    inside the package, for a model that needs no download. `quality` is a hint, `speed` the
    arithmetic of RealESRGAN_x4plus over this model's for the same output size, `samples` a web page
    that shows results.
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
    bytes: int | None = option(None, help="Size of the file.", low=1)
    sha256: str | None = None
    denoise_partner: str | None = None
    bundled: str | None = None
    imported: bool = False
    quality: str | None = None
    speed: float | None = None
    samples: str | None = None

    def __post_init__(self) -> None:
        for key in ("file", "bundled"):
            value = getattr(self, key)
            if value is not None and not is_inner_path(value):
                shown = format_value(value)
                raise ConfigError(f"{key}: expected a path inside its folder, got {shown}")


def is_inner_path(text: str) -> bool:
    """Return whether a path in a list stays below its folder, on every system."""
    return all(
        part not in ("", ".", "..")
        and not any(mark in part for mark in "\\\0" + ":" * (os.name == "nt"))
        and len(part.encode(errors="replace")) <= MAX_NAME_BYTES
        for part in text.split("/")
    )


def home() -> Path:
    """Return the cache folder: REALESR_HOME, or the platform's; it need not exist."""
    chosen = os.environ.get("REALESR_HOME")
    if chosen:
        return Path(os.path.expanduser(chosen))
    return Path(platformdirs.user_cache_dir("realesr", appauthor=False))


def weights_dir() -> Path:
    """Return the folder of weight files, below `home()`."""
    return home() / "weights"


def list_path() -> Path:
    """Return the path of weights.json: inside an installed package, or beside it in a checkout."""
    inside = _PACKAGE / "weights.json"
    return inside if inside.is_file() else _PACKAGE.parent / "weights.json"


def index_path() -> Path:
    """Return the path of the list of models that the user imported."""
    return home() / "imported.json"


@functools.cache
def official() -> tuple[RegistryEntry, ...]:
    """Return the models of weights.json, in its order."""
    return _read_list(list_path())


def imported() -> tuple[RegistryEntry, ...]:
    """Return the models that the user imported. Raises ConfigError where their list is damaged."""
    path = index_path()
    return _read_list(path) if path.is_file() else ()


def entries() -> tuple[RegistryEntry, ...]:
    """Return every known model, official ones first."""
    return official() + imported()


def _read_list(path: Path) -> tuple[RegistryEntry, ...]:
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("models"), list):
        raise ConfigError(f"{path}: expected a list of models; move the file away")
    if data.get("format") != FORMAT:
        raise ConfigError(f"{path}: format {data.get('format')!r:.80} needs a newer realesr-cli")
    found = []
    for number, item in enumerate(data["models"]):
        if not isinstance(item, dict):
            raise ConfigError(f"{path}: expected models[{number}] as a table; move the file away")
        try:
            found.append(from_plain(RegistryEntry, item))
        except ConfigError as error:
            raise error.prefixed(f"{path}: models[{number}]") from None
    return tuple(found)


def add_imported(entry: RegistryEntry) -> None:
    """Put a model on the user's list, replacing one of the same name. Raises WeightsWriteError."""
    _change_imported(entry.name, dataclasses.replace(entry, imported=True))


def remove_imported(name: str) -> None:
    """Take a model off the user's list. Raises WeightsWriteError."""
    _change_imported(name, None)


def _change_imported(name: str, entry: RegistryEntry | None) -> None:
    with write_errors(index_path(), WeightsWriteError):
        home().mkdir(parents=True, exist_ok=True)
        with cache.hold_lock(home() / "imported.lock"):
            remove_stale_files(home())
            kept = [e for e in imported() if _key(e.name) != _key(name)]
            models = [*kept, entry] if entry else kept
            data = {"format": FORMAT, "models": [to_plain(e) for e in models]}
            with atomic_write(index_path()) as file:
                file.write(json.dumps(data, indent=1).encode())


def _key(name: str) -> str:
    lowered = name.strip().lower().replace("_", "-")
    for suffix in SUFFIXES:
        lowered = lowered.removesuffix(suffix)
    return lowered


def names_of(entry: RegistryEntry) -> tuple[str, ...]:
    """Return everything an entry answers to: its name, its aliases and its file's stem."""
    return tuple(dict.fromkeys((entry.name, *entry.aliases, Path(entry.file).stem)))


def find(name: str) -> RegistryEntry | None:
    """Return the entry of a name (upper and lower case, `_` and `-` alike), or None."""
    wanted = _key(name)
    for entry in entries():
        if any(_key(known) == wanted for known in names_of(entry)):
            return entry
    return None


def find_by_hash(sha256: str) -> RegistryEntry | None:
    """Return the entry whose file has this SHA-256, or None."""
    return next((entry for entry in entries() if entry.sha256 == sha256), None)


def resolve(name: str) -> RegistryEntry:
    """Return the entry of a name. Raises UnknownModelError with the nearest known name."""
    entry = find(name)
    if entry is None:
        known = [n for e in entries() for n in names_of(e)]
        raise UnknownModelError(
            f"unknown model {format_value(name)}{did_you_mean(name, known)}", advice="unknown-model"
        )
    return entry


def automatic(scale: float | None = None) -> RegistryEntry:
    """Return the official network for a factor: RealESRGAN_x2plus up to 2, else and without x4."""
    return resolve("RealESRGAN_x2plus" if scale is not None and scale <= 2 else "RealESRGAN_x4plus")


def bundled(among: Sequence[RegistryEntry] | None = None) -> RegistryEntry | None:
    """Return the model inside the package, which needs no network; None where there is none."""
    for entry in official() if among is None else among:
        path = bundled_path(entry)
        if path is not None and path.is_file():
            return entry
    return None


def bundled_path(entry: RegistryEntry) -> Path | None:
    """Return the path of a bundled model's file inside the package."""
    return _PACKAGE / entry.bundled if entry.bundled else None


def cache_path(entry: RegistryEntry) -> Path:
    """Return the path where the entry's file is kept once it is there."""
    return weights_dir() / entry.file


def cached(entry: RegistryEntry) -> Path | None:
    """Return the path of the entry's file, bundled or cached, unchecked; None if it is absent."""
    for path in (bundled_path(entry), cache_path(entry)):
        if path is not None and path.is_file():
            return path
    return None
