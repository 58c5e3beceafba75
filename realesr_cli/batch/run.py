"""Run the jobs of a plan: images through the pipeline, archives image by image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from realesr_cli.atomic import atomic_write, remove_stale_files, write_errors
from realesr_cli.batch.jobs import Job, Record
from realesr_cli.batch.pipeline import Observer, Upscale, is_fatal, make_folder, run_images
from realesr_cli.errors import CancelledError, ImageWriteError
from realesr_cli.progress import StopRequested, never

if TYPE_CHECKING:
    from realesr_cli.batch.archives import ArchiveWriter


def run_jobs(
    jobs: Sequence[Job],
    upscale: Upscale | None,
    observer: Observer | None = None,
    *,
    stop_requested: StopRequested = never,
    fail_fast: bool = False,
    clean_folders: bool = True,
) -> list[Record]:
    """Run the jobs in order and return one record each, in the same order.

    `upscale` may be None where no job is pending. An image that fails is recorded and the rest
    goes on, unless `fail_fast` or a full disk ends the run; jobs not finished then, or when
    `stop_requested` says so, are recorded as stopped. Files are written atomically, and temporary
    files that a killed run left behind are removed first, unless `clean_folders` is false. An
    archive is made whole or not at all: one that was interrupted is made again from its first
    image.
    """
    folders = {job.target.parent for job in jobs if job.target is not None}
    for folder in folders if clean_folders else ():
        remove_stale_files(folder)
    watch = observer or Observer()
    records: list[Record] = []
    # Consecutive images make up a group, and so does each archive.
    groups = itertools.groupby(jobs, lambda job: id(job) if job.members else None)
    for group in [list(members) for _, members in groups]:
        if group[0].members or _is_over(records, fail_fast) or stop_requested():
            for job in group:
                record = Record(job, "stopped")
                if not (_is_over(records, fail_fast) or stop_requested()):
                    record = _run_archive(job, upscale, watch, stop_requested)
                watch.finished(record)
                records.append(record)
        else:
            records += run_images(
                group, upscale, watch, stop_requested=stop_requested, fail_fast=fail_fast
            )
    return records


def _is_over(records: Sequence[Record], fail_fast: bool) -> bool:
    """Return whether the jobs after these are not to be started."""
    failed = [record for record in records if record.status == "failed"]
    fatal = any(is_fatal(record.failure) for record in failed)
    return fatal or (fail_fast and bool(failed)) or any(r.status == "stopped" for r in records)


class _ArchiveObserver(Observer):
    """Passes on what happens to the images of an archive, and puts them into the new archive."""

    def __init__(self, observer: Observer, writer: ArchiveWriter) -> None:
        self._observer, self._writer = observer, writer

    def started(self, job: Job) -> None:
        self._observer.started(job)

    def __call__(self, done: int, total: int) -> None:
        self._observer(done, total)

    def finished(self, record: Record) -> None:
        if record.data is not None:
            self._writer.add(record.job.entry, record.data)


def _run_archive(
    job: Job, upscale: Upscale | None, observer: Observer, stop_requested: StopRequested
) -> Record:
    """Make one archive; it appears when all its images are done."""
    if not job.pending:
        return Record(job, "skipped" if job.finished else "failed", failure=job.error)
    records: list[Record] = []
    failure: Exception | None = None
    try:
        _write_archive(job, upscale, observer, stop_requested, records)
    except CancelledError:
        failure = next((r.failure for r in records if r.failure is not None), None)
        if failure is None:
            return Record(job, "stopped")
    except Exception as error:
        failure = error
    seconds = sum(record.seconds for record in records)
    notes = tuple(dict.fromkeys(note for record in records for note in record.notes))
    return Record(job, "done" if failure is None else "failed", seconds, failure, notes=notes)


def _write_archive(
    job: Job,
    upscale: Upscale | None,
    observer: Observer,
    stop_requested: StopRequested,
    records: list[Record],
) -> None:
    """Write the archive and fill in the records of its images.

    Raises CancelledError, and leaves no file, unless all images are done.
    """
    from realesr_cli.batch.archives import ArchiveWriter, open_archive

    assert job.source.path is not None
    assert job.target is not None
    make_folder(job.target.parent)
    stored = job.made_by is not None and not job.write.strip_metadata
    comment = job.made_by.to_text().encode() if job.made_by and stored else b""
    with (
        open_archive(job.source.path) as source,
        write_errors(job.target, ImageWriteError),
        atomic_write(job.target) as file,
        ArchiveWriter(source, file, comment) as writer,
    ):
        records += run_images(
            job.members,
            upscale,
            _ArchiveObserver(observer, writer),
            stop_requested=stop_requested,
            fail_fast=True,
        )
        if any(record.status != "done" for record in records):
            raise CancelledError("cancelled")
