"""The state of an installation: versions, devices, backends, libraries, cache, and problems."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from realesr_cli._version import __version__
from realesr_cli.diagnostics.graphics import GpuDiagnosis, diagnose, graphics_info
from realesr_cli.engine import backends, policy
from realesr_cli.engine.backends.onnxruntime import OnnxRuntimeBackend
from realesr_cli.engine.policy import GpuInfo, MachineInfo, Policy
from realesr_cli.engine.race import Race, remembered_races
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.errors import MissingDependencyError
from realesr_cli.image.plugins import load_opencv
from realesr_cli.nets.detection import architecture_from_plain
from realesr_cli.weights import fetch, registry

PACKAGES = ("torch", "numpy", "pillow", "opencv-python", "safetensors", "click", "requests", "tqdm")
OPTIONAL = {
    "tensorboard": "curves of a training run",
    "lpips": "the lpips column of evaluate",
    "dists-pytorch": "the dists column of evaluate",
    "onnx": "export to ONNX",
    "onnxruntime": "export to ONNX",
}
EXAMPLE_MODELS = ("RealESRGAN_x4plus", "realesr-general-x4v3")
"""One large and one small network, for which `auto` may decide differently."""

BUILDS_OF_ONNXRUNTIME = OnnxRuntimeBackend()

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_VARIABLES = (
    "REALESR_HOME",
    "REALESR_OFFLINE",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
)


@dataclass(frozen=True)
class LibraryInfo:
    """A library and what needs it; `problem` says why it cannot be loaded."""

    name: str
    purpose: str
    version: str | None
    problem: str | None = None


@dataclass(frozen=True)
class BackendInfo:
    """A backend, whether it can be used here, why, and the command that changes it."""

    name: str
    usable: bool
    reason: str
    fix: str | None = None


@dataclass(frozen=True)
class CacheInfo:
    """The folder of weights: whether it can be written to, and which models are in it."""

    folder: str
    writable: bool
    models: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class Choice:
    """What `auto` chooses for one model on this machine."""

    model: str
    policy: Policy


@dataclass(frozen=True)
class Finding:
    """A `problem` where something fails, a `note` where it is only slower; and the fix."""

    level: Literal["problem", "note"]
    what: str
    fix: str | None


@dataclass(frozen=True)
class EnvironmentReport:
    """Everything that `realesr doctor` shows."""

    versions: dict[str, str | None]
    system: str
    processor: str
    cores: int
    threads: int
    cpu_flags: tuple[str, ...]
    memory_available: int
    devices: tuple[GpuInfo, ...]
    gpu: GpuDiagnosis
    backends: tuple[BackendInfo, ...]
    auto: tuple[Choice, ...]
    races: tuple[Race, ...]
    libraries: tuple[LibraryInfo, ...]
    cache: CacheInfo
    offline: bool
    environment: dict[str, str]
    findings: tuple[Finding, ...] = ()


def examine() -> EnvironmentReport:
    """Look at everything; nothing is downloaded, changed or computed."""
    machine = policy.machine_info()
    gpu = diagnose(graphics_info())
    libraries, cache = _check_libraries(), check_cache()
    offline = fetch.is_offline()
    return EnvironmentReport(
        versions=_find_versions(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=policy.processor_name(),
        cores=machine.cores,
        threads=machine.threads,
        cpu_flags=tuple(sorted(machine.cpu_flags)),
        memory_available=machine.memory_available,
        devices=machine.gpus,
        gpu=gpu,
        backends=_check_backends(machine),
        auto=tuple(choose_for(machine, name) for name in EXAMPLE_MODELS),
        races=tuple(remembered_races()),
        libraries=libraries,
        cache=cache,
        offline=offline,
        environment=_read_environment(),
        findings=find_problems(gpu, libraries, cache, offline=offline),
    )


def choose_for(machine: MachineInfo, model: str) -> Choice:
    """Return what `auto` chooses for an official model on a machine."""
    entry = registry.resolve(model)
    assert entry.architecture is not None
    chosen = policy.choose(machine, EngineSettings(), architecture_from_plain(entry.architecture))
    return Choice(entry.name, chosen)


def find_problems(
    gpu: GpuDiagnosis,
    libraries: tuple[LibraryInfo, ...],
    cache: CacheInfo,
    *,
    offline: bool = False,
    onnx_builds: Mapping[str, str] | None = None,
) -> tuple[Finding, ...]:
    """Return the problems, most important first; `onnx_builds` by default the installed ones."""
    found = []
    builds = BUILDS_OF_ONNXRUNTIME.versions() if onnx_builds is None else onnx_builds
    if len(builds) > 1:
        what = f"{' and '.join(builds)} overwrite each other's files, so ONNX Runtime is unreliable"
        names = " ".join(builds)
        fix = f"pip uninstall {names} && pip install ONE   # of {names}"
        found.append(Finding("problem", what, fix))
    for library in libraries:
        if library.problem is not None:
            found.append(Finding("problem", library.problem, _suggest_fix(library)))
    if not cache.writable:
        what = f"the cache folder {cache.folder} is not writable, so no model can be downloaded"
        found.append(Finding("problem", what, "export REALESR_HOME=FOLDER   # a writable folder"))
    if offline and not cache.models:
        what = "REALESR_OFFLINE is set and no model is in the cache"
        found.append(Finding("problem", what, "REALESR_OFFLINE=0 realesr models pull x4plus"))
    if not gpu.usable and gpu.fix is not None:
        found.append(Finding("note", gpu.why, gpu.fix))
    return tuple(found)


def _suggest_fix(library: LibraryInfo) -> str:
    if library.version is None:
        return f"pip install {library.name}"
    if platform.system() == "Linux":
        return "sudo apt-get install libgl1 libglib2.0-0"
    return f"pip install --force-reinstall {library.name}"


def _find_versions() -> dict[str, str | None]:
    own = {"realesr-cli": __version__, "python": platform.python_version()}
    return own | {name: find_version(name) for name in PACKAGES}


def find_version(package: str) -> str | None:
    """Return the installed version of a distribution, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_backends(machine: MachineInfo) -> tuple[BackendInfo, ...]:
    found = []
    for backend in backends.BACKENDS:
        answer = backend.availability(machine)
        found.append(BackendInfo(backend.name, answer.usable, answer.reason, answer.fix))
    return tuple(found)


def _check_libraries() -> tuple[LibraryInfo, ...]:
    problem = None
    try:
        version = str(load_opencv("for 16-bit color").__version__)
    except MissingDependencyError as error:
        version, problem = find_version("opencv-python") or "", str(error)
    needed = LibraryInfo("opencv-python", "16-bit color", version or None, problem)
    optional = (LibraryInfo(name, use, find_version(name)) for name, use in OPTIONAL.items())
    return (needed, *optional)


def check_cache() -> CacheInfo:
    """Return what is in the folder of weights; `realesr models verify` checks the SHA-256."""
    folder = registry.weights_dir()
    there = {e.name: path for e in registry.entries() if (path := registry.cached(e)) is not None}
    size = sum(path.stat().st_size for path in set(there.values()))
    return CacheInfo(str(folder), _can_write(folder), tuple(there), size)


def _can_write(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _read_environment() -> dict[str, str]:
    """Return the variables that matter; of proxies only that they are set, as they hold secrets."""
    found = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    for name in (*_PROXIES, *(proxy.upper() for proxy in _PROXIES)):
        if os.environ.get(name):
            found[name] = "set"
    return found
