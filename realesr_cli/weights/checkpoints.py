"""Tensors from checkpoint files of unknown origin (.pth, .safetensors, TorchScript); no code."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors
import torch
from torch import Tensor

from realesr_cli.errors import CheckpointFormatError, ConfigError, UnknownModelError
from realesr_cli.plain import parse_json
from realesr_cli.text import format_bytes, format_names, format_value

State = dict[str, Tensor]

METADATA_KEY = "realesr"
"""Where a .safetensors header, and a .pth of ours, keep the network's description, as JSON."""

METADATA_FORMAT = 1

Format = Literal["zip", "legacy", "safetensors", "torchscript"]

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

_MIN_PREFIXED = 4
"""Tensors of the smallest network; fewer names with a prefix are not a network's."""

_MAX_DEPTH = 5

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# The first object of a torch file of the time before zip: pickle protocol 2, then this number.
_LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")

_MAGICS = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89HDF", "an HDF5 file (Keras?)"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "gzip-compressed data; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (b"7767517", "an ncnn network description; the PyTorch file of the model is needed"),
)

_MAX_UNPACKED = 4
"""A checkpoint's zip stores its tensors as they are; more growth than this is an attack."""


def read_state(path: str | Path, *, as_stored: bool = False) -> tuple[State, dict[str, Any]]:
    """Return the tensors of a checkpoint and what the file says of them.

    Containers (`params_ema`, `params`, `state_dict`, ...) and prefixes (`generator.`, `module.`,
    ...) are taken off, averaged weights preferred; floating tensors come as float32 on the CPU,
    or in the file's own dtype if `as_stored`. The second value is the description that
    `save_safetensors` or `save_pth` wrote, or empty. Raises UnknownModelError for a missing file
    and CheckpointFormatError for anything that is not a checkpoint or contains code; nothing in the
    file is ever run.
    """
    path = Path(path)
    kind = find_format(path)
    try:
        if kind == "safetensors":
            state, text = _read_safetensors(path)
        elif kind == "torchscript":
            from realesr_cli.weights.torchscript import read_torchscript

            state, text = read_torchscript(path), ""
        else:
            data = _read_pickle(path)
            found = data.get(METADATA_KEY) if isinstance(data, Mapping) else None
            state, text = _unwrap(data), found if isinstance(found, str) else ""
        metadata = _parse_description(text) if text else {}
        state = {name: _check_tensor(t, name) for name, t in _strip_prefixes(state).items()}
    except CheckpointFormatError as error:
        raise error.prefixed(str(path)) from error.__cause__
    except (MemoryError, RecursionError) as error:
        raise CheckpointFormatError(
            f"{path}: a damaged checkpoint ({type(error).__name__} while reading it)"
        ) from error
    if not as_stored:
        state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    return state, metadata


def find_format(path: Path) -> Format:
    """Return how the checkpoint at `path` is stored, by its first bytes and its table of contents.

    Raises UnknownModelError where there is no file, and CheckpointFormatError, saying what was
    found, where it is anything else.
    """
    try:
        if path.is_dir():
            raise CheckpointFormatError(f"{path}: a folder, expected a .pth or .safetensors file")
        size = path.stat().st_size
        if not path.is_file():
            raise CheckpointFormatError(f"{path}: not a regular file")
        with path.open("rb") as file:
            head = file.read(1024)
    except FileNotFoundError:
        raise UnknownModelError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointFormatError(f"{path}: cannot be read: {error.strerror}") from error
    if size == 0:
        raise CheckpointFormatError(f"{path}: empty (0 bytes)")
    if head.startswith(b"PK"):
        return _find_zip_format(path, size)
    if head.startswith(_LEGACY):
        return "legacy"
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8:
        return "safetensors"
    raise CheckpointFormatError(f"{path}: expected a checkpoint, got {_describe(path, head)}")


def _find_zip_format(path: Path, size: int) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (
        zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, IndexError, OverflowError,
        OSError, struct.error,
    ) as error:  # fmt: skip
        raise CheckpointFormatError(f"{path}: a truncated or damaged file ({error})") from error
    names = [info.filename for info in infos]
    if not any(name.endswith("data.pkl") for name in names):
        inside = format_value(names[0]) if names else "nothing"
        raise CheckpointFormatError(
            f"{path}: a zip archive without a checkpoint (it holds {inside}); unpack it first"
        )
    unpacked = sum(info.file_size for info in infos)
    if unpacked > _MAX_UNPACKED * size + (1 << 20):
        raise CheckpointFormatError(
            f"{path}: refused: {format_bytes(size)} that would unpack to {format_bytes(unpacked)}"
        )
    return "torchscript" if any(name.endswith("constants.pkl") for name in names) else "zip"


def _describe(path: Path, head: bytes) -> str:
    for magic, what in _MAGICS:
        if head.startswith(magic):
            return what
    if head[257:262] == b"ustar":
        return "a tar archive; the oldest torch format is not supported: save it again with torch"
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "a web page: the download failed"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return "pickled Python objects that torch did not write; refused, nothing was run"
    if path.suffix.lower() == ".onnx":
        return "an ONNX model; the PyTorch file of the model is needed"
    try:
        text = head.decode("utf-8", "strict" if len(head) < 1024 else "ignore")
    except UnicodeDecodeError:
        text = ""
    if text and all(c.isprintable() or c.isspace() for c in text):
        return f"text ({text.strip()[:40]!r})"
    return f"an unknown format (it starts with the bytes {head[:8].hex(' ')})"


def _read_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|function|class) ([\w.]+)", str(error))
        what = f" ({found[1]:.80})" if found else ""
        raise CheckpointFormatError(
            f"refused: it holds pickled Python code{what} besides tensors, or is damaged; nothing "
            "was run"
        ) from error
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # torch raises whatever the damaged bytes lead it to
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointFormatError(f"a damaged checkpoint ({reason})") from error


def _read_safetensors(path: Path) -> tuple[State, str]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # dtypes that torch or the library lacks raise all sorts of things
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointFormatError(f"a damaged .safetensors file ({reason})") from error
    return state, str(header.get(METADATA_KEY, ""))


def _parse_description(text: str) -> dict[str, Any]:
    try:
        metadata = parse_json(text)
    except ConfigError as error:
        raise CheckpointFormatError(f"a damaged description of the network ({error})") from error
    if not isinstance(metadata, dict):
        raise CheckpointFormatError("a damaged description of the network (not a table)")
    if metadata.get("format", METADATA_FORMAT) != METADATA_FORMAT:
        raise CheckpointFormatError("its description needs a newer realesr-cli")
    return metadata


def _unwrap(data: object) -> State:
    """Return the state dict inside the nested dicts that trainers save."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(data, Mapping):
            break
        inner = next((data[k] for k in _CONTAINERS if isinstance(data.get(k), Mapping)), None)
        if inner is None and len(data) == 1:
            inner = next((v for v in data.values() if isinstance(v, Mapping)), None)
        if inner is None:
            state = {k: v for k, v in data.items() if isinstance(k, str) and isinstance(v, Tensor)}
            if state:
                return state
            listed = format_names(map(format_value, list(data)[:5])) or "nothing"
            raise CheckpointFormatError(f"no tensors found (it holds {listed})")
        data = inner
    raise CheckpointFormatError(f"expected a network's tensors, got a {type(data).__name__}")


def _strip_prefixes(state: State) -> State:
    for _ in range(_MAX_DEPTH):
        counts = {p: sum(name.startswith(p) for name in state) for p in _PREFIXES}
        prefix = next((p for p, count in counts.items() if count >= _MIN_PREFIXED), None)
        if prefix is None:
            break
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return state


def _check_tensor(tensor: Tensor, name: str) -> Tensor:
    """Return a tensor that is dense, on the CPU, and holds nothing but its own numbers."""
    label = f"tensor {format_value(name)}"
    odd = tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized
    if odd or tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype not in _FLOATS):
        kind = "a nested tensor" if tensor.is_nested else f"{tensor.layout}, {tensor.dtype}"
        raise CheckpointFormatError(f"{label}: expected dense float numbers, got {kind}")
    if tensor.is_meta:
        raise CheckpointFormatError(f"{label} has no data (device meta)")
    if tensor.numel() == 0:
        raise CheckpointFormatError(f"{label} is empty")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointFormatError(f"{label} claims more numbers than the file holds")
    return tensor.detach().contiguous()
