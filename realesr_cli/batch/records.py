"""Outcomes of a run: one record per image, and what they add up to."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from realesr_cli.batch.jobs import Job
from realesr_cli.errors import OutOfMemoryError, RealesrError

Status = Literal["done", "skipped", "failed", "stopped", "planned"]


@dataclass(frozen=True)
class Record:
    """The outcome of one image."""

    job: Job
    status: Status
    seconds: float = 0.0
    """Time spent on the image, without waiting."""
    failure: Exception | None = None
    data: bytes | None = None
    """The encoded image where the job has no file as its target."""
    notes: tuple[str, ...] = ()
    """What the user should know about how the image was read."""

    @property
    def error(self) -> str | None:
        """Why the image was not made."""
        if self.status == "stopped":
            return "not done: the run ended early"
        if self.failure is None or isinstance(self.failure, RealesrError):
            return None if self.failure is None else str(self.failure)
        return f"unexpected {type(self.failure).__name__}: {self.failure}"

    @property
    def trace(self) -> str | None:
        """Traceback of an error that is a bug."""
        if self.failure is None or isinstance(self.failure, RealesrError):
            return None
        return "".join(traceback.format_exception(self.failure))

    @property
    def exit_code(self) -> int:
        """Exit code of the run if this were its only image."""
        if self.failure is None:
            return 0
        return self.failure.exit_code if isinstance(self.failure, RealesrError) else 1


def planned(job: Job) -> Record:
    """Return what is known of a job before it is run."""
    if job.error is not None:
        return Record(job, "failed", failure=job.error)
    return Record(job, "skipped" if job.finished else "planned")


def exit_code(records: Sequence[Record]) -> int:
    """Return 0 where nothing failed, 4 where the only reason was memory, else 1."""
    codes = {r.exit_code for r in records if r.status == "failed"}
    if not codes:
        return 0
    return OutOfMemoryError.exit_code if codes == {OutOfMemoryError.exit_code} else 1


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Count records by status and add up their seconds, as plain data."""
    counts = {
        status: sum(r.status == status for r in records)
        for status in ("done", "skipped", "failed", "stopped")
    }
    return {**counts, "seconds": round(sum(r.seconds for r in records), 3)}
