"""The backends that compute tiles: one file each, all of them listed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realesr_cli.engine.backends.base import Backend, LibraryBackend
from realesr_cli.engine.backends.ncnn import NcnnBackend
from realesr_cli.engine.backends.onednn import OneDnnBackend
from realesr_cli.engine.backends.onnxruntime import OnnxRuntimeBackend
from realesr_cli.engine.backends.openvino import OpenVinoBackend
from realesr_cli.engine.backends.pytorch import TorchBackend
from realesr_cli.errors import ConfigError
from realesr_cli.text import did_you_mean

if TYPE_CHECKING:
    from realesr_cli.engine.policy import MachineInfo

BACKENDS: tuple[Backend, ...] = (
    OneDnnBackend(),
    TorchBackend(),
    OpenVinoBackend(),
    NcnnBackend(),
    OnnxRuntimeBackend(),
)
"""Every backend; where several can compute a network, the first is preferred.

`auto` uses those of other libraries only where they were measured to be faster (`engine.trial`).
"""


def find_backend(name: str) -> Backend:
    """Return the backend of that name; ConfigError, listing all, where there is none."""
    names = [backend.name for backend in BACKENDS]
    if name not in names:
        listed = ", ".join(("auto", *names))
        raise ConfigError(
            f"unknown backend {name!r}: expected one of {listed}{did_you_mean(name, names)}"
        )
    return BACKENDS[names.index(name)]


def has_fixed_tiles(name: str) -> bool:
    """Return whether a backend prepares for each tile shape, so that tiles should all have one."""
    backend = find_backend(name)
    return isinstance(backend, LibraryBackend) and backend.fixed_tiles


def find_rivals(machine: MachineInfo, device: str) -> list[LibraryBackend]:
    """Return the backends of other libraries that may be faster on a device."""
    return [
        backend
        for backend in BACKENDS
        if isinstance(backend, LibraryBackend)
        and backend.name in machine.backends
        and backend.worth_racing(machine, device)
    ]
