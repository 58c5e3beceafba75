"""Architecture records: from tensor shapes to a description, and from that to a network."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from realesr_cli.errors import ConfigError, UnknownArchitectureError
from realesr_cli.nets.compact import CompactArchitecture, detect_compact
from realesr_cli.nets.rrdbnet import RRDBArchitecture, canonical_names, detect_rrdb
from realesr_cli.nets.srresnet import SRResNetArchitecture, detect_srresnet
from realesr_cli.settings import from_plain, to_plain
from realesr_cli.text import did_you_mean

V = TypeVar("V")

Shapes = Mapping[str, tuple[int, ...]]


class Architecture(Protocol):
    """What every architecture record offers; records are frozen dataclasses."""

    kind: ClassVar[str]

    def __hash__(self) -> int: ...

    @property
    def scale(self) -> int:
        """Output size over input size."""
        ...

    @property
    def receptive_radius(self) -> int:
        """Input pixels on each side that one output pixel can depend on."""
        ...

    def build(self) -> nn.Module:
        """An untrained network with `.architecture` and `.scale`."""
        ...

    def describe(self) -> str:
        """One line for people."""
        ...


RECORDS: tuple[type[Any], ...] = (RRDBArchitecture, SRResNetArchitecture, CompactArchitecture)
"""Every known kind of generator."""

# Compact's test is the loosest (numbered layers named body), so it comes last.
_DETECTORS = (detect_rrdb, detect_compact)


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a state dict."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def detect(shapes: Shapes) -> Architecture:
    """The architecture of the network whose state dict has these names and shapes.

    New, mid and old ESRGAN key layouts are known. Raises UnknownArchitecture, saying what was
    found, when the tensors belong to something else or some are missing.
    """
    residual = detect_srresnet(shapes)
    if residual is not None:
        # Before renaming: its upconv1 is a name of ESRGAN's mid layout too.
        _require_equal(residual, shapes)
        return residual
    renamed = {new: tuple(shapes[old]) for old, new in canonical_names(shapes).items()}
    for detector in _DETECTORS:
        found = detector(renamed)
        if found is not None:
            _require_equal(found, renamed)
            return found
    raise UnknownArchitectureError(f"not a network this package knows: {summary(shapes)}")


def canonical(state: Mapping[str, V], architecture: Architecture) -> dict[str, V]:
    """A state dict of any known key layout in the names of the built network."""
    if architecture.kind != RRDBArchitecture.kind:
        return dict(state)
    return {new: state[old] for old, new in canonical_names(state).items()}


@functools.lru_cache(maxsize=16)
def expected_shapes(architecture: Architecture) -> Shapes:
    """Names and shapes of the state dict of a network of this architecture; no memory is used."""
    with torch.device("meta"):
        return MappingProxyType(shapes_of(architecture.build().state_dict()))


def _require_equal(architecture: Architecture, shapes: Shapes) -> None:
    expected = expected_shapes(architecture)
    for name in [*expected, *shapes]:
        if shapes.get(name) != expected.get(name):
            raise UnknownArchitectureError(
                f"looks like {architecture.describe()}, but tensor {name!r} is "
                f"{_shape(shapes.get(name))} where {_shape(expected.get(name))} belongs"
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "a scalar"


def summary(shapes: Shapes) -> str:
    """What a state dict holds, in one line: how many tensors, the first few, and a likely name."""
    if not shapes:
        return "no tensors"
    shown = ", ".join(f"{name} {_shape(shape)}" for name, shape in list(shapes.items())[:3])
    guess = next((what for key, what in _FOREIGN if any(key in name for name in shapes)), "")
    return f"{len(shapes)} tensors ({shown}, ...){guess}"


# Names that betray networks people try to load, with what to say of them.
_FOREIGN = (
    ("conv9.weight", "; this looks like a U-Net discriminator, which only training uses"),
    ("linear1.weight", "; this looks like a VGG-style discriminator, which only training uses"),
    ("features.0.weight", "; this looks like a VGG classifier"),
    ("relative_position", "; this looks like a transformer (SwinIR, HAT, DAT)"),
    ("attn", "; this looks like a transformer (SwinIR, HAT, DAT)"),
    ("block_1.", "; this looks like a SPAN network"),
    ("model.diffusion_model", "; this looks like a Stable Diffusion checkpoint"),
    ("RRDB_trunk", "; this looks like an ESRGAN of a kind that is not handled (not RGB?)"),
    ("rdb1", "; this looks like an RRDBNet of a kind that is not handled (not RGB?)"),
)


def architecture_to_plain(architecture: Architecture) -> dict[str, Any]:
    """The record as plain data, with its kind."""
    return {"kind": architecture.kind, **to_plain(architecture)}


def architecture_from_plain(data: Mapping[str, Any]) -> Architecture:
    """The inverse of `architecture_to_plain`; ConfigError for an unknown kind or field."""
    kinds = {record.kind: record for record in RECORDS}
    kind = data.get("kind")
    if kind not in kinds:
        near = did_you_mean(str(kind), list(kinds))
        raise ConfigError(f"unknown architecture {kind!r}: known are {', '.join(kinds)}{near}")
    fields = {key: value for key, value in data.items() if key != "kind"}
    record: Architecture = from_plain(kinds[kind], fields)
    return record


def count_parameters(architecture: Architecture) -> int:
    """Trainable numbers in a network of this architecture."""
    with torch.device("meta"):
        return sum(p.numel() for p in architecture.build().parameters())
