"""Every known network, and which of them a state dict belongs to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from realesr_cli.errors import ConfigError, UnknownArchitectureError
from realesr_cli.nets.architecture import Architecture, Shapes
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture
from realesr_cli.nets.srresnet import SRResNetArchitecture
from realesr_cli.settings import from_plain
from realesr_cli.text import did_you_mean, format_names, format_value

V = TypeVar("V")

ARCHITECTURES: tuple[type[Architecture], ...] = (
    SRResNetArchitecture,
    RRDBArchitecture,
    CompactArchitecture,
)
"""Every known kind of generator, in order of detection: those with the strictest rule first."""

FOREIGN_SHARE = 1e-3
"""Tensors that do not belong are ignored up to this share of the network's numbers.

Counters, versions and fixed kernels that trainers store stay below it, a layer does not.
"""

_MIN_FOREIGN = 16
"""Numbers that do not belong and are ignored in a network of any size."""


@dataclass(frozen=True)
class Detection:
    """A network recognized by its tensors.

    `names` has for each of its tensors the name in the file, by the name in the built network;
    `alternatives` are other networks of exactly the same tensors; `foreign` are the names of
    tensors that do not belong to it.
    """

    architecture: Architecture
    names: Mapping[str, str]
    alternatives: tuple[Architecture, ...] = ()
    foreign: tuple[str, ...] = ()

    def canonical(self, state: Mapping[str, V]) -> dict[str, V]:
        """Return the network's part of a state dict, under the names of the built network."""
        return {name: state[own] for name, own in self.names.items()}


def detect(shapes: Shapes) -> Detection:
    """Recognize the network whose state dict has these names and shapes.

    Raises UnknownArchitectureError, saying what was found, where the tensors belong to something
    else or some are missing.
    """
    for known in ARCHITECTURES:
        try:
            found = known.detect(shapes)
        except ConfigError as error:
            raise UnknownArchitectureError(
                f"looks like a {known.kind} network, but {error}"
            ) from None
        if found:
            names, foreign = _match(found[0], shapes, f"looks like {found[0].describe()}")
            return Detection(found[0], names, found[1:], foreign)
    raise UnknownArchitectureError(f"not a network this package knows: {summarize(shapes)}")


def match(shapes: Shapes, architecture: Architecture) -> Detection:
    """Compare a state dict with an architecture that is stated elsewhere.

    Raises UnknownArchitectureError, naming the first tensor that differs.
    """
    names, foreign = _match(architecture, shapes, f"described as {architecture.describe()}")
    return Detection(architecture, names, foreign=foreign)


def _match(
    architecture: Architecture, shapes: Shapes, claim: str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return names and foreign tensors of a state dict that should be of this architecture."""
    expected = architecture.shapes()
    own = {new: old for old, new in architecture.canonical_names(shapes).items()}
    if len(own) < len(shapes):
        raise UnknownArchitectureError(f"{claim}, but two tensors have the same place in it")
    found = {new: shapes[old] for new, old in own.items()}
    for name in expected:
        if found.get(name) != expected[name]:
            raise UnknownArchitectureError(f"{claim}, but {_difference(name, found, expected)}")
    parts = {name.split(".")[0] for name in expected}
    foreign = [name for name in found if name not in expected]
    inside = [name for name in foreign if name.split(".")[0] in parts]
    if inside:
        raise UnknownArchitectureError(f"{claim}, but {_difference(inside[0], found, expected)}")
    allowed = max(_MIN_FOREIGN, int(FOREIGN_SHARE * sum(map(math.prod, expected.values()))))
    if sum(math.prod(found[name]) for name in foreign) > allowed:
        raise UnknownArchitectureError(
            f"{claim}, but it has {len(foreign)} tensors more, such as "
            f"{_difference(foreign[0], found, expected)}"
        )
    return {name: own[name] for name in expected}, tuple(own[name] for name in foreign)


def first_difference(found: Shapes, expected: Shapes) -> str:
    """Return the first tensor in which two state dicts differ, in words; empty if none does."""
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            return _difference(name, found, expected)
    return ""


def _difference(name: str, found: Shapes, expected: Shapes) -> str:
    label = f"tensor {format_value(name)}"
    if name not in expected:
        return f"{label} ({_shape(found[name])}) does not belong to it"
    if name not in found:
        return f"{label} ({_shape(expected[name])}) is missing"
    return f"{label} is {_shape(found[name])}, expected {_shape(expected[name])}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def summarize(shapes: Shapes) -> str:
    """Describe a foreign state dict: how many tensors, the first few, and a likely name."""
    if not shapes:
        return "no tensors"
    shown = format_names([f"{format_value(name)} {_shape(s)}" for name, s in shapes.items()], 3)
    guess = next((what for key, what in _FOREIGN if any(key in name for name in shapes)), "")
    return f"{len(shapes)} tensors ({shown}){guess}"


# Names that betray networks people try to load.
_FOREIGN = (
    ("conv9.weight", "; this looks like a U-Net discriminator, which only training uses"),
    ("linear1.weight", "; this looks like a VGG-style discriminator, which only training uses"),
    ("features.0.weight", "; this looks like an ImageNet classifier, which only training uses"),
    ("relative_position", "; this looks like a transformer (SwinIR, HAT, DAT)"),
    ("attn", "; this looks like a transformer (SwinIR, HAT, DAT)"),
    ("block_1.", "; this looks like a SPAN network"),
    ("model.diffusion_model", "; this looks like a Stable Diffusion checkpoint"),
    ("RRDB_trunk", "; this looks like an ESRGAN variant that is not supported"),
    ("rdb1", "; this looks like an RRDBNet variant that is not supported"),
)


def architecture_from_plain(data: Any) -> Architecture:
    """Return the record of plain data: the inverse of `Architecture.to_plain`.

    Raises ConfigError for anything else than a table of a known kind with known fields.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"expected an architecture as a table, got {type(data).__name__}")
    kinds = {record.kind: record for record in ARCHITECTURES}
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        near = did_you_mean(kind, list(kinds)) if isinstance(kind, str) else ""
        shown = format_value(kind)
        raise ConfigError(f"unknown architecture {shown}: known are {', '.join(kinds)}{near}")
    fields = {key: value for key, value in data.items() if key != "kind"}
    return from_plain(kinds[kind], fields)
