"""A forward pass that cannot lose a tile: out-of-memory back-off, and non-finite results redone."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from realesr_cli.errors import CheckpointFormatError, OutOfMemoryError, RealesrWarning

Forward = Callable[[Tensor], Tensor]
"""(B, 3, h, w) float32 in [0, 1], on the CPU, to (B, 3, h * scale, w * scale) float32."""

SMALLEST = 32
"""Windows are not split below this many pixels a side."""


@dataclass(frozen=True)
class Forwards:
    """The ways to compute a tile: the chosen one, and what to fall back to."""

    fast: Forward
    exact: Forward | None = None
    """fp32 on the same device; None where `fast` is that already."""
    cpu: Forward | None = None
    """fp32 on the CPU; None where `fast` runs there already."""
    scale: int = 4
    multiple: int = 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch or Python says that memory ran out, on any device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


def _finite(y: Tensor) -> bool:
    # The sum is finite unless a value is not: one pass, where isfinite().all() makes a copy first.
    return bool(torch.isfinite(y.sum()))


class Guard:
    """`Forwards` made safe; callable as a Forward itself, from several threads.

    What it learns holds for the rest of its life: how many pixels fit at a time, that the device
    is too small altogether, and that the fast number format overflows. Each is told once.
    """

    def __init__(self, forwards: Forwards, context: int) -> None:
        """`context`: input pixels that a piece of a split window sees beyond its own."""
        self._forwards = forwards
        self._context = context
        self._lock = threading.Lock()
        self._most_pixels: int | None = None
        self._use_exact = False
        self._use_cpu = False
        self._told: set[str] = set()

    def __call__(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) to (B, 3, h * scale, w * scale); raises OutOfMemory if nothing helps."""
        limit = self._most_pixels
        too_large = limit is not None and x.numel() // x.shape[1] > limit
        if too_large and not self._use_cpu and self._divisible(x):
            return self._divided(x)
        try:
            y = self._compute(x)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            if _finite(y):
                return y
            raise CheckpointFormatError(
                "the network gives values that are no numbers even in fp32: its weights are damaged"
            )
        # Outside the handler, so that the traceback does not keep the failed tensors alive.
        self._release()
        return self._smaller(x)

    def _compute(self, x: Tensor) -> Tensor:
        forwards = self._forwards
        if self._use_cpu and forwards.cpu is not None:
            return forwards.cpu(x)
        if self._use_exact and forwards.exact is not None:
            return forwards.exact(x)
        y = forwards.fast(x)
        if forwards.exact is None or _finite(y):
            return y
        self._tell("the fast number format overflowed; going on in fp32")
        self._use_exact = True
        return forwards.exact(x)

    def _smaller(self, x: Tensor) -> Tensor:
        if self._divisible(x):
            with self._lock:
                half = -(-(x.numel() // x.shape[1]) // 2)
                self._most_pixels = min(half, self._most_pixels or half)
            self._tell("memory ran out; going on with smaller pieces, at the same quality")
            return self._divided(x)
        if self._forwards.cpu is not None and not self._use_cpu:
            self._tell("the device has too little memory even for small tiles; using the CPU")
            self._use_cpu = True
            return self(x)
        raise OutOfMemoryError(
            f"out of memory even for a piece of {x.shape[3]}x{x.shape[2]} pixels: close other "
            "programs, or take a smaller model"
        )

    def _divisible(self, x: Tensor) -> bool:
        """Whether halves are really smaller and still see all the context they need."""
        return x.shape[0] > 1 or max(x.shape[2:]) >= max(2 * SMALLEST, 4 * self._context)

    def _divided(self, x: Tensor) -> Tensor:
        """The same result from two halves: of the batch, else of the longer side with context."""
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

    def _tell(self, text: str) -> None:
        with self._lock:
            if text in self._told:
                return
            self._told.add(text)
        warnings.warn(text, RealesrWarning, stacklevel=2)

    @staticmethod
    def _release() -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if torch.backends.mps.is_available():
            torch.mps.empty_cache()
