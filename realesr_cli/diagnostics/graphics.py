"""Why a GPU is used or not: what the machine has, and the command that fixes it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

_PCI = Path("/sys/bus/pci/devices")
_NVIDIA_VERSION = Path("/proc/driver/nvidia/version")
_VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
_DISPLAY_CLASSES = ("0x03", "0x12")
_COMMAND_SECONDS = 5


@dataclass(frozen=True)
class CudaRelease:
    """A major CUDA release: the oldest NVIDIA driver that runs it, and torch's wheels for it."""

    cuda: int
    oldest_driver: int
    wheels: str | None


CUDA_RELEASES = (
    CudaRelease(13, 580, "cu130"),
    CudaRelease(12, 525, "cu126"),  # the last ones are those of torch 2.14
    CudaRelease(11, 450, None),
)
"""Newest first; None where no torch that this package runs on has wheels."""

OTHER_WHEELS = {"amd": "rocm7.2", "intel": "xpu"}
"""Torch's wheels for other makers' GPUs."""

TABLE_DATE = "2026-11"
"""When these tables were last compared with torch's release matrix."""

_WHEELS_URL = "https://download.pytorch.org/whl"
_START_URL = "https://pytorch.org/get-started/locally"


@dataclass(frozen=True)
class GraphicsInfo:
    """Graphics cards, drivers, and how torch was built."""

    system: str = "Linux"
    machine: str = "x86_64"
    apple_silicon: bool = False
    cards: tuple[str, ...] = ()
    """Makers of the graphics cards on the bus: nvidia, amd, intel."""
    driver: str | None = None
    """Version of the NVIDIA driver in the kernel."""
    visible: str | None = None
    """CUDA_VISIBLE_DEVICES, or HIP_VISIBLE_DEVICES for a ROCm build, where it is set."""
    torch: str = ""
    cuda: str | None = None
    """CUDA release torch was built with."""
    hip: str | None = None
    """ROCm release torch was built with."""
    cuda_available: bool = False
    cuda_error: str | None = None
    mps_built: bool = False
    mps_available: bool = False
    xpu_available: bool = False
    kfd: str | None = None
    """AMD's compute device /dev/kfd: None where missing, `closed` to this user, or `open`."""


@dataclass(frozen=True)
class GpuDiagnosis:
    """Whether a GPU can be used, the reason in one sentence, and the command that changes it."""

    usable: bool
    why: str
    fix: str | None = None


def graphics_info() -> GraphicsInfo:
    """Look at this machine; nothing is allocated on any device."""
    available, error = _check_cuda()
    variable = "HIP_VISIBLE_DEVICES" if torch.version.hip else "CUDA_VISIBLE_DEVICES"
    xpu = getattr(torch, "xpu", None)
    return GraphicsInfo(
        system=platform.system(),
        machine=platform.machine(),
        apple_silicon=_has_apple_silicon(),
        cards=_find_cards(),
        driver=_find_nvidia_driver(),
        visible=os.environ.get(variable),
        torch=str(torch.__version__),
        cuda=torch.version.cuda,
        hip=torch.version.hip,
        cuda_available=available,
        cuda_error=error,
        mps_built=torch.backends.mps.is_built(),
        mps_available=torch.backends.mps.is_available(),
        xpu_available=xpu is not None and xpu.is_available(),
        kfd=_check_kfd(),
    )


def _check_cuda() -> tuple[bool, str | None]:
    """Return whether CUDA (or ROCm) works, and torch's message where it is built in but fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if torch.cuda.is_available():
            return True, None
        if torch.version.cuda is None and torch.version.hip is None:
            return False, None
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            return False, str(error).strip().splitlines()[0]
    return False, None


def _has_apple_silicon() -> bool:
    """Return whether the processor is Apple's, also where this Python runs translated (Rosetta)."""
    if platform.system() != "Darwin":
        return False
    return platform.machine() == "arm64" or _run("sysctl", "-n", "hw.optional.arm64") == "1"


def _find_cards() -> tuple[str, ...]:
    """Return the makers of the display and compute cards on the PCI bus (Linux) or of NVIDIA."""
    found = set()
    for device in _PCI.glob("*") if _PCI.is_dir() else ():
        if _read_text(device / "class").startswith(_DISPLAY_CLASSES):
            found.add(_VENDORS.get(_read_text(device / "vendor"), "other"))
    if "nvidia" not in found and shutil.which("nvidia-smi") and _run("nvidia-smi", "-L"):
        found.add("nvidia")
    return tuple(sorted(found))


def _find_nvidia_driver() -> str | None:
    match = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", _read_text(_NVIDIA_VERSION))
    if match is None and shutil.which("nvidia-smi"):
        match = re.search(r"Driver Version:\s*(\d+(\.\d+)+)", _run("nvidia-smi"))
    return match[1] if match else None


def _check_kfd() -> str | None:
    device = "/dev/kfd"
    if not os.path.exists(device):
        return None
    return "open" if os.access(device, os.R_OK | os.W_OK) else "closed"


def _read_text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _run(*command: str) -> str:
    """Return what a command prints; an empty string where it fails or is missing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def diagnose(info: GraphicsInfo) -> GpuDiagnosis:
    """Decide whether a GPU can be used, why not, and which one command fixes it; pure."""
    if info.cuda_available:
        build = f"ROCm {info.hip}" if info.hip else f"CUDA {info.cuda}"
        return GpuDiagnosis(True, f"torch {info.torch} finds a GPU through {build}")
    if info.mps_available:
        return GpuDiagnosis(True, f"torch {info.torch} finds the GPU of this Mac (MPS)")
    if info.xpu_available:
        return GpuDiagnosis(True, f"torch {info.torch} finds an Intel GPU (XPU)")
    if info.system == "Darwin":
        return _diagnose_mac(info)
    if (info.cuda or info.hip) and info.visible is not None and info.visible in ("", "-1"):
        name = "HIP_VISIBLE_DEVICES" if info.hip else "CUDA_VISIBLE_DEVICES"
        return GpuDiagnosis(False, f"{name}={info.visible!r} hides every GPU", f"unset {name}")
    if "nvidia" in info.cards or info.driver:
        return _diagnose_nvidia(info)
    if "amd" in info.cards:
        return _diagnose_amd(info)
    if "intel" in info.cards:
        why = f"an Intel GPU is present, but torch {info.torch} was built without XPU"
        return GpuDiagnosis(False, why, _install(OTHER_WHEELS["intel"]))
    return GpuDiagnosis(False, "no GPU found; the CPU is used")


def _diagnose_mac(info: GraphicsInfo) -> GpuDiagnosis:
    if not info.apple_silicon:
        return GpuDiagnosis(False, "this Mac has no Apple silicon: torch cannot use its GPU")
    if info.machine != "arm64":
        why = "this Python is built for Intel and runs translated on Apple silicon"
        return GpuDiagnosis(False, why, "arch -arm64 brew install python")
    if not info.mps_built:
        why = f"torch {info.torch} was built without MPS"
        return GpuDiagnosis(False, why, "pip install --force-reinstall torch")
    return GpuDiagnosis(False, "MPS needs macOS 12.3 or later", "softwareupdate --install --all")


def _diagnose_nvidia(info: GraphicsInfo) -> GpuDiagnosis:
    if info.driver is None:
        why = "an NVIDIA GPU is present, but its driver is not loaded"
        fix = "sudo ubuntu-drivers install   # then restart; other systems: nvidia.com/drivers"
        if info.system == "Windows":
            fix = "start https://www.nvidia.com/drivers   # then restart"
        return GpuDiagnosis(False, why, fix)
    wheels = _install(_find_cuda_wheels(info.driver))
    if info.cuda is None:
        build = f"for ROCm {info.hip}" if info.hip else "without CUDA"
        why = f"an NVIDIA GPU with driver {info.driver} is present, but torch was built {build}"
        return GpuDiagnosis(False, why, wheels)
    built = int(info.cuda.split(".")[0])
    needed = next((r.oldest_driver for r in CUDA_RELEASES if r.cuda == built), 0)
    if _major(info.driver) < needed:
        why = (
            f"driver {info.driver} is too old for torch built with CUDA {info.cuda}, which needs "
            f"{needed} or later"
        )
        return GpuDiagnosis(False, why, wheels)
    reason = info.cuda_error or "no device answers"
    why = f"torch {info.torch} (CUDA {info.cuda}, driver {info.driver}) cannot start: {reason}"
    fix = "nvidia-smi   # if this fails too, restart or reinstall the driver"
    return GpuDiagnosis(False, why, fix)


def _diagnose_amd(info: GraphicsInfo) -> GpuDiagnosis:
    if info.system == "Windows":
        return GpuDiagnosis(False, "an AMD GPU is present; torch needs Linux (or WSL) to use it")
    if info.hip is None:
        why = f"an AMD GPU is present, but torch {info.torch} was built without ROCm"
        return GpuDiagnosis(False, why, _install(OTHER_WHEELS["amd"]))
    if info.kfd == "closed":
        why = "this account may not use the AMD GPU (/dev/kfd)"
        fix = 'sudo usermod -aG render,video "$USER"   # then log in again'
        return GpuDiagnosis(False, why, fix)
    if info.kfd is None:
        why = "an AMD GPU is present, but its compute driver is not loaded (no /dev/kfd)"
        return GpuDiagnosis(False, why, "sudo amdgpu-install --usecase=rocm   # then restart")
    reason = info.cuda_error or "no device answers"
    why = f"torch {info.torch} (ROCm {info.hip}) cannot start: {reason}"
    return GpuDiagnosis(False, why, "rocminfo   # lists the GPUs that ROCm supports")


def _major(version: str) -> int:
    return int(version.split(".")[0])


def _find_cuda_wheels(driver: str) -> str | None:
    """Return the newest wheels that a driver runs; None where it is older than all of them."""
    found = (r.wheels for r in CUDA_RELEASES if _major(driver) >= r.oldest_driver)
    return next(found, None)


def _install(wheels: str | None) -> str:
    if wheels is None:
        return f"sudo ubuntu-drivers install   # no torch runs on this driver; or {_START_URL}"
    command = f"pip install --force-reinstall torch --index-url {_WHEELS_URL}/{wheels}"
    return f"{command}   # as of {TABLE_DATE}; or {_START_URL}"
