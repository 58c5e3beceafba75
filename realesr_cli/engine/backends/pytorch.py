"""The `torch` backend: the network itself, layer by layer, on any device of torch."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from realesr_cli.engine.backends.base import VALUE_BYTES, Availability, output_bytes_per_pixel
from realesr_cli.engine.forward import Forward
from realesr_cli.engine.workers import get_workers
from realesr_cli.nets.architecture import Architecture

if TYPE_CHECKING:
    from realesr_cli.engine.policy import GpuInfo, MachineInfo, Policy

CPU_TILES = (160, 128, 96, 64)
"""The features of a layer at 160 pixels a side fit in a last-level cache of some 32 MiB."""

GPU_TILES = (1024, 768, 512, 384, 256, 192, 128, 64)


class TorchBackend:
    """Runs every architecture; fp16 only on accelerators."""

    name = "torch"

    def availability(self, machine: MachineInfo) -> Availability:
        """Return that it is usable: torch is required."""
        devices = ", ".join(["cpu", *(gpu.device for gpu in machine.gpus)])
        return Availability(True, f"torch {torch.__version__} on {devices}")

    def default_precision(self, machine: MachineInfo, gpu: GpuInfo | None) -> tuple[str, str]:
        """Return fp16 where the device is fast in it, else fp32.

        Never bf16: all layers run in one precision here, and 8 significant bits are too few for
        the residual trunk and for the output.
        """
        if gpu is None:
            return "fp32", "bf16 in every layer is too coarse for 8-bit images"
        if gpu.device.startswith("cuda"):
            # Cards before Volta have fp16 at a fraction of the fp32 rate. (0, 0): not known.
            if gpu.capability >= (7, 0) or gpu.capability == (0, 0):
                return "fp16", "a CUDA device"
            return "fp32", f"{gpu.name} is slow in fp16"
        if gpu.device.startswith("xpu"):
            return "fp16", "an XPU device"
        return "fp32", "the Apple GPU"

    def supports(self, architecture: Architecture, device: str, precision: str) -> bool:
        """Return True, except for fp16 on the CPU."""
        known = precision in VALUE_BYTES and not device.startswith("vulkan")
        return known and not (device == "cpu" and precision == "fp16")

    def tile_sizes(self, device: str) -> tuple[int, ...]:
        """Return CPU_TILES or GPU_TILES."""
        return CPU_TILES if device == "cpu" else GPU_TILES

    def memory_per_pixel(self, architecture: Architecture, precision: str) -> int:
        """Return the bytes of the widest layer and of the result."""
        features = VALUE_BYTES[precision] * architecture.values_per_pixel
        return features + output_bytes_per_pixel(architecture.scale)

    def tiles_at_once(self, device: str, threads: int) -> int:
        """Return the number of threads for the CPU: each computes a tile of its own."""
        return threads if device == "cpu" else 1

    def open(self, network: nn.Module, policy: Policy) -> Forward:
        """Return the network as a Forward: a copy on the device, channels-last."""
        device, dtype = torch.device(policy.device), policy.dtype
        clone = copy.deepcopy(network).eval().requires_grad_(False)
        clone = clone.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

        def forward(x: Tensor) -> Tensor:
            with torch.inference_mode():
                x = x.to(device, dtype, memory_format=torch.channels_last)
                result: Tensor = clone(x).float()
                return result

        # On the CPU a tile is computed by one worker, whoever asks for it.
        return forward if device.type != "cpu" else get_workers(policy.threads).wrap(forward)
