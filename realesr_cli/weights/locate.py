"""Where a model is that a user names: a name, a file, a training run, `auto`, `A:B@0.8`."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from realesr_cli.errors import CheckpointFormatError, ConfigError, UnknownModelError
from realesr_cli.nets.architecture import Architecture
from realesr_cli.nets.detection import architecture_from_plain
from realesr_cli.text import did_you_mean
from realesr_cli.weights import registry
from realesr_cli.weights.registry import RegistryEntry

AUTO = "auto"
"""The model name that stands for the official network of the requested factor."""

RUN_FILE = "generator.safetensors"
"""The file of a training run's folder that holds its generator."""

_WEAK = "-wdn-x4v3"
_STRONG = "-x4v3"

_FORM = "expected A:B@ALPHA, as in x4plus:esrgan@0.8, which is 0.2 of A and 0.8 of B"

# The colon of `C:\\x` or `D:/x`, at the start of the text or of the second model.
_DRIVE = re.compile(r"(?:^|:)[A-Za-z](:)[\\/]")


@dataclass(frozen=True)
class LocatedModel:
    """Where a model's file is or will be.

    `path` is None for an official one not yet cached, and for a `mixture`, which has two. `spare`
    is the bundled model that may stand in for it (for `auto` only).
    """

    name: str
    path: Path | None
    entry: RegistryEntry | None
    mixture: Mixture | None = None
    spare: RegistryEntry | None = None

    @property
    def parts(self) -> tuple[LocatedModel, ...]:
        """The models of which each has one file: itself, or the two of a mixture."""
        return (self,) if self.mixture is None else (self.mixture.first, self.mixture.second)

    @property
    def download_bytes(self) -> int | None:
        """Bytes to download, 0 where their number is unknown; None where all is on this machine."""
        absent = [part.entry for part in self.parts if part.path is None]
        return sum(e.bytes or 0 for e in absent if e is not None) if absent else None

    @property
    def known_architecture(self) -> Architecture | None:
        """What the registry states of the network; None where only its file can tell."""
        if self.mixture is not None:
            first, second = self.parts
            return first.known_architecture or second.known_architecture
        if self.entry is None or self.entry.kind != "generator" or self.entry.architecture is None:
            return None
        return architecture_from_plain(self.entry.architecture)


@dataclass(frozen=True)
class Mixture:
    """(1 - alpha) of the first network plus alpha of the second."""

    first: LocatedModel
    second: LocatedModel
    alpha: float

    @property
    def shares(self) -> tuple[float, float]:
        """The two shares as a person would write them: of 0.8 the first is 0.2."""
        return float(1 - Decimal(repr(self.alpha))), self.alpha


def locate(
    model: str | Path = AUTO, *, scale: float | None = None, denoise: float | None = None
) -> LocatedModel:
    """Find a model's file, without fetching or reading it.

    A file wins over a registered name, a registered name over a folder (`./name` is the folder),
    and all of these over a mixture `A:B@ALPHA`. `denoise` (0..1) mixes the network with its
    weak-denoise partner: 1 is the network itself, 0 the partner.

    Raises UnknownModelError if it is none of them, CheckpointFormatError for a folder that is
    not a run, ConfigError for a mixture or a `denoise` that is not possible.
    """
    located = _locate(model, scale)
    return located if denoise is None else _denoised(located, denoise)


def _locate(model: str | Path, scale: float | None) -> LocatedModel:
    # Path.expanduser raises for a user that there is not.
    text, path = str(model), Path(os.path.expanduser(model))
    if isinstance(model, str) and text.lower() == AUTO:
        entry = registry.automatic(scale)
        return dataclasses.replace(locate_entry(entry), spare=registry.bundled())
    if _is_file(path):
        return LocatedModel(path.stem, path, None)
    is_path = isinstance(model, Path) or any(mark in text for mark in "/\\")
    entry_of_name = None if is_path else registry.find(text)
    if entry_of_name is not None:
        return locate_entry(entry_of_name)
    if _is_folder(path):
        return LocatedModel(path.resolve().name, _run_file(path), None)
    mix = parse_mixture(text) if isinstance(model, str) else None
    if mix is not None:
        return locate_mixture(*mix, scale=scale)
    if is_path:
        raise UnknownModelError(f"{text[:1000]}: no such file{_similar_file(path)}")
    return locate_entry(registry.resolve(text))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for the system
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _similar_file(path: Path) -> str:
    try:
        near = [p.name for p in path.parent.glob("*") if p.suffix in registry.SUFFIXES]
    except OSError:
        near = []
    return did_you_mean(path.name, near)


def locate_entry(entry: RegistryEntry) -> LocatedModel:
    """Return a registered model, with its file if that is cached."""
    return LocatedModel(entry.name, registry.cached(entry), entry)


def _run_file(folder: Path) -> Path:
    path = folder / RUN_FILE
    if not path.is_file():
        raise CheckpointFormatError(
            f"{folder}: a folder without {RUN_FILE}: not a training run, or one that has not saved "
            "yet"
        )
    return path


def require_generator(entry: RegistryEntry) -> None:
    """Raise ConfigError where a registered file is not a network to upscale with."""
    if entry.kind != "generator":
        raise ConfigError(
            f"{entry.name} cannot upscale images, it is a {entry.kind} file: {entry.about}"
        )


# --- mixtures -----------------------------------------------------------------------------------


def parse_mixture(
    text: str, is_model: Callable[[str], bool] | None = None
) -> tuple[str, str, float] | None:
    """Return A, B and the share of B for `A:B@ALPHA`, or None if the text is not a mixture.

    Names of files may hold `:` and `@` themselves, so the last `@` counts, and of several colons
    the one between two models, which `is_model` knows (by default: those that exist). Raises
    ConfigError for a share that is not a number from 0 to 1, for two models without a share, and
    where two readings are possible.
    """
    is_model = is_model or _is_model
    head, _, number = text.rpartition("@")
    cuts = _cut_at_colons(head)
    known = [cut for cut in cuts if all(map(is_model, cut))]
    try:
        alpha = float(number)
    except ValueError:
        if known:
            raise ConfigError(f"{text}: {number!r} is not a number; {_FORM}") from None
        if any(all(map(is_model, cut)) for cut in _cut_at_colons(text)):
            raise ConfigError(f"{text}: two models without a share; {_FORM}") from None
        return None
    drives = {found.start(1) for found in _DRIVE.finditer(head)}
    chosen = known or [cut for cut in cuts if len(cut[0]) not in drives]
    if not chosen:
        return None
    if len(known) > 1:
        readings = " or ".join(f"{a} and {b}" for a, b in known)
        raise ConfigError(f"{text}: can mean {readings}; rename one of the files")
    check_alpha(alpha, text)
    return *chosen[0], alpha


def _cut_at_colons(text: str) -> list[tuple[str, str]]:
    """Return the text cut at each of its first colons, where both sides are not empty."""
    places = [i for i, letter in enumerate(text[:_MAX_TEXT]) if letter == ":"][:_MAX_COLONS]
    return [(text[:i], text[i + 1 :]) for i in places if text[:i] and text[i + 1 :]]


_MAX_TEXT, _MAX_COLONS = 4096, 16


def _is_model(text: str) -> bool:
    path = Path(os.path.expanduser(text))
    if text.lower() == AUTO or _is_file(path) or _is_folder(path):
        return True
    return registry.find(text) is not None


def locate_mixture(
    first: str | Path, second: str | Path, alpha: float, *, scale: float | None = None
) -> LocatedModel:
    """Find two models to mix; nothing is fetched or read.

    Raises what `locate` raises, and ConfigError where a share is outside 0..1 or the registry
    states already that the two cannot be mixed.
    """
    check_alpha(alpha)
    one, other = locate(first, scale=scale), locate(second, scale=scale)
    for part in (one, other):
        if part.entry is not None:
            require_generator(part.entry)
        if part.mixture is not None:
            raise ConfigError(
                f"{part.name} is a mixture already, and only two networks can be mixed at a time",
                advice="mixture-of-mixture",
            )
    known = (one.known_architecture, other.known_architecture)
    if known[0] is not None and known[1] is not None:
        require_same_architecture(known[0], known[1], (one.name, other.name))
    return _mix(one, other, alpha)


def _mix(first: LocatedModel, second: LocatedModel, alpha: float) -> LocatedModel:
    name = f"{first.name}+{second.name}@{alpha_label(alpha)}"
    return LocatedModel(name, None, None, Mixture(first, second, alpha))


def check_alpha(alpha: float, where: str = "alpha") -> None:
    """Raise ConfigError where a share is not from 0 to 1; `where` is what the user wrote."""
    if not 0 <= alpha <= 1:
        raise ConfigError(
            f"{where}: expected a share from 0 (all of the first network) to 1 (all of the "
            f"second), got {alpha:g}"
        )


def alpha_label(alpha: float) -> str:
    """Return a share as it stands in names, exactly (`0.29`, `0.8`, `1`): no two share a label."""
    text = f"{Decimal(repr(float(alpha))):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def require_same_architecture(
    first: Architecture, second: Architecture, names: tuple[str, str]
) -> None:
    """Raise ConfigError, naming the first difference, where two networks cannot be mixed."""
    one, other = ({"kind": a.kind, **vars(a)} for a in (first, second))
    for key in one:
        if one[key] != other[key]:  # the kind comes first, and one kind has one set of keys
            raise ConfigError(
                f"{names[0]} and {names[1]} cannot be mixed: {key} is {one[key]} against "
                f"{other[key]} ({first.describe()}; {second.describe()})"
            )


# --- denoising ----------------------------------------------------------------------------------


def _denoised(located: LocatedModel, denoise: float) -> LocatedModel:
    """Return the mixture theta = d general + (1 - d) weak-denoise, over all tensors."""
    if not 0 <= denoise <= 1:
        raise ConfigError(f"denoise: expected 0 to 1, got {denoise:g}")
    if located.mixture is not None:
        raise ConfigError(
            f"{located.name} is a mixture, and denoise is for a single model",
            advice="denoise-of-mixture",
        )
    partner = _find_denoise_partner(located)
    if partner is None:
        raise ConfigError(
            f"{located.name} has no weak-denoise partner, so denoise cannot be used with it; "
            "realesr-general-x4v3 has one"
        )
    pair = (located, partner) if _is_weak(located) else (partner, located)
    mixture = Mixture(*pair, denoise)
    return dataclasses.replace(located, mixture=mixture)


def _find_denoise_partner(located: LocatedModel) -> LocatedModel | None:
    """Return the other network of the pair: a file beside this one, or a registered model."""
    official = located.entry is not None and not located.entry.imported
    if not official and located.path is not None:
        marks = (_WEAK, _STRONG) if _is_weak(located) else (_STRONG, _WEAK)
        beside = located.path.with_name(located.path.name.replace(*marks, 1))
        if beside != located.path and beside.is_file():
            return LocatedModel(beside.stem, beside, None)
    entry = located.entry
    if entry is None or entry.imported:  # a copy such as realesr-general-x4v3.fp16.pth
        mark = _WEAK if _is_weak(located) else _STRONG
        stem, found, _ = located.name.partition(mark)
        entry = registry.find(stem + mark) if found else None
    if entry is None:
        return None
    if entry.denoise_partner:
        return locate_entry(registry.resolve(entry.denoise_partner))
    pairs = (e for e in registry.entries() if e.denoise_partner == entry.name)
    partner = next(pairs, None)
    return None if partner is None else locate_entry(partner)


def _is_weak(located: LocatedModel) -> bool:
    """Return whether a model is the one of the two that keeps the noise."""
    return _WEAK in (located.name if located.path is None else located.path.name)
