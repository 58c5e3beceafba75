"""Rates of every backend on this machine: megapixels and operations per second, and a ceiling."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from realesr_cli.engine import backends, policy, race, trial
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.errors import RealesrError
from realesr_cli.nets.architecture import Architecture
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import standard_architecture

FAMILIES: dict[str, Architecture] = {
    "RRDBNet": race.shorten(standard_architecture(4)),
    "Compact": race.shorten(CompactArchitecture(4, 32)),
}
"""Fewer layers than the released networks have: rates per operation are nearly the same."""

CEILING_SIDE, CEILING_RUNS = 192, 20


@dataclass(frozen=True)
class BenchRow:
    """What one backend reaches on an image of one megapixel, from integers to integers.

    `share` is that of the rate of a 3x3 convolution of 64 channels, which both networks consist of,
    by torch in the same process and precision.
    """

    family: str
    backend: str
    precision: str
    device: str
    tile: int | None = None
    megapixels_per_s: float | None = None
    """Of output."""
    gflop_per_s: float | None = None
    share: float | None = None
    problem: str | None = None


def measure_backends(device: str = "auto") -> Iterator[BenchRow]:
    """Yield the rate of every family, backend and precision, each measured in its own process."""
    machine = policy.machine_info(device)
    for family, architecture in FAMILIES.items():
        flops = count_flops_per_pixel(architecture)
        for backend in backends.BACKENDS:
            for precision in ("fp32", "bf16", "fp16"):
                entry = EngineSettings(device, precision, backend=backend.name)
                try:
                    chosen = policy.choose(machine, entry, architecture)
                except RealesrError:
                    continue
                row: dict[str, Any] = {"device": chosen.device}
                output = trial.run_in_child(backend, measure_entry, (architecture, entry))
                if isinstance(output, trial.TrialFailure):
                    row["problem"] = output.reason
                else:
                    rate, ceiling = output
                    gflops = rate.pixels * flops / 1e9
                    row |= {
                        "tile": rate.tile,
                        "megapixels_per_s": rate.pixels * architecture.scale**2 / 1e6,
                        "gflop_per_s": gflops,
                        "share": gflops / ceiling,
                    }
                yield BenchRow(family, backend.name, precision, **row)


def measure_entry(architecture: Architecture, entry: EngineSettings) -> tuple[race.Rate, float]:
    """Return the rate of one backend, and the ceiling in GFLOP/s."""
    (rate,) = race.measure_family(architecture, [entry])
    chosen = policy.choose(policy.machine_info(str(entry.device)), entry, architecture)
    device = "cpu" if chosen.device.startswith("vulkan") else chosen.device
    return rate, measure_ceiling(torch.device(device), chosen.dtype)


def measure_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Return the GFLOP/s of a 3x3 convolution of 64 channels, channels-last."""
    conv = nn.Conv2d(64, 64, 3, padding=1).to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.rand(1, 64, CEILING_SIDE, CEILING_SIDE).to(device, dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    best = math.inf
    with torch.inference_mode():
        for _ in range(CEILING_RUNS):
            began = time.perf_counter()
            float(conv(x)[0, 0, 0, 0])  # waits for an accelerator
            best = min(best, time.perf_counter() - began)
    return 2 * 9 * 64 * 64 * CEILING_SIDE**2 / best / 1e9


def count_flops_per_pixel(architecture: Architecture) -> float:
    """Return the operations of all convolutions per input pixel."""
    total, side = 0, 16

    def add(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += 2 * module.weight.numel() * output.shape[-2] * output.shape[-1]

    with torch.device("meta"), torch.no_grad():
        network = architecture.build()
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(add)
        network(torch.empty(1, architecture.in_channels, side, side))
    return total / side**2
