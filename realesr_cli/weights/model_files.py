"""Networks from tensors, and networks as files: .safetensors and .pth with a description."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from realesr_cli.atomic import atomic_write, remove_stale_files, write_errors
from realesr_cli.errors import (
    CheckpointFormatError,
    ConfigError,
    RealesrWarning,
    UnknownArchitectureError,
    WeightsWriteError,
)
from realesr_cli.nets.architecture import Architecture, Generator, shapes_of
from realesr_cli.nets.detection import architecture_from_plain, detect, match
from realesr_cli.text import format_names, format_value
from realesr_cli.weights.checkpoints import METADATA_FORMAT, METADATA_KEY, State

_KNOWN = "known are RRDBNet (ESRGAN, Real-ESRGAN, BSRGAN), Compact (SRVGG) and MSRResNet"


def recognize(
    state: State, metadata: Mapping[str, Any], where: str, known: Architecture | None = None
) -> tuple[Architecture, State]:
    """Return a generator's architecture, and its tensors under the names of the built network.

    The architecture is the one that the file describes, else what the tensors look like, where
    `known` settles what they cannot. Warnings name alternatives that are left, and tensors that do
    not belong to the network. `where` names the file. Raises UnknownArchitectureError, saying what
    was found, for anything else, such as a discriminator, and where description and tensors
    disagree; CheckpointFormatError where a weight is not finite.
    """
    shapes = shapes_of(state)
    described = metadata.get("architecture")
    try:
        if described is not None:
            found = match(shapes, architecture_from_plain(described))
        else:
            found = detect(shapes)
            if known is not None and known in (found.architecture, *found.alternatives):
                found = match(shapes, known)
    except (UnknownArchitectureError, ConfigError) as error:
        raise UnknownArchitectureError(f"{where}: {error} ({_KNOWN})") from error
    if found.foreign:
        text = (
            f"{where}: ignoring tensors that are not part of {found.architecture.describe()}: "
            f"{format_names(map(format_value, found.foreign), 3)}"
        )
        warnings.warn(RealesrWarning(text), stacklevel=2)
    if found.alternatives:
        others = " or ".join(other.describe() for other in found.alternatives)
        text = (
            f"{where}: using it as {found.architecture.describe()}, but {others} has the same "
            "tensors; if it is that, the images are wrong"
        )
        warnings.warn(RealesrWarning(text, advice="ambiguous-model"), stacklevel=2)
    own = found.canonical(state)
    _require_finite(own, where)
    return found.architecture, own


def _require_finite(state: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in state.items():
        label = f"{where}: tensor {format_value(name)}"
        if not tensor.is_floating_point():
            raise CheckpointFormatError(f"{label}: expected float numbers, got {tensor.dtype}")
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointFormatError(
                f"{label} holds NaN or Inf; such a network only gives black images (a training "
                "run that diverged?)"
            )


def build_network(state: Mapping[str, Tensor], architecture: Architecture) -> Generator:
    """Return a network of that architecture with these tensors, for inference (no gradients)."""
    with torch.device("meta"):
        net = architecture.build()
    net.load_state_dict(dict(state), assign=True)
    return net.eval().requires_grad_(False)


# --- writing ------------------------------------------------------------------------------------


def model_metadata(
    architecture: Architecture, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the description to save with a network's weights; `extra` is plain data."""
    plain = architecture.to_plain()
    return {"architecture": plain, "scale": architecture.scale, **(extra or {})}


def description_text(metadata: Mapping[str, Any]) -> str:
    """Return the description of a network as it stands in files: JSON, with its `format`."""
    return json.dumps({"format": METADATA_FORMAT, **metadata}, sort_keys=True)


def save_safetensors(
    path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write tensors and their description (plain data) atomically.

    The header's key `realesr` holds the description as JSON, with `format` added. The same tensors
    and description give the same bytes. Raises WeightsWriteError.
    """
    header = {"format": "pt", METADATA_KEY: description_text(metadata)}
    # The library writes the keys of the header in random order: sort them.
    data = memoryview(safetensors.torch.save(_detach(state), metadata=header))
    end = 8 + int.from_bytes(data[:8], "little")
    text = json.dumps(json.loads(bytes(data[8:end])), sort_keys=True, separators=(",", ":"))
    sorted_header = text.encode() + b" " * (-len(text.encode()) % 8)
    with _write(Path(path)) as file:
        file.write(len(sorted_header).to_bytes(8, "little") + sorted_header)
        file.write(data[end:])


def save_pth(
    path: str | Path,
    data: Mapping[str, Mapping[str, Tensor]],
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write `{"params": state, "params_ema": state}` as other tools read it, atomically.

    A description goes beside them as JSON under `realesr`, which other tools ignore. Raises
    WeightsWriteError.
    """
    plain: dict[str, Any] = {key: _detach(state) for key, state in data.items()}
    if metadata is not None:
        plain[METADATA_KEY] = description_text(metadata)
    try:
        # Through a file object: given a path, torch writes the temporary name into the file.
        with _write(Path(path)) as file:
            torch.save(plain, file)
    except RuntimeError as error:  # of torch's zip writer, where the disk is full
        raise WeightsWriteError(f"{path}: cannot be written: {error}") from error


def _detach(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, each with memory of its own."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


@contextlib.contextmanager
def _write(path: Path) -> Iterator[BinaryIO]:
    with write_errors(path, WeightsWriteError):
        remove_stale_files(path.parent)
        with atomic_write(path) as file:
            yield file


def make_folder(target: Path) -> None:
    """Make the folder of a file. Raises WeightsWriteError."""
    with write_errors(target.parent, WeightsWriteError):
        target.parent.mkdir(parents=True, exist_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically. Raises WeightsWriteError."""
    with _write(path) as file:
        file.write(text.encode())
