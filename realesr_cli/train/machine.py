"""The device and precision of a run, chosen from what the machine has."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from realesr_cli.engine.policy import cpu_flags
from realesr_cli.errors import DeviceError
from realesr_cli.train.settings import RuntimeConfig


@dataclass(frozen=True)
class Machine:
    """Device, precision and memory format in which the networks are trained."""

    device: torch.device
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    """Compile the generator with torch.compile."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of activations."""
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        return dtypes[self.precision]

    @property
    def units(self) -> int:
        """Processor cores in use, or 1 for an accelerator."""
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def autocast(self) -> torch.autocast:
        """Return the mixed-precision context of forward passes; it does nothing for fp32."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.precision != "fp32")

    @contextlib.contextmanager
    def tuned(self) -> Iterator[None]:
        """Let cuDNN choose its fastest algorithms, by trying them on each new shape.

        For the networks, whose shapes are always the same; the degradation has a new one nearly
        every time.
        """
        with torch.backends.cudnn.flags(benchmark=True):
            yield

    def place(self, net: nn.Module) -> nn.Module:
        """Move a network to the device, in the run's memory format."""
        net = net.to(self.device)
        if self.channels_last:
            net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net

    def scaler(self) -> GradScaler | None:
        """Return a new loss scaler where small gradients would underflow (fp16)."""
        return GradScaler(self.device.type) if self.precision == "fp16" else None

    def wrap(self, net: nn.Module) -> nn.Module:
        """Return the network as it is called in training: compiled if set."""
        if not self.compile:
            return net
        compiled: nn.Module = torch.compile(net)  # type: ignore[assignment]
        return compiled

    def pin(self, pixels: Tensor) -> Tensor:
        """Return pixels in memory from which a GPU can copy while others work."""
        return pixels.pin_memory() if self.device.type == "cuda" else pixels

    def images(self, pixels: Tensor) -> Tensor:
        """Move (B, H, W, 3) uint8 to the device as (B, 3, H, W) float in [0, 1]."""
        moved = pixels.to(self.device, non_blocking=True)
        return moved.permute(0, 3, 1, 2).float().div_(255).contiguous()

    def synchronize(self) -> None:
        """Wait until the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def peak_memory(self) -> int | None:
        """Return the peak of allocated accelerator memory in bytes; None on a CPU."""
        if self.device.type != "cuda":
            return None
        return int(torch.cuda.max_memory_allocated(self.device))

    def describe(self) -> str:
        """Return device and precision in a few words."""
        name = str(self.device)
        if self.device.type == "cuda":
            name += f" ({torch.cuda.get_device_name(self.device)})"
        return f"{name}, {self.precision}"


def choose_machine(runtime: RuntimeConfig, *, device: str | None = None) -> Machine:
    """Choose the device and precision of a run; `device` overrides the setting.

    auto is the first accelerator, and bf16 where it is native (CPUs with AMX or AVX-512 BF16
    included), otherwise fp16 with loss scaling on a GPU and fp32 on CPU and MPS. Raises DeviceError
    for a device that is not available, and for fp16 on a CPU.
    """
    wanted = device or runtime.device
    place = torch.device(_first_device() if wanted == "auto" else _check_device(wanted))
    precision = runtime.precision
    if precision == "auto":
        precision = _native_precision(place)
    if precision == "fp16" and place.type == "cpu":
        raise DeviceError("precision fp16 needs a GPU; use fp32 or bf16 on a CPU")
    channels_last = runtime.channels_last and place.type in ("cpu", "cuda")
    return Machine(place, precision, channels_last, runtime.compile)


def _first_device() -> str:
    if torch.cuda.is_available():
        return "cuda:0"
    if torch.backends.mps.is_available():
        return "mps"
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        return "xpu"
    return "cpu"


def _check_device(wanted: str) -> str:
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": 0, "xpu": 0}
    counts["mps"] = int(torch.backends.mps.is_available())
    counts["xpu"] = torch.xpu.device_count() if hasattr(torch, "xpu") else 0
    kind, _, number = wanted.partition(":")
    if kind not in counts or not (number == "" or (number.isdecimal() and len(number) < 4)):
        raise DeviceError(
            f"unknown device {wanted!r}: expected auto, cpu, cuda, cuda:N, mps or xpu"
        )
    if int(number or 0) >= counts[kind]:
        available = ", ".join(f"{k} ({n})" for k, n in counts.items() if n)
        raise DeviceError(f"device {wanted!r} is not available; available: {available}")
    return f"cuda:{number or 0}" if kind == "cuda" else wanted


def _native_precision(device: torch.device) -> str:
    if device.type == "cuda":
        # Emulated bf16 is slower than fp32, so only a native one counts.
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu":
        return "bf16" if cpu_flags() & {"amx_bf16", "avx512_bf16"} else "fp32"
    return "bf16" if device.type == "xpu" else "fp32"


@dataclass
class Stopwatch:
    """Seconds spent in named parts of a step, and in all of it.

    With `precise`, each mark waits for the device, which costs speed on a GPU; without it the parts
    are only the times until their work was queued there, and are left empty.
    """

    machine: Machine
    precise: bool = True
    seconds: dict[str, float] = field(default_factory=dict)
    _start: float = field(default_factory=time.perf_counter)
    _since: float = field(default_factory=time.perf_counter)

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def mark(self, part: str) -> None:
        """Add the time since the last mark to this part."""
        if not self.precise and self.machine.device.type != "cpu":
            return
        self.machine.synchronize()
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now
