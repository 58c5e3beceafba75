"""The state of an installation: versions, devices, choices, libraries, cache, and what to mend."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from realesr_cli._version import __version__
from realesr_cli.diagnostics import gpu
from realesr_cli.engine import policy
from realesr_cli.engine.policy import Policy
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.errors import MissingDependencyError
from realesr_cli.image.opencv import load_opencv
from realesr_cli.nets.detection import architecture_from_plain
from realesr_cli.weights import fetch, registry

PACKAGES = ("torch", "numpy", "pillow", "opencv-python", "safetensors", "click", "requests", "tqdm")
OPTIONAL = {
    "tensorboard": "curves of a training run",
    "lpips": "the column lpips of evaluate",
    "onnx": "export to ONNX",
    "onnxruntime": "export to ONNX",
}
SHOWN_MODELS = ("RealESRGAN_x4plus", "realesr-general-x4v3")
"""One large and one small network: `auto` may decide differently for them."""

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class LibraryInfo:
    """A library that something needs; `problem` tells why it cannot be loaded."""

    name: str
    purpose: str
    version: str | None
    problem: str | None = None


@dataclass(frozen=True)
class Cache:
    """The folder of weights: where, whether it can be written to, and which models are there."""

    folder: str
    writable: bool
    models: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class Choice:
    """What `auto` does with one model on this machine, and why."""

    model: str
    policy: Policy


@dataclass(frozen=True)
class Finding:
    """Something to mend: `problem` where work fails, `note` where it only goes slower."""

    level: Literal["problem", "note"]
    what: str
    fix: str | None


@dataclass(frozen=True)
class EnvironmentReport:
    """All that `realesr doctor` found out."""

    versions: dict[str, str | None]
    system: str
    processor: str
    cores: int
    threads: int
    cpu_flags: tuple[str, ...]
    fused: bool
    memory_available: int
    devices: tuple[policy.GpuInfo, ...]
    gpu: gpu.GpuDiagnosis
    auto: tuple[Choice, ...]
    libraries: tuple[LibraryInfo, ...]
    cache: Cache
    offline: bool
    environment: dict[str, str]
    findings: tuple[Finding, ...] = ()


def examine() -> EnvironmentReport:
    """Look at everything; nothing is downloaded, changed or computed."""
    found = policy.machine_info()
    verdict = gpu.diagnose(gpu.gpu_facts())
    libraries, cache = _libraries(), cache_state()
    offline = fetch.is_offline()
    return EnvironmentReport(
        versions=_versions(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor(),
        cores=found.cores,
        threads=torch.get_num_threads(),
        cpu_flags=tuple(sorted(found.cpu_flags)),
        fused="onednn" in found.backends,
        memory_available=found.memory_available,
        devices=found.gpus,
        gpu=verdict,
        auto=tuple(choice(found, name) for name in SHOWN_MODELS),
        libraries=libraries,
        cache=cache,
        offline=offline,
        environment=_environment(),
        findings=findings(verdict, libraries, cache, offline=offline),
    )


def choice(found: policy.MachineInfo, model: str) -> Choice:
    """What `auto` chooses for an official model, given facts about a machine."""
    entry = registry.resolve(model)
    assert entry.architecture is not None
    chosen = policy.choose(found, EngineSettings(), architecture_from_plain(entry.architecture))
    return Choice(entry.name, chosen)


def findings(
    verdict: gpu.GpuDiagnosis,
    libraries: tuple[LibraryInfo, ...],
    cache: Cache,
    *,
    offline: bool = False,
) -> tuple[Finding, ...]:
    """What to mend, most important first; a pure function."""
    found = []
    for library in libraries:
        if library.problem is not None:
            found.append(Finding("problem", library.problem, _mend(library)))
    if not cache.writable:
        what = f"the cache folder {cache.folder} cannot be written to, so no model can be fetched"
        found.append(Finding("problem", what, "export REALESR_HOME=FOLDER   # one of your own"))
    if offline and not cache.models:
        what = "REALESR_OFFLINE is set and no model is in the cache"
        found.append(Finding("problem", what, "REALESR_OFFLINE=0 realesr models pull x4plus"))
    if not verdict.usable and verdict.fix is not None:
        found.append(Finding("note", verdict.why, verdict.fix))
    return tuple(found)


def _mend(library: LibraryInfo) -> str:
    if library.version is None:
        return f"pip install {library.name}"
    if platform.system() == "Linux":
        return "sudo apt-get install -y libgl1 libglib2.0-0"
    return f"pip install --force-reinstall {library.name}"


def _versions() -> dict[str, str | None]:
    own = {"realesr-cli": __version__, "python": platform.python_version()}
    return own | {name: version_of(name) for name in PACKAGES}


def version_of(package: str) -> str | None:
    """The installed version of a distribution, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _libraries() -> tuple[LibraryInfo, ...]:
    problem = None
    try:
        version = str(load_opencv("for 16-bit color").__version__)
    except MissingDependencyError as error:
        version, problem = version_of("opencv-python") or "", str(error)
    needed = LibraryInfo("opencv-python", "16-bit color", version or None, problem)
    optional = (LibraryInfo(name, use, version_of(name)) for name, use in OPTIONAL.items())
    return (needed, *optional)


def cache_state() -> Cache:
    """What is in the folder of weights; checksums are left to `realesr models verify`."""
    folder = registry.weights_dir()
    there = {e.name: path for e in registry.entries() if (path := registry.cached(e)) is not None}
    size = sum(path.stat().st_size for path in set(there.values()))
    return Cache(str(folder), _can_write(folder), tuple(there), size)


def _can_write(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _environment() -> dict[str, str]:
    """Variables that change what we do; of proxies only that they are set, as they hold secrets."""
    names = ("REALESR_HOME", "REALESR_OFFLINE", "CUDA_VISIBLE_DEVICES", *_THREAD_LIMITS)
    found = {name: os.environ[name] for name in names if name in os.environ}
    for name in (*_PROXIES, *(p.upper() for p in _PROXIES)):
        if os.environ.get(name):
            found[name] = "set"
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()
