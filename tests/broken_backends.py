"""Backends that fail in the ways that libraries do; importable in the process of a trial."""

from __future__ import annotations

import os
import signal

import torch
from torch import Tensor, nn

from realesr_cli.engine.backends.base import LibraryBackend


class BrokenBackend(LibraryBackend):
    """Claims everything, and gives what `name` says."""

    packages = ("torch",)

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def default_precision(self, machine: object, gpu: object) -> tuple[str, str]:
        return "fp32", "a test"

    def supports(self, architecture: object, device: str, precision: str) -> bool:
        return True

    def tile_sizes(self, device: str) -> tuple[int, ...]:
        return (64,)

    def tiles_at_once(self, device: str, threads: int) -> int:
        return 1

    def memory_per_pixel(self, architecture: object, precision: str) -> int:
        return 1000

    def worth_racing(self, machine: object, device: str) -> bool:
        return True

    def open(self, network: nn.Module, policy: object) -> object:
        if self.name == "raises":
            raise RuntimeError("no kernel for this processor")

        def forward(x: Tensor) -> Tensor:
            with torch.inference_mode():
                y = network(x)
                if self.name == "dies":
                    os.kill(os.getpid(), signal.SIGILL)
                if self.name == "nan":
                    y[..., 5, 5] = float("nan")
                return y[..., 1:] if self.name == "shape" else y + (self.name == "wrong") * 3e-3

        return forward
