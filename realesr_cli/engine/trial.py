"""Trials of the backends of other libraries: does one compute a model as torch does?

A library that was not built for this processor may crash, and one with a defect may give another
image, so its first use with a model is in a process of its own, on one tile, which is compared with
torch in fp32. The result is remembered in the cache folder for as long as model, machine and
versions stay the same.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from realesr_cli._version import __version__
from realesr_cli.engine import backends, policy
from realesr_cli.engine.backends.base import Backend, LibraryBackend
from realesr_cli.engine.forward import reference_pattern
from realesr_cli.engine.guard import get_architecture
from realesr_cli.engine.policy import Policy
from realesr_cli.errors import RealesrWarning

SIDE = 64
"""Side of the tile that is compared."""

MAX_DIFFERENCE = 1e-4
"""Largest difference to torch in fp32, of numbers up to 1."""

MIN_PSNR = 45.0
"""Least agreement with torch in bf16 and fp16, in dB with peak 1."""

_TIMEOUT = 300
_in_child = False


@dataclass(frozen=True)
class TrialResult:
    """Whether a backend computes a model as torch does, and how near it is or why it fails."""

    usable: bool
    reason: str


def in_child() -> bool:
    """Return whether this is the process of a trial, where backends are used as they are."""
    return _in_child


def check_backend(network: nn.Module, chosen: Policy, backend: LibraryBackend) -> TrialResult:
    """Compare one tile with torch in fp32; the first time in another process, then remembered.

    A failure is warned of when it is found.
    """
    if _in_child:
        return TrialResult(True, "in a trial")
    details = [_hash_weights(network), chosen.precision, chosen.device]
    record = record_path("trial", backend, details)
    known = read_record(record, ("usable", "reason"))
    if known is not None:
        return TrialResult(known["usable"] is True, str(known["reason"]))
    output = run_in_child(backend, compute_tile, (network, chosen))
    if isinstance(output, TrialFailure):
        result = TrialResult(False, output.reason)
    else:
        own = Policy("cpu", "fp32", "torch", SIDE, 0, 1, chosen.threads)
        result = compare_outputs(output, compute_tile(network, own), chosen.precision)
    write_record(record, dataclasses.asdict(result))
    if not result.usable:
        text = f"backend {backend.name} is not used with this model: {result.reason}"
        warnings.warn(RealesrWarning(text), stacklevel=2)
    return result


def compute_tile(network: nn.Module, chosen: Policy) -> Tensor:
    """Return what a backend makes of the test pattern: (1, 3, SIDE * scale, SIDE * scale)."""
    from realesr_cli.nets.architecture import adapt_to_rgb

    forward = backends.find_backend(chosen.backend).open(network, chosen)
    return adapt_to_rgb(forward, get_architecture(network))(reference_pattern(SIDE, SIDE)).cpu()


def compare_outputs(found: Tensor, expected: Tensor, precision: str) -> TrialResult:
    """Return whether a backend's output is near enough to that of torch in fp32."""
    if found.shape != expected.shape:
        shapes = [tuple(y.shape) for y in (expected, found)]
        return TrialResult(False, f"wrong shape: expected {shapes[0]}, got {shapes[1]}")
    if not bool(found.isfinite().all()):
        return TrialResult(False, "it gives NaN or Inf")
    # The outputs of an untrained network may be of any size.
    peak = max(1.0, float(expected.abs().max()))
    difference = (found - expected).double() / peak
    if precision == "fp32":
        largest = float(difference.abs().max())
        text = f"differs from torch by {largest:.1e} in fp32 (limit {MAX_DIFFERENCE:.0e})"
        return TrialResult(largest <= MAX_DIFFERENCE, text)
    error = float(difference.square().mean())
    psnr = -10 * math.log10(error) if error else math.inf
    text = f"{psnr:.1f} dB to torch in {precision} (limit {MIN_PSNR:.0f} dB)"
    return TrialResult(psnr >= MIN_PSNR, text)


def _hash_weights(network: nn.Module) -> str:
    digest = hashlib.sha256(repr(network).encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


# --- the other process --------------------------------------------------------------------------


@dataclass(frozen=True)
class TrialFailure:
    """Why a task in another process gave no result."""

    reason: str


@dataclass(frozen=True)
class _Task:
    backend: Backend
    function: Callable[..., Any]
    arguments: Sequence[Any]
    threads: int


def run_in_child(backend: Backend, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Return what a function gives in another process in which `backend` is known, or a failure."""
    with tempfile.TemporaryDirectory(prefix="realesr-") as folder:
        task = _Task(backend, function, arguments, torch.get_num_threads())
        torch.save(task, Path(folder, "task.pt"))
        package = str(Path(__file__).resolve().parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", "realesr_cli.engine.trial", folder]
        try:
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                timeout=_TIMEOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return TrialFailure(f"no result after {_TIMEOUT} s")
        if done.returncode == 0:
            # Written by this user's own process a moment ago, as is the task.
            return torch.load(Path(folder, "output.pt"), weights_only=False)
        if done.returncode < 0:
            return TrialFailure(f"its process died by {signal.Signals(-done.returncode).name}")
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        return TrialFailure(
            lines[-1][:300] if lines else f"its process ended with {done.returncode}"
        )


def run_task(folder: Path) -> None:
    """Do what `run_in_child` put into a folder, and leave the result there."""
    global _in_child
    _in_child = True
    task: _Task = torch.load(folder / "task.pt", weights_only=False)
    if task.backend.name not in [backend.name for backend in backends.BACKENDS]:
        backends.BACKENDS = (*backends.BACKENDS, task.backend)
    torch.set_num_threads(task.threads)
    torch.save(task.function(*task.arguments), folder / "output.pt")


# --- records ------------------------------------------------------------------------------------


def record_path(kind: str, backend: LibraryBackend, details: Sequence[Any]) -> Path:
    """Return the file in which a result is remembered, named by all that it depends on."""
    from realesr_cli.weights.registry import home

    key = [__version__, torch.__version__, backend.versions(), *_machine_key(), *details]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    return home() / "backends" / f"{kind}-{backend.name}-{digest}.json"


@functools.cache
def _machine_key() -> tuple[str, ...]:
    return policy.processor_name(), str(policy.usable_cores()), *sorted(policy.cpu_flags())


def read_record(path: Path, keys: Sequence[str]) -> dict[str, Any] | None:
    """Return a record with these keys; None where there is none, or a damaged one."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and set(keys) <= set(found) else None


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record; where the cache cannot be written, the next run makes the trial again."""
    from realesr_cli.atomic import atomic_write_bytes

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, json.dumps(record, indent=1).encode())
    except OSError:
        return


def _main() -> None:
    # Not the functions of this copy: pickled names refer to the module by its own name.
    from realesr_cli.engine import trial

    trial.run_task(Path(sys.argv[1]))


if __name__ == "__main__":
    _main()
