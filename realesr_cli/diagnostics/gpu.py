"""Why a GPU is used or not: facts about the machine's graphics cards, and the fix they call for."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PCI = Path("/sys/bus/pci/devices")
_NVIDIA_VERSION = Path("/proc/driver/nvidia/version")
_VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
_DISPLAY_CLASSES = ("0x03", "0x12")
_SMI_SECONDS = 5

_WHEELS = "https://download.pytorch.org/whl"
# The oldest driver (major number) that serves the wheels built for a CUDA release, newest first.
_CUDA_WHEELS = ((580, "cu130"), (525, "cu126"))
_OLDEST_DRIVER = {13: 580, 12: 525, 11: 450}
_START = "https://pytorch.org/get-started/locally"


@dataclass(frozen=True)
class GpuFacts:
    """What was found out about graphics cards, drivers and the way torch was built."""

    system: str = "Linux"
    machine: str = "x86_64"
    apple_silicon: bool = False
    cards: tuple[str, ...] = ()
    """Makers of the graphics cards seen on the bus: nvidia, amd, intel."""
    driver: str | None = None
    """Version of the NVIDIA driver in the kernel."""
    visible: str | None = None
    """CUDA_VISIBLE_DEVICES, or HIP_VISIBLE_DEVICES on a ROCm build, if it is set."""
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
    """Whether /dev/kfd (AMD's compute device) is there: None, `closed` to this user, or `open`."""


@dataclass(frozen=True)
class GpuDiagnosis:
    """Whether a GPU can be used, the reason in one sentence, and the command that changes it."""

    usable: bool
    why: str
    fix: str | None = None


def gpu_facts() -> GpuFacts:
    """Look at this machine; nothing is allocated on any device."""
    import torch

    available, error = _cuda_state()
    apple = _apple_silicon()
    variable = "HIP_VISIBLE_DEVICES" if torch.version.hip else "CUDA_VISIBLE_DEVICES"
    xpu = getattr(torch, "xpu", None)
    return GpuFacts(
        system=platform.system(),
        machine=platform.machine(),
        apple_silicon=apple,
        cards=_cards(),
        driver=_nvidia_driver(),
        visible=os.environ.get(variable),
        torch=str(torch.__version__),
        cuda=torch.version.cuda,
        hip=torch.version.hip,
        cuda_available=available,
        cuda_error=error,
        mps_built=torch.backends.mps.is_built(),
        mps_available=torch.backends.mps.is_available(),
        xpu_available=xpu is not None and xpu.is_available(),
        kfd=_kfd(),
    )


def _cuda_state() -> tuple[bool, str | None]:
    """Whether CUDA (or ROCm) can be used, and what torch says where it was built but cannot."""
    import warnings

    import torch

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


def _apple_silicon() -> bool:
    """Whether the processor is Apple's, also where this Python runs translated (Rosetta)."""
    if platform.system() != "Darwin":
        return False
    return platform.machine() == "arm64" or _output("sysctl", "-n", "hw.optional.arm64") == "1"


def _cards() -> tuple[str, ...]:
    """Makers of the display and compute cards on the PCI bus (Linux), or seen by nvidia-smi."""
    found = set()
    for device in _PCI.glob("*") if _PCI.is_dir() else ():
        if _text(device / "class").startswith(_DISPLAY_CLASSES):
            found.add(_VENDORS.get(_text(device / "vendor"), "other"))
    if "nvidia" not in found and shutil.which("nvidia-smi") and _output("nvidia-smi", "-L"):
        found.add("nvidia")
    return tuple(sorted(found))


def _nvidia_driver() -> str | None:
    match = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", _text(_NVIDIA_VERSION))
    if match:
        return match[1]
    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    if shutil.which("nvidia-smi"):
        lines = _output(*query).splitlines()
        return lines[0].strip() if lines and lines[0][:1].isdigit() else None
    return None


def _kfd() -> str | None:
    device = "/dev/kfd"
    if not os.path.exists(device):
        return None
    return "open" if os.access(device, os.R_OK | os.W_OK) else "closed"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def diagnose(facts: GpuFacts) -> GpuDiagnosis:
    """Whether a GPU can be used, why not, and the one command that helps; a pure function."""
    if facts.cuda_available:
        build = f"ROCm {facts.hip}" if facts.hip else f"CUDA {facts.cuda}"
        return GpuDiagnosis(True, f"torch {facts.torch} finds a GPU through {build}")
    if facts.mps_available:
        return GpuDiagnosis(True, f"torch {facts.torch} finds the GPU of this Mac (MPS)")
    if facts.xpu_available:
        return GpuDiagnosis(True, f"torch {facts.torch} finds an Intel GPU (XPU)")
    if facts.system == "Darwin":
        return _diagnose_mac(facts)
    if (facts.cuda or facts.hip) and facts.visible is not None and facts.visible in ("", "-1"):
        name = "HIP_VISIBLE_DEVICES" if facts.hip else "CUDA_VISIBLE_DEVICES"
        return GpuDiagnosis(False, f"{name}={facts.visible!r} hides every GPU", f"unset {name}")
    if "nvidia" in facts.cards or facts.driver:
        return _diagnose_nvidia(facts)
    if "amd" in facts.cards:
        return _diagnose_amd(facts)
    if "intel" in facts.cards:
        why = f"an Intel GPU is there, but torch {facts.torch} was built without XPU"
        return GpuDiagnosis(False, why, _install("xpu"))
    return GpuDiagnosis(False, "no GPU was found in this machine; the CPU is used")


def _diagnose_mac(facts: GpuFacts) -> GpuDiagnosis:
    if not facts.apple_silicon:
        return GpuDiagnosis(False, "this Mac has no Apple silicon: torch cannot use its GPU")
    if facts.machine != "arm64":
        why = "this Python is built for Intel and runs translated on Apple silicon"
        return GpuDiagnosis(False, why, "arch -arm64 brew install python")
    if not facts.mps_built:
        why = f"torch {facts.torch} was built without MPS"
        return GpuDiagnosis(False, why, "pip install --force-reinstall torch")
    return GpuDiagnosis(False, "MPS needs macOS 12.3 or later", "softwareupdate --install --all")


def _diagnose_nvidia(facts: GpuFacts) -> GpuDiagnosis:
    if facts.driver is None:
        why = "an NVIDIA card is there, but its driver is not loaded"
        fix = "sudo ubuntu-drivers install"
        if facts.system == "Windows":
            fix = "start https://www.nvidia.com/drivers"
        return GpuDiagnosis(
            False, why, f"{fix}   # then restart; other systems: nvidia.com/drivers"
        )
    if facts.cuda is None:
        build = f"for ROCm {facts.hip}" if facts.hip else "without CUDA"
        why = f"an NVIDIA card with driver {facts.driver} is there, but torch was built {build}"
        return GpuDiagnosis(False, why, _install(_cuda_wheels(facts.driver)))
    wanted = _OLDEST_DRIVER.get(int(facts.cuda.split(".")[0]))
    if wanted is not None and _major(facts.driver) < wanted:
        why = (
            f"driver {facts.driver} is too old for torch built with CUDA {facts.cuda}, "
            f"which needs {wanted} or later"
        )
        return GpuDiagnosis(False, why, _install(_cuda_wheels(facts.driver)))
    said = facts.cuda_error or "no device answers"
    why = f"torch {facts.torch} (CUDA {facts.cuda}, driver {facts.driver}) cannot start: {said}"
    return GpuDiagnosis(
        False, why, "nvidia-smi   # if this fails too, restart or reinstall the driver"
    )


def _diagnose_amd(facts: GpuFacts) -> GpuDiagnosis:
    if facts.system == "Windows":
        return GpuDiagnosis(False, "an AMD card is there; torch needs Linux (or WSL) to use it")
    if facts.hip is None:
        why = f"an AMD card is there, but torch {facts.torch} was built without ROCm"
        fix = f"pip install --force-reinstall torch --index-url {_WHEELS}/rocm6.4   # or {_START}"
        return GpuDiagnosis(False, why, fix)
    if facts.kfd == "closed":
        why = "the AMD card may not be used by this account (/dev/kfd)"
        return GpuDiagnosis(
            False, why, 'sudo usermod -aG render,video "$USER"   # then log in again'
        )
    if facts.kfd is None:
        why = "an AMD card is there, but its compute driver is not loaded (no /dev/kfd)"
        return GpuDiagnosis(False, why, "sudo amdgpu-install --usecase=rocm   # then restart")
    said = facts.cuda_error or "no device answers"
    why = f"torch {facts.torch} (ROCm {facts.hip}) cannot start: {said}"
    return GpuDiagnosis(False, why, "rocminfo   # lists the cards that ROCm supports")


def _major(version: str) -> int:
    return int(version.split(".")[0])


def _cuda_wheels(driver: str) -> str | None:
    for oldest, wheels in _CUDA_WHEELS:
        if _major(driver) >= oldest:
            return wheels
    return None


def _install(wheels: str | None) -> str:
    if wheels is None:
        return f"sudo ubuntu-drivers install   # the driver is older than any torch; or {_START}"
    return f"pip install --force-reinstall torch --index-url {_WHEELS}/{wheels}   # or {_START}"
