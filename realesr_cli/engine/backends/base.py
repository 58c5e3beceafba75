"""What a backend is: the one interface between the engine and what computes a network."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import nn

from realesr_cli.engine.forward import Forward
from realesr_cli.nets.architecture import Architecture

if TYPE_CHECKING:
    from realesr_cli.engine.policy import GpuInfo, MachineInfo, Policy

VALUE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of one value, by precision."""


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used on a machine, the reason, and the command that changes it."""

    usable: bool
    reason: str
    fix: str | None = None


class Backend(Protocol):
    """A way to compute networks. Backends hold no state; `open` returns what does.

    To add one, write a file with a class like this and list it in `backends.BACKENDS`.
    """

    @property
    def name(self) -> str:
        """The name that users choose it by."""
        ...

    def availability(self, machine: MachineInfo) -> Availability:
        """Return whether it can be used here. Cheap: heavy libraries are only looked for."""
        ...

    def default_precision(self, machine: MachineInfo, gpu: GpuInfo | None) -> tuple[str, str]:
        """Return the precision it computes best in on a GPU (None: the CPU), and the reason."""
        ...

    def supports(self, architecture: Architecture, device: str, precision: str) -> bool:
        """Return whether it can compute such a network on a device ("cpu", "cuda:0", ...)."""
        ...

    def tile_sizes(self, device: str) -> tuple[int, ...]:
        """Return the tile sizes worth trying there, in input pixels, largest first."""
        ...

    def memory_per_pixel(self, architecture: Architecture, precision: str) -> int:
        """Return the working memory of a forward pass in bytes per input pixel of the tile."""
        ...

    def tiles_at_once(self, device: str, threads: int) -> int:
        """Return how many threads call the Forward side by side: 1 where it fills the device."""
        ...

    def open(self, network: nn.Module, policy: Policy) -> Forward:
        """Return what computes `network` on `policy.device` in `policy.precision`.

        It is a Forward of the network's own numbers of channels, which are RGB for nearly all.
        The weights are those of now: later changes of `network` have no effect.
        """
        ...


class LibraryBackend(Backend):
    """What the backends of other libraries than torch share.

    They are optional, and not trusted: before one computes a model, it is tried on one tile of it
    in another process. `auto` uses one only where it was measured to be faster (`engine.trial`).
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    """Modules that must be installed; the first is the library itself."""
    distributions: ClassVar[tuple[str, ...]] = ()
    """What the library may be installed as, where that is not the name of its module."""
    fixed_tiles: ClassVar[bool] = False
    """Whether it prepares for each tile shape, so that all tiles of an image should have one."""

    def availability(self, machine: MachineInfo) -> Availability:
        """Return whether its packages are installed."""
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                fix = f"pip install 'realesr-cli[{self.name}]'"
                return Availability(False, f"the package {package} is not installed", fix)
        found = self.versions()
        return Availability(True, " ".join(f"{name} {version}" for name, version in found.items()))

    def versions(self) -> dict[str, str]:
        """Return the versions of the distributions that hold the library, by name."""
        found = {}
        for name in self.distributions or self.packages[:1]:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(name)
        return found

    def worth_racing(self, machine: MachineInfo, device: str) -> bool:
        """Return whether it may be faster than torch there, so that `auto` should measure it."""
        return False


def output_bytes_per_pixel(scale: int) -> int:
    """Return the bytes of a tile's result per input pixel: RGB in float32, and one copy of it."""
    return 2 * 3 * 4 * scale**2
