"""Tensors out of a TorchScript archive; its code is neither run nor compiled.

An archive is a zip file: `data.pkl` is a pickle of the module as nested objects, tensors stand in
`data/N`, and the code in `code/`, which nothing here opens. The pickle is read with a table of a
few harmless functions; classes of the archive become empty stand-ins.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from realesr_cli.errors import CheckpointFormatError
from realesr_cli.text import format_value

_MAX_PICKLE_BYTES = 64 << 20
_MAX_OBJECTS = 100_000
_MAX_DEPTH = 40

_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class _Module:
    """Stands for an object of any class of the archive."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the parameters and buffers of a TorchScript archive by their state-dict names.

    Raises CheckpointFormatError where the archive is damaged or holds anything unexpected.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
            if archive.getinfo(name).file_size > _MAX_PICKLE_BYTES:
                raise CheckpointFormatError("a TorchScript archive with an oversized index")
            root = _Unpickler(archive, name.removesuffix("data.pkl")).load()
            state = dict(_tensors_of(root))
    except (CheckpointFormatError, MemoryError, RecursionError):
        raise
    except Exception as error:  # damaged bytes lead an unpickler to anything
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointFormatError(f"a damaged TorchScript archive ({reason})") from error
    if not state:
        raise CheckpointFormatError("a TorchScript archive without tensors")
    return state


class _Unpickler(pickle._Unpickler):  # in Python: the C one allocates memory that a file names
    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(folder + "data.pkl")))
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) in _FUNCTIONS:
            return _FUNCTIONS[module, name]
        shown = format_value(f"{module}.{name}")
        raise CheckpointFormatError(f"refused: it holds {shown}; nothing was run")

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not str(key).isalnum():
            raise CheckpointFormatError("a damaged TorchScript archive (storage)")
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._folder}data/{key}"))
            self._storages[key] = torch.frombuffer(data, dtype=dtype, count=count)
        return self._storages[key]


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    if offset < 0 or offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) >= len(
        storage
    ):
        raise CheckpointFormatError("a damaged TorchScript archive (tensor outside its storage)")
    return storage.as_strided(size, stride, offset)


def _first(value: object, *_: object) -> object:
    return value


_FUNCTIONS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    **{
        ("torch.jit._pickle", name): _first
        for name in (
            "build_boollist",
            "build_doublelist",
            "build_intlist",
            "build_tensorlist",
            "restore_type_tag",
        )
    },
}


def _tensors_of(root: object) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a module and of all modules in it."""
    stack, seen = [("", root, 0)], 0
    while stack:
        prefix, module, depth = stack.pop()
        items = module.state if isinstance(module, _Module) else None
        if not isinstance(items, Mapping):
            continue
        seen += len(items)
        if seen > _MAX_OBJECTS or depth > _MAX_DEPTH:
            raise CheckpointFormatError("a TorchScript archive with too many or too deep modules")
        for name, value in items.items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
            elif isinstance(value, _Module):
                stack.append((f"{prefix}{name}.", value, depth + 1))
