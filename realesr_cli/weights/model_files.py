"""Checkpoint files in and out: .pth (tensors only, never code) and .safetensors; to networks."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from realesr_cli.atomic import atomic_path, atomic_write, write_errors
from realesr_cli.errors import (
    CheckpointFormatError,
    ConfigError,
    RealesrWarning,
    UnknownArchitectureError,
    WeightsWriteError,
)
from realesr_cli.nets.architecture import Architecture, Generator, shapes_of
from realesr_cli.nets.detection import architecture_from_plain, detect, first_difference, match
from realesr_cli.text import format_names
from realesr_cli.weights.file_format import checkpoint_format
from realesr_cli.weights.mixing import check_alpha

State = dict[str, Tensor]

METADATA_KEY = "realesr"
"""Where a .safetensors header, and a .pth of ours, keep the network's description, as JSON."""

METADATA_FORMAT = 1

# Where trainers put the state dict, the averaged weights (EMA) first.
_CONTAINERS = (
    "params_ema",
    "params-ema",
    "generator_ema",
    "model_state_dict",
    "state_dict",
    "params",
    "model",
    "net",
    "generator",
    "netG",
)

# What trainers put in front of the generator's names; what has another prefix is left out.
_PREFIXES = ("generator_ema.", "generator.", "netG.", "net_g.", "module.", "_orig_mod.")

_MAX_DEPTH = 5

_KNOWN = "known are RRDBNet (ESRGAN, Real-ESRGAN, BSRGAN), Compact (SRVGG) and MSRResNet"


def read_state(path: str | Path, *, as_stored: bool = False) -> tuple[State, dict[str, Any]]:
    """The tensors of a checkpoint and what the file says of them.

    Containers (`params_ema`, `params`, `state_dict`, ...) and prefixes (`generator.`, `module.`,
    ...) are taken off, averaged weights preferred; floating tensors come as float32 on the CPU,
    or in the file's own number format if `as_stored`. The second value is the description that
    `save_safetensors` or `save_pth` wrote, or empty. Raises UnknownModel for a missing file and
    CheckpointFormat for everything that is no checkpoint or holds code; nothing in the file is
    ever run.
    """
    path = Path(path)
    if checkpoint_format(path) == "safetensors":
        state, metadata = _read_safetensors(path)
    else:
        data = _read_pickle(path)
        found = data.get(METADATA_KEY) if isinstance(data, Mapping) else None
        state = _unwrap(data, path)
        metadata = _description(found, path) if isinstance(found, str) else {}
    state = _without_prefixes(state)
    plain = {name: _plain_tensor(tensor, name, path) for name, tensor in state.items()}
    if not as_stored:
        plain = {k: v.float() if v.is_floating_point() else v for k, v in plain.items()}
    return plain, metadata


def _read_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|function|class) ([\w.]+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise CheckpointFormatError(
            f"{path}: holds pickled Python code{what} besides tensors, or is damaged; refused, "
            "nothing was run"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # torch raises whatever the damaged bytes lead it to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointFormatError(
            f"{path}: a damaged checkpoint ({reason}); fetch it again"
        ) from error


def _read_safetensors(path: Path) -> tuple[State, dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointFormatError(f"{path}: a damaged .safetensors file ({error})") from error
    return state, _description(header.get(METADATA_KEY, "{}"), path)


def _description(text: str, path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
    except ValueError as error:
        raise CheckpointFormatError(
            f"{path}: a damaged description of the network ({error})"
        ) from error
    if not isinstance(metadata, dict) or metadata.get("format", 1) != METADATA_FORMAT:
        raise CheckpointFormatError(f"{path}: described in a newer form; update realesr-cli")
    return metadata


def _unwrap(data: object, path: Path) -> State:
    """The state dict inside the nested dicts that trainers save."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(data, Mapping):
            break
        inner = next((data[k] for k in _CONTAINERS if isinstance(data.get(k), Mapping)), None)
        if inner is None and len(data) == 1:
            inner = next((v for v in data.values() if isinstance(v, Mapping)), None)
        if inner is None:
            state = {str(k): v for k, v in data.items() if isinstance(v, Tensor)}
            if state:
                return state
            listed = ", ".join(map(str, list(data)[:5])) or "nothing"
            raise CheckpointFormatError(f"{path}: no tensors found (it holds {listed})")
        data = inner
    raise CheckpointFormatError(f"{path}: holds a {type(data).__name__}, not a network's tensors")


def _without_prefixes(state: State) -> State:
    while prefix := next((p for p in _PREFIXES if any(k.startswith(p) for k in state)), None):
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return state


def _plain_tensor(tensor: Tensor, name: str, path: Path) -> Tensor:
    """A tensor as it is worked with: dense, on the CPU, nothing but its own numbers."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise CheckpointFormatError(f"{path}: tensor {name!r} is sparse, quantized or complex")
    if tensor.numel() == 0:
        raise CheckpointFormatError(f"{path}: tensor {name!r} is empty")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointFormatError(
            f"{path}: tensor {name!r} claims more numbers than the file holds"
        )
    return tensor.detach().contiguous()


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
        warnings.warn(
            f"{where}: ignoring tensors that are not part of {found.architecture.describe()}: "
            f"{format_names(found.foreign, 3)}",
            RealesrWarning,
            stacklevel=2,
        )
    if found.alternatives:
        others = " or ".join(other.describe() for other in found.alternatives)
        warnings.warn(
            f"{where}: taken for {found.architecture.describe()}, but {others} has the same "
            "tensors, and the wrong choice gives wrong images",
            RealesrWarning,
            stacklevel=2,
        )
    own = found.canonical(state)
    require_finite(own, where)
    return found.architecture, own


def build_network(state: Mapping[str, Tensor], architecture: Architecture) -> Generator:
    """Return a network of that architecture with these tensors, for inference (no gradients)."""
    with torch.device("meta"):
        net = architecture.build()
    net.load_state_dict(dict(state), assign=True)
    return net.eval().requires_grad_(False)


def load_model(path: str | Path) -> Generator:
    """The generator in a file, recognized from its tensors, ready for inference.

    Maps (B, 3, H, W) RGB in [0, 1] to (B, 3, H * scale, W * scale), not clamped, and carries
    `.architecture` and `.scale`. Raises what `read_state` and `detect_architecture` raise, and
    CheckpointFormat where a weight is not finite.
    """
    state, metadata = read_state(path)
    architecture, state = recognize(state, metadata, str(path))
    return build_network(state, architecture)


def require_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Raise CheckpointFormat naming the first tensor that holds NaN or infinity."""
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointFormatError(
                f"{where}: tensor {name!r} holds NaN or infinity; such a network only gives "
                "black images (a training run that diverged?)"
            )


def model_metadata(
    architecture: Architecture, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The description to save with a network's weights; `extra` is plain data."""
    plain = architecture.to_plain()
    return {"architecture": plain, "scale": architecture.scale, **(extra or {})}


def description_text(metadata: Mapping[str, Any]) -> str:
    """The description of a network as it stands in files: JSON, with its `format`."""
    return json.dumps({"format": METADATA_FORMAT, **metadata}, sort_keys=True)


def save_safetensors(
    path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write tensors and their description (plain data), whole or not at all.

    The header's key `realesr` holds the description as JSON, with `format` added. Raises
    WeightsWriteError where the file cannot be written.
    """
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    header = {"format": "pt", METADATA_KEY: description_text(metadata)}
    try:
        with atomic_path(Path(path)) as part:
            safetensors.torch.save_file(tensors, part, metadata=header)
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsWriteError(f"{path}: cannot be written ({error})") from error


def save_pth(
    path: str | Path,
    data: Mapping[str, Mapping[str, Tensor]],
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write `{"params": state, "params_ema": state}` as other tools read it, whole or not at all.

    A description goes beside them as JSON under `realesr`, which other tools pass over. Raises
    WeightsWriteError where the file cannot be written.
    """
    plain: dict[str, Any] = {
        key: {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
        for key, state in data.items()
    }
    if metadata is not None:
        plain[METADATA_KEY] = description_text(metadata)
    try:
        # Through a file object: given a path, torch writes the part file's name into the bytes.
        with atomic_path(Path(path)) as part, part.open("wb") as file:
            torch.save(plain, file)
    except (OSError, RuntimeError) as error:  # torch's zip writer raises RuntimeError
        raise WeightsWriteError(f"{path}: cannot be written ({error})") from error


def make_folder(target: Path) -> None:
    """Make the folder of a file; raises WeightsWriteError where that cannot be."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsWriteError(
            f"{target.parent}: cannot be made ({error.strerror}); choose another folder with -o"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a small text file, whole or not at all; WeightsWriteError where that cannot be."""
    with write_errors(path, WeightsWriteError), atomic_write(path) as file:
        file.write(text.encode())


def interpolate(a: Mapping[str, Tensor], b: Mapping[str, Tensor], alpha: float) -> State:
    """Network interpolation: (1 - alpha) a + alpha b for every tensor; the ends are exact.

    Source: "ESRGAN" (2018), section 3.4. Raises ConfigError where alpha is outside 0..1 or the
    networks differ, naming the first tensor that does.
    """
    check_alpha(alpha)
    difference = first_difference(shapes_of(a), shapes_of(b))
    if difference:
        raise ConfigError(f"these networks cannot be interpolated: {difference}")
    if alpha in (0, 1):
        return {name: tensor.clone() for name, tensor in (b if alpha else a).items()}
    return {name: (1 - alpha) * tensor + alpha * b[name] for name, tensor in a.items()}
