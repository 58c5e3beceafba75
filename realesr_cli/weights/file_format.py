"""What kind of file something is, by its first bytes and its table of contents; nothing is run."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from realesr_cli.errors import CheckpointFormatError, UnknownModelError

Format = Literal["zip", "legacy", "safetensors"]

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


def checkpoint_format(path: Path) -> Format:
    """How the checkpoint at `path` is stored: a torch zip, a torch file before that, safetensors.

    Raises UnknownModel where there is no file, and CheckpointFormat, saying what was found, where
    it is anything else.
    """
    if path.is_dir():
        raise CheckpointFormatError(
            f"{path}: a folder, where a .pth or .safetensors file is needed"
        )
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(1024)
    except FileNotFoundError:
        raise UnknownModelError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointFormatError(f"{path}: cannot be read ({error.strerror})") from error
    if size == 0:
        raise CheckpointFormatError(f"{path}: empty (0 bytes); fetch it again")
    if head.startswith(b"PK"):
        _check_zip(path, size)
        return "zip"
    if head.startswith(_LEGACY):
        return "legacy"
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8:
        return "safetensors"
    raise CheckpointFormatError(f"{path}: not a checkpoint but {_describe(path, head)}")


def _check_zip(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise CheckpointFormatError(
            f"{path}: cut short or damaged ({error}); fetch it again"
        ) from error
    names = [info.filename for info in infos]
    if any(name.endswith("constants.pkl") for name in names):
        raise CheckpointFormatError(
            f"{path}: a TorchScript archive, which holds code; the model's state dict is needed"
        )
    if not any(name.endswith("data.pkl") for name in names):
        inside = names[0] if names else "nothing"
        raise CheckpointFormatError(
            f"{path}: a zip archive that is no checkpoint (it holds {inside}); unpack it first"
        )
    unpacked = sum(info.file_size for info in infos)
    if unpacked > _MAX_UNPACKED * size + (1 << 20):
        raise CheckpointFormatError(
            f"{path}: {size} bytes that claim to unpack to {unpacked}; refused"
        )


def _describe(path: Path, head: bytes) -> str:
    for magic, what in _MAGICS:
        if head.startswith(magic):
            return what
    if head[257:262] == b"ustar":
        return "a tar archive (the oldest torch format is not handled: save it again with torch)"
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "a web page: the download went wrong; fetch it again"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return "pickled Python objects without torch's mark; refused, nothing was run"
    if path.suffix.lower() == ".onnx":
        return "an ONNX model; the PyTorch file of the model is needed"
    try:
        text = head.decode("utf-8", "strict" if len(head) < 1024 else "ignore")
    except UnicodeDecodeError:
        text = ""
    if text and all(c.isprintable() or c.isspace() for c in text):
        return f"text ({text.strip()[:40]!r})"
    return f"something unknown (it starts with the bytes {head[:8].hex(' ')})"
