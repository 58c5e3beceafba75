"""What the machine has, and the decisions that follow: device, backend, precision, tiles.

`machine_info()` looks at the machine; `choose()` is pure, so that a laptop can test what a GPU
would get.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from realesr_cli.engine import backends
from realesr_cli.engine.backends.base import Backend, LibraryBackend
from realesr_cli.engine.backends.ncnn import VULKAN, find_vulkan_gpus
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.errors import ConfigError, DeviceError
from realesr_cli.nets.architecture import Architecture

GIB = 1024**3

MEMORY_SHARE = 0.6
"""Part of the free memory that a tile may plan for; the rest is for cuDNN and other programs."""

MAX_EXACT_RADIUS = 48
"""Receptive-field radii up to this are taken as the overlap, which makes tiles exact."""

MOST_THREADS_PER_CORE = 4
"""More threads than this only cost memory; some 100,000 crash the process."""

_LEAST_MEMORY = 2**28
"""However low the limit is, tiles and bands may take so many bytes."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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
    """What this machine has."""

    cores: int = 1
    threads: int = 1
    """What torch uses by default: the cores, unless OMP_NUM_THREADS or the host says otherwise."""
    memory_available: int = 8 * GIB
    cpu_flags: frozenset[str] = frozenset()
    backends: frozenset[str] = frozenset({"torch"})
    """Names of the backends that can be used."""
    gpus: tuple[GpuInfo, ...] = ()
    """CUDA (or ROCm) devices, then mps, then xpu."""


@dataclass(frozen=True)
class Policy:
    """What the engine will do, and why."""

    device: str
    precision: str
    """fp32, bf16 or fp16."""
    backend: str
    """Name of the backend that runs the network."""
    tile: int
    overlap: int | None
    """Input pixels; None where it is to be measured on the network."""
    batch: int
    threads: int
    tiles_at_once: int = 1
    """Threads that each compute a tile; 1 where the backend needs no more to fill the device."""
    reasons: tuple[str, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype of `precision`."""
        return _DTYPES[self.precision]


def machine_info(device: str = "auto") -> MachineInfo:
    """Look at the machine; never raises, and never starts an accelerator that is not there.

    Vulkan devices are looked for only where the device wanted is one.
    """
    vulkan = find_vulkan_gpus() if device.startswith(VULKAN) else []
    found = MachineInfo(
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        memory_available=memory_available(),
        cpu_flags=cpu_flags(),
        gpus=(*_find_gpus(), *vulkan),
    )
    usable = frozenset(b.name for b in backends.BACKENDS if b.availability(found).usable)
    return dataclasses.replace(found, backends=usable)


def usable_cores() -> int:
    """Return the number of CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_available() -> int:
    """Return the bytes of main memory usable without swapping; 8 GiB where that is not known."""
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


def memory_budget(engine: EngineSettings) -> int:
    """Return the bytes that images and tiles may take: what is free, or the rest of a limit."""
    free = memory_available()
    if engine.memory is None:
        return free
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError, IndexError):
        resident = GIB // 2
    return min(free, max(_LEAST_MEMORY, engine.memory - resident))


def cpu_flags() -> frozenset[str]:
    """Return which of avx2, avx512f, avx512_bf16, amx_bf16 and (ARM) bf16 the processor has."""
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16")
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    line = next((x for x in text.splitlines() if x.lower().startswith(("flags", "features"))), "")
    words = set(line.split())
    found = frozenset(flag for flag in wanted if flag in words)
    if found:
        return found
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return frozenset({"avx2", "avx512f"} if "avx512" in capability else {capability})


def processor_name() -> str:
    """Return what the processor calls itself, or the machine's kind where it does not say."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _find_gpus() -> list[GpuInfo]:
    found = []
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            try:
                free, total = torch.cuda.mem_get_info(i)
            except RuntimeError:  # No memory for a context, or used by another process alone.
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


def choose(machine: MachineInfo, engine: EngineSettings, architecture: Architecture) -> Policy:
    """Decide device, backend, precision, tile, overlap, batch and threads.

    Raises DeviceError for a device that is not there and for a backend that cannot be used, or not
    with this network, device or precision; ConfigError for an unknown backend and absurd threads.
    """
    most_threads = max(MOST_THREADS_PER_CORE * machine.cores, machine.threads, 16)
    if engine.threads is not None and engine.threads > most_threads:
        raise ConfigError(
            f"threads = {engine.threads}: must be at most {most_threads} on a machine with "
            f"{machine.cores} usable cores"
        )
    candidates = _find_candidates(
        machine, engine.backend, vulkan=str(engine.device).startswith(VULKAN)
    )
    gpu, why_device = _choose_device(machine, engine, candidates, architecture)
    device = gpu.device if gpu else "cpu"
    backend, precision, why_precision = _choose_backend(
        machine, engine, candidates, gpu, architecture
    )
    overlap, why_overlap = _choose_overlap(engine, architecture)
    margin = 2 * min(MAX_EXACT_RADIUS, architecture.receptive_radius)
    per_pixel = backend.memory_per_pixel(architecture, precision)
    free = machine.memory_available if gpu is None else gpu.free
    threads = engine.threads or machine.threads
    at_once = backend.tiles_at_once(device, threads)
    smallest = (min(backend.tile_sizes(device)) + margin) ** 2 * per_pixel
    at_once = max(1, min(at_once, int(free * MEMORY_SHARE) // smallest))
    tile, why_tile = _choose_tile(engine, backend, device, free // at_once, (per_pixel, margin))
    return Policy(
        device=device,
        precision=precision,
        backend=backend.name,
        tile=tile,
        overlap=overlap,
        batch=_choose_batch(engine, gpu, tile, (tile + margin) ** 2 * per_pixel),
        threads=threads,
        tiles_at_once=at_once,
        reasons=(
            why_device,
            f"backend {backend.name}: {'requested' if engine.backend != 'auto' else 'preferred'}",
            why_precision,
            why_tile,
            why_overlap,
        ),
    )


def concerns_libraries(machine: MachineInfo, engine: EngineSettings, chosen: Policy) -> bool:
    """Return whether a backend of another library was chosen, or may be faster than the chosen."""
    if isinstance(backends.find_backend(chosen.backend), LibraryBackend):
        return True
    race = engine.backend == "auto" and os.environ.get("REALESR_RACE") != "0"
    return race and bool(backends.find_rivals(machine, chosen.device))


def _find_candidates(machine: MachineInfo, name: str, *, vulkan: bool) -> tuple[Backend, ...]:
    """Return the backends to choose from, in order of preference."""
    if name == "auto":
        return tuple(
            backend
            for backend in backends.BACKENDS
            if backend.name in machine.backends and isinstance(backend, LibraryBackend) == vulkan
        )
    backend = backends.find_backend(name)
    if backend.name not in machine.backends:
        found = backend.availability(machine)
        fix = f"; {found.fix}" if found.fix else ""
        raise DeviceError(f"backend {name} cannot be used: {found.reason}{fix}")
    return (backend,)


def _choose_device(
    machine: MachineInfo,
    engine: EngineSettings,
    candidates: tuple[Backend, ...],
    architecture: Architecture,
) -> tuple[GpuInfo | None, str]:
    """Return the GPU to use, or None for the CPU, and the reason."""
    wanted = str(engine.device)
    if wanted == "cpu":
        return None, "device cpu: requested"
    for gpu in machine.gpus:
        if wanted in (gpu.device, gpu.device.partition(":")[0]):
            return gpu, f"device {gpu.device}: requested ({gpu.name})"
        if wanted == "auto" and any(
            backend.supports(architecture, gpu.device, precision)
            for backend in candidates
            for precision in _DTYPES
        ):
            return gpu, f"device {gpu.device}: {gpu.name}"
    if wanted == "auto":
        if machine.gpus:
            return None, f"device cpu: backend {engine.backend} uses no GPU"
        return None, "device cpu: torch finds no GPU"
    available = ", ".join(["cpu", *(gpu.device for gpu in machine.gpus)])
    raise DeviceError(
        f"device {wanted!r} is not available; available: {available}", advice="doctor"
    )


def _choose_backend(
    machine: MachineInfo,
    engine: EngineSettings,
    candidates: tuple[Backend, ...],
    gpu: GpuInfo | None,
    architecture: Architecture,
) -> tuple[Backend, str, str]:
    """Return the first backend that can compute the network, its precision, and the reason."""
    device = gpu.device if gpu else "cpu"
    for backend in candidates:
        if engine.precision == "auto":
            precision, why = backend.default_precision(machine, gpu)
        else:
            precision, why = engine.precision, "requested"
        if backend.supports(architecture, device, precision):
            return backend, precision, f"precision {precision}: {why}"
    names = ", ".join(backend.name for backend in candidates)
    wanted = "" if engine.precision == "auto" else f" in {engine.precision}"
    raise DeviceError(
        f"backend {names} cannot run {architecture.describe()} on {device}{wanted}"
        if len(candidates) == 1
        else f"no backend runs {architecture.describe()} on {device}{wanted}; tried: {names}",
        advice="precision" if wanted else "backend",
    )


def _choose_overlap(engine: EngineSettings, architecture: Architecture) -> tuple[int | None, str]:
    radius = architecture.receptive_radius
    if engine.overlap != "auto":
        return engine.overlap, f"overlap {engine.overlap}: requested"
    if radius <= MAX_EXACT_RADIUS:
        return radius, f"overlap {radius}: the receptive-field radius, so tiles are exact"
    return None, f"overlap measured: most of the receptive-field radius of {radius} has no effect"


def _choose_tile(
    engine: EngineSettings, backend: Backend, device: str, free: int, cost: tuple[int, int]
) -> tuple[int, str]:
    """Return the tile size and the reason; `cost` is (bytes per pixel, pixels beyond the tile)."""
    if engine.tile != "auto":
        return engine.tile, f"tile {engine.tile}: requested"
    per_pixel, margin = cost
    sizes = backend.tile_sizes(device)
    for tile in sizes:
        if (tile + margin) ** 2 * per_pixel <= free * MEMORY_SHARE:
            why = "largest useful size" if tile == sizes[0] else "largest that fits"
            return tile, f"tile {tile}: {why} ({free / GIB:.1f} GiB free on {device})"
    return sizes[-1], f"tile {sizes[-1]}: only {free / GIB:.1f} GiB free on {device}"


def _choose_batch(engine: EngineSettings, gpu: GpuInfo | None, tile: int, tile_bytes: int) -> int:
    if engine.batch != "auto":
        return engine.batch
    if gpu is None or not tile:
        return 1
    # A GPU is busy with about a quarter of a megapixel at a time.
    wanted = min(16, 512 * 512 // tile**2)
    return max(1, min(wanted, int(gpu.free * MEMORY_SHARE) // tile_bytes))
