"""One input at a time, wherever its bytes are: fetched, planned, upscaled, and its result put."""

from __future__ import annotations

import os
import tempfile
import threading
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from realesr_cli.batch import storage
from realesr_cli.batch.jobs import BatchSettings, Job, Record, has_size, make_job, make_plan
from realesr_cli.batch.made_by import find_differences, parse_made_by
from realesr_cli.batch.output_paths import Destination, known_format
from realesr_cli.batch.pipeline import Observer, Upscale
from realesr_cli.batch.run import run_jobs
from realesr_cli.batch.sources import InputSource
from realesr_cli.engine.settings import UpscaleSettings
from realesr_cli.errors import (
    ImageWriteError,
    OutputExistsError,
    RealesrError,
    UnreadableImageError,
)
from realesr_cli.image.formats import find_format
from realesr_cli.image.probe import ImageInfo
from realesr_cli.image.types import Image
from realesr_cli.progress import Progress, StopRequested, never

Task = InputSource | Job
"""An input to plan and make, or a job that is planned already."""

URL_ROOT = Path(os.sep, ".realesr-url")
"""Stands for the store of the output in the paths of a `Destination`: nothing is there."""


@dataclass(frozen=True)
class TaskSettings:
    """What is the same for all tasks of a run."""

    wanted: Destination
    batch: BatchSettings
    store: str = ""
    """URL that `URL_ROOT` stands for; empty where results are local files."""
    spool: Path | None = None
    """Folder for copies of objects; None for the system's own for temporary files."""


class _Last(Observer):
    """Keeps the record, with the encoded image where there is no file."""

    record: Record

    def finished(self, record: Record) -> None:
        self.record = record


class Worker:
    """Makes tasks. Safe to use from several threads: one upscales, others read and write."""

    def __init__(self, upscale: Upscale, settings: TaskSettings) -> None:
        self._upscale, self._settings = upscale, settings
        self._lock = threading.Lock()
        self._folders: set[Path] = set()
        """Output folders that were cleaned of temporary files."""

    def make(self, task: Task, stop_requested: StopRequested = never) -> Record:
        """Make one task; whatever goes wrong is in its record, which can be sent anywhere."""
        try:
            if isinstance(task, Job):
                return _portable(self._run(task, stop_requested))
            return _portable(self._make(task, stop_requested))
        except Exception as error:
            job = task if isinstance(task, Job) else Job(task)
            return _portable(Record(job, "failed", failure=error))

    def _make(self, source: InputSource, stop_requested: StopRequested) -> Record:
        settings = self._settings
        if source.error is not None:
            raise source.error
        if settings.store and not settings.batch.overwrite:
            finished = self._find_finished(source)
            if finished is not None:
                return Record(finished, "skipped")
        with tempfile.TemporaryDirectory(prefix="realesr-", dir=settings.spool) as spool:
            local = _fetch(source, Path(spool))
            if not settings.store:
                plan = make_plan([local], settings.wanted, settings.batch)
                record = self._run(plan.jobs[0], stop_requested)
            else:
                record = self._make_object(local, Path(spool), stop_requested)
            return _rename(record, source, local)

    def _make_object(
        self, source: InputSource, spool: Path, stop_requested: StopRequested
    ) -> Record:
        settings = self._settings
        job = make_job(source, settings.wanted, settings.batch)
        if job.error is not None or job.target is None:
            return Record(job, "failed", failure=job.error)
        url, mark = self._url(job), self._mark(job)
        if not settings.batch.overwrite and _is_finished(url, mark):
            return Record(replace(job, url=url), "skipped")
        target = spool / "out" / job.target.name
        record = self._run(replace(job, target=target, url=url), stop_requested)
        if record.status == "done":
            storage.put(target, url, mark, ImageWriteError)
        return record

    def _find_finished(self, source: InputSource) -> Job | None:
        """Return the job of a source whose result exists, without fetching the source.

        Its name is guessed by the extension; where that is wrong, nothing is found.
        """
        settings = self._settings
        format = known_format(Path("x" + source.extension))
        template = settings.wanted.template
        sized = has_size(settings.batch.upscale) or "{width}" in template or "{height}" in template
        if not source.version or format is None or sized or source.is_archive:
            return None
        info = ImageInfo(1, 1, 3, 8, False, find_format(format).sources[0])
        job = make_job(source, settings.wanted, settings.batch, info=info)
        if job.error is not None or job.target is None:
            return None
        url, mark = self._url(job), self._mark(job)
        del mark["size"]
        try:
            if not _is_finished(url, mark):
                return None
        except OutputExistsError:  # Perhaps not the result's real name.
            return None
        return replace(job, url=url, info=None, out_height=0, out_width=0)

    def _run(self, job: Job, stop_requested: StopRequested) -> Record:
        folder = None if job.target is None else job.target.parent
        clean = folder is not None and folder not in self._folders
        if folder is not None and self._settings.store == "":
            self._folders.add(folder)
        last = _Last()
        run_jobs(
            [job], self._upscale_alone, last, stop_requested=stop_requested, clean_folders=clean
        )
        return last.record

    def _upscale_alone(
        self,
        image: Image,
        settings: UpscaleSettings = UpscaleSettings(),
        *,
        progress: Progress | None = None,
        stop_requested: StopRequested | None = None,
    ) -> Image:
        with self._lock:
            return self._upscale(image, settings, progress=progress, stop_requested=stop_requested)

    def _url(self, job: Job) -> str:
        assert job.target is not None
        return f"{self._settings.store}/{job.target.relative_to(URL_ROOT).as_posix()}"

    def _mark(self, job: Job) -> dict[str, Any]:
        upscale = self._settings.batch.upscale
        sizes = (upscale.scale, upscale.width, upscale.height, upscale.fit, upscale.max_side)
        return {
            "made_by": None if job.made_by is None else job.made_by.to_text(),
            "request": [*map(str, sizes)],
            "size": [job.out_height, job.out_width],
            "source": job.source.relative,
            "version": job.source.version,
        }


def _is_finished(url: str, wanted: dict[str, Any]) -> bool:
    """Return whether an object is the result with this mark, or False where there is none.

    Raises OutputExistsError for any other object.
    """
    found = storage.read_mark(url, ImageWriteError)
    if found is None:
        return False
    made, want = parse_made_by(found.get("made_by")), parse_made_by(wanted["made_by"])
    if made is None or want is None:
        reason = "without a record of how it was made"
    elif different := find_differences(made, want):
        reason = f"made with {', '.join(different)}"
    elif found.get("source") != wanted["source"]:
        reason = f"made from another input, {found.get('source')}"
    elif found.get("version") != wanted["version"]:
        reason = "made from another version of its input"
    elif any(found.get(key) != wanted[key] for key in ("request", "size") if key in wanted):
        reason = "made with another size"
    else:
        return True
    text = f"{storage.redact(url)}: already exists, {reason}"
    raise OutputExistsError(text, advice="overwrite-or-rename")


def _fetch(source: InputSource, spool: Path) -> InputSource:
    assert source.path is not None
    if not source.url:
        return source
    folder = spool / "in"
    folder.mkdir()
    storage.fetch(source.url, folder / source.path.name, UnreadableImageError)
    return replace(source, path=folder / source.path.name)


def _rename(record: Record, source: InputSource, local: InputSource) -> Record:
    """Return a record of local copies with the names of the objects that they are copies of."""
    failure = record.failure
    if isinstance(failure, RealesrError):
        text = str(failure).replace(str(local.path), source.name)
        if record.job.url:
            text = text.replace(str(record.job.target), record.job.url)
        renamed = type(failure)(text, advice=failure.advice, values=failure.values)
        renamed.__cause__ = failure.__cause__
        failure = renamed
    return replace(record, job=replace(record.job, source=source), failure=failure)


def _portable(record: Record) -> Record:
    """Return a record whose failure keeps its traceback in another process."""
    failure = record.failure
    if failure is None or isinstance(failure, RealesrError):
        return record
    trace = "".join(traceback.format_exception(failure)).rstrip()
    text = f"unexpected {type(failure).__name__}: {failure}\n{trace}"
    return replace(record, failure=RealesrError(text))
