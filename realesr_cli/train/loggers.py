"""A run's numbers on disk: metrics.jsonl, and TensorBoard events if it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

from realesr_cli.atomic import atomic_write_bytes
from realesr_cli.train.config import RuntimeConfig

FILE = "metrics.jsonl"


class TensorBoardWriter(Protocol):
    """The part of TensorBoard's writer that is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Add one point to a curve."""
        ...

    def close(self) -> None:
        """Flush and close the file."""
        ...


class MetricsLog:
    """Appends one JSON object per line; use as a context manager.

    Lines of steps that a resumed run repeats are dropped when the file is opened. With `enabled`
    False (all processes but the first) nothing is written.
    """

    def __init__(
        self, out: Path, runtime: RuntimeConfig, *, resumed_at: int, enabled: bool = True
    ) -> None:
        """`resumed_at`: steps of the whole run done so far; later lines are dropped."""
        self._file: TextIO | None = None
        self._writer: TensorBoardWriter | None = None
        if not enabled:
            return
        path = out / FILE
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _total_of(line) <= resumed_at]
            atomic_write_bytes(path, "".join(line + "\n" for line in kept).encode())
        self._file = path.open("a", encoding="utf-8")
        self._writer = _open_tensorboard(out, resumed_at) if runtime.tensorboard else None

    def write(self, kind: str, total: int, values: dict[str, Any]) -> None:
        """Write one line: its kind (`step`, `validation`, ...), the run's total steps, values."""
        if self._file is None:
            return
        self._file.write(json.dumps({"kind": kind, "total": total, **values}) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._writer.add_scalar(f"{kind}/{name}", float(value), total)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for target in (self._file, self._writer):
            if target is not None:
                target.close()


def _total_of(line: str) -> int:
    """Return the step of a line; a line cut short by a crash counts as never written."""
    try:
        return int(json.loads(line)["total"])
    except (ValueError, KeyError, TypeError):
        return 2**62


def _open_tensorboard(out: Path, resumed_at: int) -> TensorBoardWriter | None:
    """Return a writer, or None if the optional package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer: TensorBoardWriter = SummaryWriter(str(out / "tensorboard"), purge_step=resumed_at + 1)
    return writer
