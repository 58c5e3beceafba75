"""Facts about the machine, and the decisions that follow from them.

`machine_info()` looks at the machine; `choose()` is pure, so that a laptop can test what a GPU
would get.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from realesr_cli.engine.settings import EngineSettings
from realesr_cli.errors import DeviceError
from realesr_cli.nets.architecture import Architecture

GIB = 1024**3

CPU_TILE = 512
"""Core of a tile on a processor that computes in cache-sized strips inside the tile.

Larger wastes less on overlap; this much keeps the features of one tile below half a GiB.
"""

PLAIN_CPU_TILE = 160
"""Core of a tile where the network runs layer by layer: its widest features fit in a last-level
cache of some 32 MiB."""

GPU_TILES = (1024, 768, 512, 384, 256, 192, 128, 64)
"""Cores tried on a GPU, largest first."""

GPU_SHARE = 0.6
"""Part of the free memory that a tile may plan for; the rest is for cuDNN and other programs."""

MAX_EXACT_RADIUS = 48
"""Receptive radii up to this are taken as the overlap, which makes tiles exact."""


@dataclass(frozen=True)
class GpuInfo:
    """One accelerator."""

    device: str
    name: str
    free: int
    """Bytes free now."""
    total: int
    capability: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class MachineInfo:
    """What was found on this machine."""

    cores: int = 1
    threads: int = 1
    """What torch would use by itself: the cores, unless OMP_NUM_THREADS or the host says else."""
    memory_available: int = 8 * GIB
    cpu_flags: frozenset[str] = frozenset()
    onednn: bool = False
    """Fused convolutions of oneDNN can be called and compute on this processor."""
    gpus: tuple[GpuInfo, ...] = ()
    """CUDA (or ROCm) devices, then mps, then xpu."""


@dataclass(frozen=True)
class Policy:
    """What the engine will do, and why."""

    device: str
    precision: str
    """fp32, bf16 or fp16."""
    backend: str
    """"fused" (oneDNN strips on the CPU) or "torch"."""
    tile: int
    overlap: int | None
    """Input pixels; None where it is to be measured on the network."""
    batch: int
    threads: int
    reasons: tuple[str, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        """The torch number format of `precision`."""
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
            self.precision
        ]


def machine_info() -> MachineInfo:
    """Look at the machine; never raises, and never starts an accelerator that is not there."""
    from realesr_cli.engine.backends.onednn import fused_available

    return MachineInfo(
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        memory_available=memory_available(),
        cpu_flags=cpu_flags(),
        onednn=fused_available(),
        gpus=tuple(_gpus()),
    )


def usable_cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_available() -> int:
    """Bytes of main memory that can be used without swapping; 8 GiB where it cannot be told."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 8 * GIB


def cpu_flags() -> frozenset[str]:
    """The features that matter here: avx2, avx512f, avx512_bf16, amx_bf16."""
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16")
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return _flags_of_torch()
    line = next((x for x in text.splitlines() if x.lower().startswith(("flags", "features"))), "")
    words = set(line.split())
    return frozenset(f for f in wanted if f in words) or _flags_of_torch()


def _flags_of_torch() -> frozenset[str]:
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return frozenset({"avx2", "avx512f"} if "avx512" in capability else {capability})


def _gpus() -> list[GpuInfo]:
    found = []
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            try:
                free, total = torch.cuda.mem_get_info(i)
            except RuntimeError:  # No memory for a context, or taken by another process alone.
                continue
            name, capability = torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)
            found.append(GpuInfo(f"cuda:{i}", name, free, total, capability))
    if torch.backends.mps.is_available():
        total = torch.mps.recommended_max_memory()
        found.append(GpuInfo("mps", "Apple GPU", total, total))
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        free, total = torch.xpu.mem_get_info(0)
        found.append(GpuInfo("xpu", torch.xpu.get_device_name(0), free, total))
    return found


def choose(found: MachineInfo, engine: EngineSettings, architecture: Architecture) -> Policy:
    """Decide device, number format, tile, overlap, batch and threads.

    Raises DeviceError when the device asked for is not there or cannot use the precision asked for.
    """
    gpu, why_device = _device(found, engine.device)
    device = gpu.device if gpu else "cpu"
    precision, why_precision = _precision(found, engine.precision, gpu)
    backend = "fused" if gpu is None and found.onednn else "torch"
    overlap, why_overlap = _overlap(engine, architecture)
    per_pixel = bytes_per_pixel(architecture, precision, backend)
    margin = 2 * min(MAX_EXACT_RADIUS, architecture.receptive_radius)
    tile, why_tile = _tile(found, engine, gpu, backend, (per_pixel, margin))
    return Policy(
        device=device,
        precision=precision,
        backend=backend,
        tile=tile,
        overlap=overlap,
        batch=_batch(engine, gpu, tile, (tile + margin) ** 2 * per_pixel),
        threads=engine.threads or found.threads,
        reasons=(why_device, why_precision, why_tile, why_overlap),
    )


def _device(found: MachineInfo, wanted: str) -> tuple[GpuInfo | None, str]:
    if wanted == "cpu":
        return None, "device cpu: asked for"
    if wanted == "auto":
        if found.gpus:
            return found.gpus[0], f"device {found.gpus[0].device}: {found.gpus[0].name}"
        return None, "device cpu: no GPU that torch can use was found (see realesr doctor)"
    for gpu in found.gpus:
        if gpu.device == wanted or gpu.device == f"{wanted}:0":
            return gpu, f"device {gpu.device}: asked for ({gpu.name})"
    there = ", ".join(["cpu", *(g.device for g in found.gpus)])
    raise DeviceError(f"device {wanted!r} cannot be used; here are: {there} (see realesr doctor)")


def _precision(found: MachineInfo, wanted: str, gpu: GpuInfo | None) -> tuple[str, str]:
    if wanted != "auto":
        if wanted == "fp16" and gpu is None:
            raise DeviceError("precision fp16 needs a GPU; on the CPU use auto, bf16 or fp32")
        return wanted, f"precision {wanted}: asked for"
    if gpu is None:
        native = found.cpu_flags & {"amx_bf16", "avx512_bf16"}
        if native and found.onednn:
            return "bf16", f"precision bf16: the processor has {', '.join(sorted(native))}"
        return "fp32", "precision fp32: the processor has no bf16 arithmetic that torch uses"
    if gpu.device.startswith("cuda"):
        if gpu.capability >= (7, 0) or gpu.capability == (0, 0):
            return "fp16", "precision fp16: a CUDA device"
        return "fp32", f"precision fp32: {gpu.name} is slow in fp16"
    if gpu.device.startswith("xpu"):
        return "fp16", "precision fp16: an XPU device"
    return "fp32", "precision fp32: the Apple GPU"


def _overlap(engine: EngineSettings, architecture: Architecture) -> tuple[int | None, str]:
    radius = architecture.receptive_radius
    if engine.overlap != "auto":
        return engine.overlap, f"overlap {engine.overlap}: asked for"
    if radius <= MAX_EXACT_RADIUS:
        return radius, f"overlap {radius}: all that an output pixel depends on"
    return None, f"overlap measured: the receptive radius of {radius} is mostly without effect"


def bytes_per_pixel(architecture: Architecture, precision: str, backend: str) -> int:
    """Working memory of a forward pass per input pixel of the tile, measured and rounded up."""
    width = 4 if precision == "fp32" else 2
    features = int(getattr(architecture, "features", 64))
    growth = int(getattr(architecture, "growth", 0))
    out = 3 * 4 * 2 * architecture.scale**2
    if backend == "fused":
        # Two trunks in fp32, three feature maps in the working format, and the strips.
        return 2 * 4 * features + 3 * width * features + out + 256
    if growth:
        # The layers after the up steps hold two maps at output size.
        dense = (features + 4 * growth) * 2
        unshuffle = int(getattr(architecture, "unshuffle", 1))
        high = 3 * features * (architecture.scale * unshuffle) ** 2
        return width * max(dense, high) // unshuffle**2 + out
    return 4 * width * features + out


def _tile(
    found: MachineInfo,
    engine: EngineSettings,
    gpu: GpuInfo | None,
    backend: str,
    cost: tuple[int, int],
) -> tuple[int, str]:
    """Core of a tile and the reason; `cost` is (bytes per pixel, pixels beyond the core)."""
    if engine.tile != "auto":
        return engine.tile, f"tile {engine.tile}: asked for"
    if gpu is None:
        wanted = CPU_TILE if backend == "fused" else PLAIN_CPU_TILE
        free, why = found.memory_available, "on the processor, by cache and memory"
        sizes = tuple(t for t in (512, 384, 256, 160, 128, 96, 64) if t <= wanted)
    else:
        free, why = gpu.free, f"from {gpu.free / GIB:.1f} GiB free on {gpu.device}"
        sizes = GPU_TILES
    per_pixel, margin = cost
    for tile in sizes:
        if (tile + margin) ** 2 * per_pixel <= free * GPU_SHARE:
            return tile, f"tile {tile}: {why}"
    return sizes[-1], f"tile {sizes[-1]}: little memory is free"


def _batch(engine: EngineSettings, gpu: GpuInfo | None, tile: int, tile_bytes: int) -> int:
    if engine.batch != "auto":
        return engine.batch
    if gpu is None or not tile:
        return 1
    # A GPU is busy with about a quarter of a megapixel at a time.
    wanted = min(16, 512 * 512 // tile**2)
    return max(1, min(wanted, int(gpu.free * GPU_SHARE) // tile_bytes))
