"""A run's numbers: metrics.jsonl, and TensorBoard, Weights & Biases and MLflow on request."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from realesr_cli.atomic import atomic_write_bytes
from realesr_cli.errors import MissingDependencyError
from realesr_cli.settings import to_plain
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.settings import RuntimeConfig

FILE = "metrics.jsonl"

RUN_IDS = "trackers.json"
"""The file with the identifiers of the run in W&B and MLflow, which a resumed run continues."""

PROJECT = "realesr"
"""Project (W&B) or experiment (MLflow); WANDB_PROJECT and MLFLOW_EXPERIMENT_NAME override it."""


class MetricsWriter(Protocol):
    """Where numbers go."""

    def write(self, kind: str, total: int, values: Mapping[str, Any]) -> None:
        """Write the values of a `kind` (`step`, `validation`, ...) after `total` steps."""
        ...

    def close(self) -> None:
        """Write what is left, and close."""
        ...


class MetricsLog:
    """Passes every line to all writers of a run; use as a context manager.

    With `enabled` False (all processes but the first) nothing is written.
    """

    def __init__(
        self, out: Path, config: TrainConfig, *, resumed_at: int, enabled: bool = True
    ) -> None:
        """`resumed_at`: steps of the whole run done so far; what was logged later is dropped."""
        runtime = config.runtime
        self._writers: list[MetricsWriter] = []
        if not enabled:
            return
        self._writers.append(JsonLines(out, resumed_at))
        if runtime.tensorboard and _is_installed("tensorboard"):
            self._writers.append(TensorBoard(out, resumed_at))
        if runtime.wandb:
            self._writers.append(WeightsAndBiases(out, config))
        if runtime.mlflow:
            self._writers.append(MlFlow(out, config))

    def write(self, kind: str, total: int, values: Mapping[str, Any]) -> None:
        """Write a line: its kind (`step`, `validation`, ...), the run's total steps, values."""
        for writer in self._writers:
            writer.write(kind, total, values)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for writer in self._writers:
            writer.close()


class JsonLines:
    """Appends one JSON object per line; lines of steps that are repeated are dropped."""

    def __init__(self, out: Path, resumed_at: int) -> None:
        path = out / FILE
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _total_of(line) <= resumed_at]
            atomic_write_bytes(path, "".join(line + "\n" for line in kept).encode())
        self._file = path.open("a", encoding="utf-8")

    def write(self, kind: str, total: int, values: Mapping[str, Any]) -> None:
        """Append a line."""
        self._file.write(json.dumps({"kind": kind, "total": total, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """Writes TensorBoard events to `tensorboard/` in the run's folder."""

    def __init__(self, out: Path, resumed_at: int) -> None:
        module: Any = importlib.import_module("torch.utils.tensorboard")
        self._writer = module.SummaryWriter(str(out / "tensorboard"), purge_step=resumed_at + 1)

    def write(self, kind: str, total: int, values: Mapping[str, Any]) -> None:
        """Add a point to the curve of each number."""
        for name, value in _numbers(kind, values).items():
            self._writer.add_scalar(name, value, total)

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


class WeightsAndBiases:
    """Logs to Weights & Biases, which its own environment variables (WANDB_...) configure."""

    def __init__(self, out: Path, config: TrainConfig) -> None:
        module: Any = importlib.import_module("wandb")
        name = _run_id(out, "wandb") or secrets.token_hex(8)
        self._run = module.init(
            project=None if _is_set("WANDB_PROJECT") else PROJECT,
            name=out.resolve().name,
            dir=str(out),
            id=name,
            resume="allow",
            config=to_plain(config),
        )
        _keep_run_id(out, "wandb", name)

    def write(self, kind: str, total: int, values: Mapping[str, Any]) -> None:
        """Log all numbers at this step."""
        self._run.log(_numbers(kind, values), step=total)

    def close(self) -> None:
        """Upload the rest."""
        self._run.finish()


class MlFlow:
    """Logs to MLflow, where its own environment variables (MLFLOW_...) say."""

    def __init__(self, out: Path, config: TrainConfig) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")
        if not _is_set("MLFLOW_EXPERIMENT_NAME") and not _is_set("MLFLOW_EXPERIMENT_ID"):
            self._mlflow.set_experiment(PROJECT)
        known = _run_id(out, "mlflow")
        run = self._mlflow.start_run(run_id=known or None, run_name=out.resolve().name)
        if not known:
            self._mlflow.log_dict(to_plain(config), "config.json")
            _keep_run_id(out, "mlflow", run.info.run_id)

    def write(self, kind: str, total: int, values: Mapping[str, Any]) -> None:
        """Log all numbers at this step."""
        self._mlflow.log_metrics(_numbers(kind, values), step=total)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


def check_trackers(runtime: RuntimeConfig) -> None:
    """Raise MissingDependencyError for a tracker that is asked for, but not installed."""
    for name, wanted in (("wandb", runtime.wandb), ("mlflow", runtime.mlflow)):
        if wanted and not _is_installed(name):
            raise MissingDependencyError(
                f"runtime.{name} needs the package {name}, which is not installed: "
                f"pip install 'realesr-cli[{name}]'"
            )


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable))


def _numbers(kind: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers among the values as `kind/name`."""
    return {
        f"{kind}/{name}": float(value)
        for name, value in values.items()
        if isinstance(value, (int, float))
    }


def _read_run_ids(out: Path) -> dict[str, str]:
    try:
        found = json.loads((out / RUN_IDS).read_text(encoding="utf-8"))
        return {str(key): str(value) for key, value in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _run_id(out: Path, tracker: str) -> str:
    return _read_run_ids(out).get(tracker, "")


def _keep_run_id(out: Path, tracker: str, value: str) -> None:
    ids = {**_read_run_ids(out), tracker: value}
    atomic_write_bytes(out / RUN_IDS, json.dumps(ids).encode())


def _total_of(line: str) -> int:
    """Return the step of a line; a line cut short by a crash counts as never written."""
    try:
        return int(json.loads(line)["total"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 2**62
