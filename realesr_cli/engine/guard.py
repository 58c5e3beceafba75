"""Forward passes that never lose a tile: split when memory runs out, repeated when bad."""

from __future__ import annotations

import dataclasses
import math
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from realesr_cli.engine import policy as policies
from realesr_cli.engine.backends import find_backend, has_fixed_tiles
from realesr_cli.engine.backends.base import LibraryBackend
from realesr_cli.engine.forward import Forward, measure_context, open_lazily
from realesr_cli.engine.policy import MachineInfo, Policy
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.errors import (
    CheckpointFormatError,
    ConfigError,
    OutOfMemoryError,
    RealesrWarning,
)
from realesr_cli.nets.architecture import Architecture, adapt_to_rgb

BLEND = 8
"""Input pixels on each side of a boundary over which inexact tiles are blended."""

SMALLEST = 32
"""Tiles are not split below this many pixels a side."""

LARGEST_RMS = 1e4
"""Root mean square of a tile's values above which they are not an image: white is 1, and no trained
network leaves about [-1, 2] for inputs in [0, 1]. One weight of 1e30 gives outputs far above it
without any NaN or Inf."""


@dataclass(frozen=True)
class Forwards:
    """The ways to compute a tile: the chosen one, and its fallbacks."""

    fast: Forward
    exact: Forward | None = None
    """fp32, on the same device where torch computes; None where `fast` is that already."""
    cpu: Forward | None = None
    """fp32 on the CPU; None where `fast` runs on the CPU."""
    scale: int = 4
    multiple: int = 1


def build_forwards(network: nn.Module, policy: Policy, machine: MachineInfo) -> Forwards:
    """Open the forward that `policy` describes, with its fallbacks; `network` is left as it is."""
    architecture = get_architecture(network)
    on_cpu = policies.choose(machine, EngineSettings("cpu", "fp32"), architecture)
    exact = dataclasses.replace(policy, precision="fp32")
    if isinstance(find_backend(policy.backend), LibraryBackend):
        # Where another library gives NaN, its fp32 is no better a witness than its bf16.
        exact = on_cpu
    return Forwards(
        fast=_open(network, policy),
        exact=None if exact == policy else open_lazily(lambda: _open(network, exact)),
        cpu=None if policy.device == "cpu" else open_lazily(lambda: _open(network, on_cpu)),
        scale=architecture.scale,
        multiple=architecture.multiple,
    )


def _open(network: nn.Module, policy: Policy) -> Forward:
    forward = find_backend(policy.backend).open(network, policy)
    return adapt_to_rgb(forward, get_architecture(network))


def get_architecture(network: nn.Module) -> Architecture:
    """Return what a network is made of; ConfigError for a module that does not say."""
    architecture = getattr(network, "architecture", None)
    if architecture is None:
        raise ConfigError(
            f"expected a network with .architecture, as load_model returns it, got a "
            f"{type(network).__name__}"
        )
    return architecture  # type: ignore[no-any-return]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception of torch or Python means that memory ran out, on any device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


def _is_plausible(y: Tensor) -> bool:
    """Return whether all values are finite and their root mean square is at most LARGEST_RMS.

    The norm is one pass over the tile without a copy, as fast as a sum, and any NaN or Inf makes
    it NaN or Inf, for which the comparison is False.
    """
    return float(torch.linalg.vector_norm(y)) <= LARGEST_RMS * math.sqrt(y.numel())


class Guard:
    """`Forwards` made safe; a Forward itself.

    What it learns holds for the rest of its life: how many pixels fit at a time, that the device
    is too small altogether, and that the fast precision overflows. Each is warned of once.
    """

    def __init__(self, forwards: Forwards, context: int) -> None:
        """Take the forwards, and the input pixels that each part of a split tile sees beyond it."""
        self._forwards = forwards
        self._context = context
        self._lock = threading.Lock()
        self._most_pixels: int | None = None
        self._use_exact = False
        self._use_cpu = False
        self._warned: set[str] = set()

    def __call__(self, x: Tensor) -> Tensor:
        """Compute (B, 3, h, w) to (B, 3, h * scale, w * scale).

        Raises OutOfMemoryError when no part is small enough, and CheckpointFormatError when the
        result is not an image even in fp32.
        """
        limit = self._most_pixels
        too_large = limit is not None and x.numel() // x.shape[1] > limit
        if too_large and not self._use_cpu and self._can_split(x):
            return self._split(x)
        try:
            return self._compute(x)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, so that the traceback does not keep the failed tensors alive.
        self._release()
        return self._compute_smaller(x)

    def _compute(self, x: Tensor) -> Tensor:
        """Run the fastest forward that has given plausible results so far."""
        forwards = self._forwards
        if self._use_cpu and forwards.cpu is not None:
            return _require_image(forwards.cpu(x))
        if forwards.exact is None:
            return _require_image(forwards.fast(x))
        if not self._use_exact:
            y = forwards.fast(x)
            if _is_plausible(y):
                return y
            self._warn("the fast precision overflowed; continuing in fp32")
            self._use_exact = True
        return _require_image(forwards.exact(x))

    def _compute_smaller(self, x: Tensor) -> Tensor:
        """Go on after memory ran out: in halves, else on the CPU."""
        if self._can_split(x):
            with self._lock:
                half = -(-(x.numel() // x.shape[1]) // 2)
                self._most_pixels = min(half, self._most_pixels or half)
            self._warn("memory ran out; continuing with smaller tiles, at the same quality")
            return self._split(x)
        if self._forwards.cpu is not None and not self._use_cpu:
            self._warn("the device has too little memory even for small tiles; using the CPU")
            self._use_cpu = True
            return self(x)
        raise OutOfMemoryError(
            f"out of memory even for a tile of {x.shape[3]}x{x.shape[2]} pixels",
            advice="out-of-memory",
        )

    def _can_split(self, x: Tensor) -> bool:
        """Return whether halves are really smaller and still see all the context they need."""
        return x.shape[0] > 1 or max(x.shape[2:]) >= max(2 * SMALLEST, 4 * self._context)

    def _split(self, x: Tensor) -> Tensor:
        """Compute the same result from two halves: of the batch, else of the longer side.

        Both halves of a side read `context` pixels beyond the cut, and what those pixels give is
        dropped. Cuts lie at a multiple, so that pixel-unshuffle keeps its phase.
        """
        batch, _, height, width = x.shape
        if batch > 1:
            return torch.cat([self(part) for part in x.chunk(2)])
        dim = 2 if height >= width else 3
        size, scale, multiple = x.shape[dim], self._forwards.scale, self._forwards.multiple
        middle = size // 2 - size // 2 % multiple
        context = self._context + -self._context % multiple
        low = self(x.narrow(dim, 0, min(size, middle + context)))
        start = max(0, middle - context)
        high = self(x.narrow(dim, start, size - start))
        cut = (middle - start) * scale
        return torch.cat(
            (low.narrow(dim, 0, middle * scale), high.narrow(dim, cut, high.shape[dim] - cut)), dim
        )

    def _warn(self, text: str) -> None:
        with self._lock:
            if text in self._warned:
                return
            self._warned.add(text)
        warnings.warn(text, RealesrWarning, stacklevel=2)

    @staticmethod
    def _release() -> None:
        """Return cached blocks to the device, so that smaller tiles find contiguous memory."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if torch.backends.mps.is_available():
            torch.mps.empty_cache()


def _require_image(y: Tensor) -> Tensor:
    """Return an fp32 result; CheckpointFormatError where it cannot come from sound weights."""
    if _is_plausible(y):
        return y
    largest = float(y.abs().max())
    found = "NaN or Inf" if not largest < float("inf") else f"values up to {largest:.0e}"
    raise CheckpointFormatError(
        f"the network outputs {found} even in fp32 where about 0 to 1 is expected, so its weights "
        "are corrupt",
        advice="corrupt-weights",
    )


@dataclass(frozen=True)
class PlacedNetwork:
    """A network on its device, and what it needs of a tile."""

    architecture: Architecture
    policy: Policy
    guard: Guard

    @property
    def overlap(self) -> int:
        assert self.policy.overlap is not None
        return self.policy.overlap

    @property
    def exact(self) -> bool:
        return self.overlap >= self.architecture.receptive_radius


def place_network(network: nn.Module, engine: EngineSettings) -> PlacedNetwork:
    """Put a network on its device; on the CPU where a GPU has no room for it."""
    architecture, machine = get_architecture(network), policies.machine_info(str(engine.device))
    free = min(machine.memory_available, policies.memory_budget(engine))
    machine = dataclasses.replace(machine, memory_available=free)
    policy = policies.choose(machine, engine, architecture)
    if policies.concerns_libraries(machine, engine, policy):
        from realesr_cli.engine.race import select_policy

        policy = select_policy(network, machine, engine, policy)
    try:
        forwards = build_forwards(network, policy, machine)
        if policy.overlap is None:
            meter = forwards.fast
            if has_fixed_tiles(policy.backend):  # The patterns have many shapes, each used once.
                own = policies.choose(machine, EngineSettings("cpu"), architecture)
                meter = _open(network, own)
            context = measure_context(meter, architecture.scale, architecture.multiple)
            policy = dataclasses.replace(policy, overlap=context + BLEND)
        assert policy.overlap is not None
        return PlacedNetwork(architecture, policy, Guard(forwards, context=policy.overlap))
    except Exception as error:
        if policy.device == "cpu" or not is_out_of_memory(error):
            raise
    text = f"{policy.device} has no memory left for the network; using the CPU"
    warnings.warn(text, RealesrWarning, stacklevel=3)
    precision = "auto" if engine.precision == "fp16" else engine.precision
    on_cpu = dataclasses.replace(engine, device="cpu", precision=precision, backend="auto")
    return place_network(network, on_cpu)


def combine_policies(found: Sequence[Policy]) -> Policy:
    """Return the first network's policy, with tiles that suit all of them."""
    if len(found) == 1:
        return found[0]
    return dataclasses.replace(
        found[0],
        tile=min(policy.tile for policy in found),
        overlap=max(policy.overlap or 0 for policy in found),
        batch=min(policy.batch for policy in found),
        tiles_at_once=min(policy.tiles_at_once for policy in found),
        reasons=tuple(dict.fromkeys(text for policy in found for text in policy.reasons)),
    )
