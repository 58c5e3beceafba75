"""A run's numbers on disk: metrics.jsonl, and TensorBoard events where it is installed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from realesr_cli.atomic import atomic_write_bytes
from realesr_cli.train.config import RuntimeConfig
from realesr_cli.train.distributed import World

FILE = "metrics.jsonl"


class TensorBoardWriter(Protocol):
    """The part of TensorBoard's writer that is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Add one point to a curve."""
        ...

    def close(self) -> None:
        """Flush and close the file."""
        ...


class Log:
    """Appends one JSON object per line; lines of steps that a resumed run repeats are dropped."""

    def __init__(self, out: Path, *, resumed_at: int, tensorboard: bool) -> None:
        """`resumed_at`: the run's total of steps done; lines beyond it are of a future undone."""
        self.path = out / FILE
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _total(line) <= resumed_at]
            atomic_write_bytes(self.path, "".join(line + "\n" for line in kept).encode())
        self._file = self.path.open("a", encoding="utf-8")
        self._writer = _tensorboard(out, resumed_at) if tensorboard else None

    def write(self, kind: str, total: int, values: dict[str, Any]) -> None:
        """One line: its kind (`step`, `validation`, ...), the run's total of steps, the values."""
        self._file.write(json.dumps({"kind": kind, "total": total, **values}) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._writer.add_scalar(f"{kind}/{name}", float(value), total)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()


@contextlib.contextmanager
def open_log(
    out: Path, resumed_at: int, runtime: RuntimeConfig, world: World
) -> Iterator[Log | None]:
    """The log of a run in its first process, closed at the end; None in the others."""
    if not world.first:
        yield None
        return
    log = Log(out, resumed_at=resumed_at, tensorboard=runtime.tensorboard)
    try:
        yield log
    finally:
        log.close()


def _total(line: str) -> int:
    """The step of a line; a line cut short by a crash counts as never written."""
    try:
        return int(json.loads(line)["total"])
    except (ValueError, KeyError, TypeError):
        return 2**62


def _tensorboard(out: Path, resumed_at: int) -> TensorBoardWriter | None:
    """A writer, or None where the optional package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer: TensorBoardWriter = SummaryWriter(str(out / "tensorboard"), purge_step=resumed_at + 1)
    return writer
