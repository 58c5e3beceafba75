"""Where a model is that a user names: a name, a file, a training run, `auto`, `A:B@0.8`."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from realesr_cli.errors import CheckpointFormatError, ConfigError, UnknownModelError
from realesr_cli.nets.architecture import Architecture
from realesr_cli.nets.detection import architecture_from_plain
from realesr_cli.text import did_you_mean
from realesr_cli.weights import registry
from realesr_cli.weights.mixing import alpha_label, check_alpha, read_mix, require_alike
from realesr_cli.weights.registry import RegistryEntry

AUTO = "auto"
"""The model name that stands for the official network of the factor asked."""

RUN_FILE = "generator.safetensors"
"""The file of a training run's folder that holds its generator."""

_WEAK = "-wdn-x4v3"
_STRONG = "-x4v3"


@dataclass(frozen=True)
class LocatedModel:
    """Where a model's file is or will be.

    `path` is None for an official one not yet cached, and for a `mixture`, which has two.
    """

    name: str
    path: Path | None
    entry: RegistryEntry | None
    mixture: Mixture | None = None

    @property
    def parts(self) -> tuple[LocatedModel, ...]:
        """The models of which each has one file: itself, or the two of a mixture."""
        return (self,) if self.mixture is None else (self.mixture.first, self.mixture.second)

    @property
    def known_architecture(self) -> Architecture | None:
        """What the registry says of the network; None where only its file can tell."""
        if self.mixture is not None:
            first, second = self.parts
            return first.known_architecture or second.known_architecture
        plain = None if self.entry is None else self.entry.architecture
        return None if plain is None else architecture_from_plain(plain)


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


def locate(model: str | Path = AUTO, *, scale: float | None = None) -> LocatedModel:
    """Where a model's file is, without fetching or reading it.

    A file wins over a registered name, a registered name over a folder (`./name` is the folder),
    and all of these over a mixture `A:B@ALPHA`. Raises UnknownModel for what is none of them,
    CheckpointFormat for a folder that is no run, ConfigError for a mixture that cannot be.
    """
    text, path = str(model), Path(model).expanduser()
    if isinstance(model, str) and text.lower() == AUTO:
        return located_entry(registry.automatic(scale))
    if path.is_file():
        return LocatedModel(path.stem, path, None)
    is_path = isinstance(model, Path) or any(mark in text for mark in "/\\")
    entry = None if is_path else registry.find(text)
    if entry is not None:
        return located_entry(entry)
    if path.is_dir():
        return LocatedModel(path.resolve().name, _run_file(path), None)
    mix = read_mix(text, is_model) if isinstance(model, str) else None
    if mix is not None:
        return locate_mixture(mix.first, mix.second, mix.alpha, scale=scale)
    if is_path:
        near = [p.name for p in path.parent.glob("*") if p.suffix in registry.SUFFIXES]
        raise UnknownModelError(f"{text}: no such file{did_you_mean(path.name, near)}")
    return located_entry(registry.resolve(text))


def is_model(text: str) -> bool:
    """Whether this is `auto`, a file, a folder or a registered name."""
    path = Path(text).expanduser()
    return text.lower() == AUTO or path.exists() or registry.find(text) is not None


def locate_mixture(
    first: str | Path, second: str | Path, alpha: float, *, scale: float | None = None
) -> LocatedModel:
    """Two models to be mixed; nothing is fetched or read.

    Raises what `locate` raises, and ConfigError where a share is outside 0..1 or the registry
    knows already that the two cannot be mixed.
    """
    check_alpha(alpha)
    one, other = locate(first, scale=scale), locate(second, scale=scale)
    for part in (one, other):
        if part.mixture is not None:
            raise ConfigError(
                f"{part.name} is a mixture already, and only two networks can be mixed at a time: "
                "write it to a file with `realesr models interpolate`, and mix that"
            )
        if part.entry is not None:
            require_generator(part.entry)
    known = (one.known_architecture, other.known_architecture)
    if known[0] is not None and known[1] is not None:
        require_alike(known[0], known[1], (one.name, other.name))
    name = f"{one.name}+{other.name}@{alpha_label(alpha)}"
    return LocatedModel(name, None, None, Mixture(one, other, alpha))


def located_entry(entry: RegistryEntry) -> LocatedModel:
    """A registered model, with its file if that is at hand."""
    return LocatedModel(entry.name, registry.cached(entry), entry)


def _run_file(folder: Path) -> Path:
    path = folder / RUN_FILE
    if not path.is_file():
        raise CheckpointFormatError(
            f"{folder}: a folder without {RUN_FILE}: no training run, or one that has not saved yet"
        )
    return path


def require_generator(entry: RegistryEntry) -> None:
    """Raise ConfigError where a registered model is none to upscale with."""
    if entry.kind != "generator":
        raise ConfigError(
            f"{entry.name} is no network to upscale with ({entry.kind}): {entry.about}"
        )


def denoise_partner(located: LocatedModel) -> Path | RegistryEntry:
    """What `denoise` mixes a model with: a registered model, or a file beside its own.

    Nothing is fetched or read. Raises ConfigError where there is no partner.
    """
    if located.mixture is not None:
        raise ConfigError(
            f"{located.name} is a mixture already: leave --denoise away, or mix the two with "
            "`realesr models interpolate` first"
        )
    official = located.entry is not None and not located.entry.imported
    if not official and located.path is not None:
        marks = (_WEAK, _STRONG) if is_weak(located) else (_STRONG, _WEAK)
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


def is_weak(located: LocatedModel) -> bool:
    """Whether a model is the one of the two that keeps the noise."""
    return _WEAK in (located.name if located.path is None else located.path.name)


def _partner_entry(located: LocatedModel) -> RegistryEntry | None:
    entry = located.entry
    if entry is None or entry.imported:  # a copy such as realesr-general-x4v3.fp16.pth
        mark = _WEAK if is_weak(located) else _STRONG
        stem, found, _ = located.name.partition(mark)
        entry = registry.find(stem + mark) if found else None
    if entry is None:
        return None
    if entry.denoise_partner:
        return registry.resolve(entry.denoise_partner)
    pairs = (e for e in registry.entries() if e.denoise_partner == entry.name)
    return next(pairs, None)
