"""What became of the images of a run: one record each, and what they come to."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from realesr_cli.batch.jobs import Job
from realesr_cli.errors import OutOfMemoryError, RealesrError

Status = Literal["done", "skipped", "failed", "stopped", "planned"]


@dataclass(frozen=True)
class Record:
    """What became of one image; sizes in pixels, `seconds` spent on it, waiting not counted."""

    job: Job
    status: Status
    seconds: float = 0.0
    error: str | None = None
    exit_code: int = 0
    trace: str | None = None
    """Traceback of an error nobody foresaw."""
    data: bytes | None = None
    """The encoded image where the job has no file as its target."""
    notes: tuple[str, ...] = ()
    """What the user should know about how the image was read."""


def planned(job: Job) -> Record:
    """What is known of a job before it is done: that it failed, is there already, or is to do."""
    if job.error is not None:
        return failed(Record(job, "failed"), job.error)
    return Record(job, "skipped" if job.finished else "planned")


def failed(record: Record, failure: Exception) -> Record:
    """The record with the reason why it failed."""
    if isinstance(failure, RealesrError):
        return replace(record, status="failed", error=str(failure), exit_code=failure.exit_code)
    text = f"unexpected {type(failure).__name__}: {failure}"
    trace = "".join(traceback.format_exception(failure))
    return replace(record, status="failed", error=text, exit_code=1, trace=trace)


def exit_code(records: Sequence[Record]) -> int:
    """0 where nothing failed, 4 where memory alone was the reason, else 1."""
    codes = {r.exit_code for r in records if r.status == "failed"}
    if not codes:
        return 0
    return OutOfMemoryError.exit_code if codes == {OutOfMemoryError.exit_code} else 1


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Counts by status, and the failed images with their reasons, as plain data."""
    counts = {s: sum(r.status == s for r in records) for s in ("done", "skipped", "failed")}
    return {
        **counts,
        "stopped": sum(r.status == "stopped" for r in records),
        "seconds": round(sum(r.seconds for r in records), 3),
        "failures": [
            {"input": r.job.source.name, "error": r.error} for r in records if r.status == "failed"
        ],
    }
