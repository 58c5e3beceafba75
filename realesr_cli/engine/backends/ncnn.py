"""The `ncnn` backend: networks through ncnn, by Vulkan on any vendor's GPU, or on the CPU.

On the CPU its 3x3 convolutions are Winograd's in fp32, which need less than half of the arithmetic.
A device is `vulkan` or `vulkan:N`. `auto` does not look for Vulkan devices, since a broken driver
ends the process; they are used where they are asked for by name.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realesr_cli.engine.backends.base import LibraryBackend, output_bytes_per_pixel
from realesr_cli.engine.forward import Forward
from realesr_cli.errors import OutOfMemoryError
from realesr_cli.nets.architecture import Architecture

if TYPE_CHECKING:
    from realesr_cli.engine.policy import GpuInfo, MachineInfo, Policy
    from realesr_cli.nets.architecture import Generator

CPU_TILES = (256, 192, 128, 96, 64)
GPU_TILES = (256, 192, 128, 64, 32)
"""Windows resets a GPU that computes for two seconds without an answer, so tiles stay small."""

VULKAN = "vulkan"


class NcnnBackend(LibraryBackend):
    """Runs every architecture: fp32 and bf16 on the CPU, fp32 and fp16 by Vulkan."""

    name = "ncnn"
    packages = ("ncnn",)

    def default_precision(self, machine: MachineInfo, gpu: GpuInfo | None) -> tuple[str, str]:
        """Return fp16 by Vulkan, where it is only how features are stored; else fp32."""
        if gpu is not None:
            return "fp16", "features are stored in fp16 and added in fp32"
        return "fp32", "convolutions are Winograd's"

    def supports(self, architecture: Architecture, device: str, precision: str) -> bool:
        """Return whether it has this precision on the CPU or by Vulkan."""
        if device == "cpu":
            return precision in ("fp32", "bf16")
        return device.startswith(VULKAN) and precision in ("fp32", "fp16")

    def tile_sizes(self, device: str) -> tuple[int, ...]:
        """Return CPU_TILES or GPU_TILES."""
        return CPU_TILES if device == "cpu" else GPU_TILES

    def tiles_at_once(self, device: str, threads: int) -> int:
        """Return the number of threads on the CPU: each computes a tile."""
        return threads if device == "cpu" else 1

    def memory_per_pixel(self, architecture: Architecture, precision: str) -> int:
        """Return the bytes of the widest layer, of Winograd's form of it, and of the result."""
        return 3 * 4 * architecture.values_per_pixel + output_bytes_per_pixel(architecture.scale)

    def worth_racing(self, machine: MachineInfo, device: str) -> bool:
        """Return whether the CPU has no bf16: where it has, that is faster than Winograd's fp32."""
        fast = machine.cpu_flags & {"amx_bf16", "avx512_bf16", "bf16"}
        return device == "cpu" and "avx2" in machine.cpu_flags and not fast

    def open(self, network: nn.Module, policy: Policy) -> Forward:
        """Return the network as a Forward."""
        from realesr_cli.engine.ncnn_graph import ncnn_files

        net = cast("Generator", network.eval())
        with tempfile.TemporaryDirectory(prefix="realesr-") as folder:
            param, weights = Path(folder, "net.param"), Path(folder, "net.bin")
            text, data = ncnn_files(net)
            param.write_text(text)
            weights.write_bytes(data)
            return load_files(param, weights, net.architecture, policy)


def load_files(param: Path, weights: Path, architecture: Architecture, policy: Policy) -> Forward:
    """Return the network of ncnn files as a Forward, on `policy.device` in `policy.precision`."""
    import ncnn

    net = ncnn.Net()
    options = net.opt
    # Tiles are what threads share; and with two OpenMP runtimes in a process, waiting for the
    # threads of one may never end.
    options.num_threads = 1
    # What is in fp16 or bf16 is how features are stored; arithmetic stays in fp32.
    options.use_fp16_packed = options.use_fp16_storage = policy.precision == "fp16"
    options.use_bf16_storage = policy.precision == "bf16"
    options.use_fp16_arithmetic = False
    options.use_vulkan_compute = policy.device != "cpu"
    if policy.device != "cpu":
        net.set_vulkan_device(int(policy.device.partition(":")[2] or 0))
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise RuntimeError(f"ncnn cannot read {param.name} and {weights.name}")

    def forward(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        padded = _pad(x.float(), architecture.multiple)
        y = torch.stack([_run(ncnn, net, image) for image in padded])
        return y[..., : height * architecture.scale, : width * architecture.scale]

    return forward


def _run(ncnn: Any, net: Any, image: Tensor) -> Tensor:
    from realesr_cli.engine.ncnn_graph import INPUT, OUTPUT

    extractor = net.create_extractor()
    extractor.input(INPUT, ncnn.Mat(image.contiguous().numpy()).clone())
    code, result = extractor.extract(OUTPUT)
    if code == -100:
        raise OutOfMemoryError("out of memory: ncnn could not allocate a tile")
    if code:
        raise RuntimeError(f"ncnn fails with code {code}")
    return torch.from_numpy(np.array(result))


def _pad(x: Tensor, multiple: int) -> Tensor:
    """Extend an image to a multiple at the right and bottom, as `rrdbnet.unshuffle_any_size`."""
    for side, room in ((3, (0, 1)), (2, (2, 3))):
        missing = -x.shape[side] % multiple
        if missing:
            sizes = [0, 0, 0, 0]
            sizes[room[1]] = missing
            mode = "reflect" if x.shape[side] > missing else "replicate"
            x = F.pad(x, sizes, mode=mode)
    return x


def find_vulkan_gpus() -> list[GpuInfo]:
    """Return the Vulkan devices; starts the drivers. Empty where ncnn is not installed."""
    from realesr_cli.engine.policy import GpuInfo

    try:
        import ncnn
    except ImportError:
        return []
    found = []
    for i in range(ncnn.get_gpu_count()):
        budget = ncnn.get_gpu_device(i).get_heap_budget() * 2**20
        name = ncnn.get_gpu_info(i).device_name()
        found.append(GpuInfo(f"{VULKAN}:{i}", name, budget, budget))
    return found
