"""Many images through one upscaler, read and written beside inference: one record each."""

from __future__ import annotations

import errno
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from realesr_cli.atomic import remove_stale_files
from realesr_cli.batch.jobs import Job
from realesr_cli.batch.records import Record, failed
from realesr_cli.engine.policy import memory_available
from realesr_cli.engine.settings import UpscaleSettings
from realesr_cli.errors import CancelledError, ImageWriteError, OutOfMemoryError, RealesrError
from realesr_cli.image.formats import DEFAULT_MAX_PIXELS, WriteSettings
from realesr_cli.image.read import read_image
from realesr_cli.image.types import Image
from realesr_cli.image.write import encode_image, write_image
from realesr_cli.progress import Progress, StopRequested

_POLL_SECONDS = 0.05
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


class Upscale(Protocol):
    """What the batch needs of an `Upscaler`."""

    def __call__(
        self,
        image: Image,
        settings: UpscaleSettings = ...,
        *,
        progress: Progress | None = None,
        stop_requested: StopRequested | None = None,
    ) -> Image: ...


@dataclass(frozen=True)
class BatchSettings:
    """What holds for every image of a run."""

    upscale: UpscaleSettings = field(default_factory=UpscaleSettings)
    write: WriteSettings = field(default_factory=WriteSettings)
    max_pixels: int | None = DEFAULT_MAX_PIXELS
    fail_fast: bool = False
    in_flight_bytes: int = 1 << 30
    """Finished images waiting to be written hold at most this much, one image excepted."""


def _nothing(*_: Any) -> None:
    return None


def _never() -> bool:
    return False


@dataclass(frozen=True)
class BatchCallbacks:
    """How a run is watched and stopped; each is called by one thread at a time.

    `finished` gets the records in the order of the jobs, from the writing thread.
    """

    started: Callable[[Job], None] = _nothing
    tiles: Callable[[int, int], None] = _nothing
    finished: Callable[[Record], None] = _nothing
    cancel: Callable[[], bool] = _never


@dataclass
class _Item:
    """A job on its way through the three stages."""

    job: Job
    image: Image | None = None
    cost: int = 0
    seconds: float = 0.0
    failure: Exception | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Line:
    """The conveyor between the stages of one run."""

    settings: BatchSettings
    hooks: BatchCallbacks
    stop: threading.Event = field(default_factory=threading.Event)
    loaded: queue.Queue[_Item | None] = field(default_factory=lambda: queue.Queue(maxsize=1))
    ready: queue.Queue[_Item | None] = field(default_factory=lambda: queue.Queue(maxsize=1))
    crashes: list[BaseException] = field(default_factory=list)
    """What a hook raised in one of our threads, for the caller's thread to raise."""

    def guarded(self, work: Callable[[], None]) -> threading.Thread:
        """A thread whose crash ends the run instead of leaving the other stages waiting."""

        def body() -> None:
            try:
                work()
            except BaseException as error:
                self.crashes.append(error)
                self.stop.set()

        return threading.Thread(target=body, daemon=True)

    def stopped(self) -> bool:
        """Whether the run is to end early; asks the caller's hook too."""
        if not self.stop.is_set() and self.hooks.cancel():
            self.stop.set()
        return self.stop.is_set()


class _Gate:
    """Lets finished images pile up only to a number of bytes; one always fits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._change = threading.Condition()

    def enter(self, cost: int, stopped: Callable[[], bool]) -> None:
        with self._change:
            while self._held and self._held + cost > self._limit and not stopped():
                self._change.wait(_POLL_SECONDS)
            self._held += cost

    def leave(self, cost: int) -> None:
        with self._change:
            self._held -= cost
            self._change.notify_all()


def run(
    jobs: Sequence[Job],
    upscale: Upscale | None,
    settings: BatchSettings | None = None,
    hooks: BatchCallbacks | None = None,
) -> list[Record]:
    """Do the jobs in order and return one record each, in the same order.

    `upscale` may be None where no job needs it (all are finished or refused).

    The next image is read and the last one written while one is upscaled. An image that fails
    is recorded and the rest goes on, unless `settings.fail_fast` or a full disk ends the run; jobs
    not finished then, or when `hooks.cancel` says so, are recorded as stopped. Nothing half-written
    stays behind in any case, and what a killed run left half-written is removed first.
    """
    for folder in {job.target.parent for job in jobs if job.target is not None}:
        remove_stale_files(folder)
    line = _Line(settings or BatchSettings(), hooks or BatchCallbacks())
    gate = _Gate(line.settings.in_flight_bytes)
    records: list[Record] = []
    reader = line.guarded(lambda: _read_all(line, jobs))
    writer = line.guarded(lambda: _write_all(line, gate, records))
    reader.start()
    writer.start()
    try:
        _upscale_all(line, gate, upscale)
    except BaseException:
        line.stop.set()
        raise
    finally:
        _put(line.ready, None, lambda: not writer.is_alive())
        writer.join()
        reader.join()
    if line.crashes:
        raise line.crashes[0]
    for job in jobs[len(records) :]:
        record = Record(job, "stopped", error="not done: the run ended early")
        records.append(record)
        line.hooks.finished(record)
    return records


def _put(place: queue.Queue[_Item | None], item: _Item | None, stopped: Callable[[], bool]) -> bool:
    while True:
        try:
            place.put(item, timeout=_POLL_SECONDS)
            return True
        except queue.Full:
            if stopped():
                return False


def _read_all(line: _Line, jobs: Sequence[Job]) -> None:
    for job in jobs:
        if line.stop.is_set():
            return
        item = _Item(job, failure=job.error)
        if job.open:
            _timed(item, lambda item: _read(item, line.settings))
        if not _put(line.loaded, item, line.stop.is_set):
            return
    _put(line.loaded, None, line.stop.is_set)


def _read(item: _Item, settings: BatchSettings) -> None:
    source = item.job.source
    subject = source.data if source.path is None else source.path
    assert subject is not None
    item.image = read_image(subject, max_pixels=settings.max_pixels)
    item.notes = item.image.notes


def _upscale_all(line: _Line, gate: _Gate, upscale: Upscale | None) -> None:
    while not line.stopped():
        try:
            item = line.loaded.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            continue
        if item is None:
            return
        if item.image is not None:
            assert upscale is not None
            line.hooks.started(item.job)
            item.cost = item.job.output_bytes
            gate.enter(item.cost, line.stopped)
            _timed(item, lambda item: _upscale(item, line, upscale))
        if isinstance(item.failure, CancelledError) or not _put(line.ready, item, line.stopped):
            line.stop.set()
            return


def _upscale(item: _Item, line: _Line, upscale: Upscale) -> None:
    image, item.image = item.image, None
    assert image is not None
    # Systems that promise more memory than there is kill the process instead of raising.
    if item.job.output_bytes > memory_available():
        raise _out_of_memory(item.job)
    item.image = upscale(
        image, line.settings.upscale, progress=line.hooks.tiles, stop_requested=line.stopped
    )


def _write_all(line: _Line, gate: _Gate, records: list[Record]) -> None:
    while True:
        item = line.ready.get()
        if item is None:
            return
        if line.stop.is_set():
            continue  # only taken off the line, so that nobody waits for room on it
        record = _finish(item, line.settings)
        gate.leave(item.cost)
        records.append(record)
        line.hooks.finished(record)
        if record.status == "failed" and (line.settings.fail_fast or _fatal(item.failure)):
            line.stop.set()


def _finish(item: _Item, settings: BatchSettings) -> Record:
    if item.job.finished:
        return Record(item.job, "skipped")
    data: list[bytes] = []
    if item.failure is None:
        _timed(item, lambda item: _write(item, settings, data))
    encoded = data[0] if data else None
    record = Record(item.job, "done", item.seconds, data=encoded, notes=item.notes)
    return record if item.failure is None else failed(record, item.failure)


def _write(item: _Item, settings: BatchSettings, data: list[bytes]) -> None:
    job, image = item.job, item.image
    item.image = None
    assert image is not None
    if job.target is None:
        data.append(encode_image(image, job.format, settings.write))
        return
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageWriteError(f"{job.target.parent}: cannot be created: {error}") from error
    write_image(image, job.target, replace(settings.write, format=job.format))


def _timed(item: _Item, work: Callable[[_Item], None]) -> None:
    """Do one stage of an item; what it raises is kept, so that one image harms no other."""
    start = time.perf_counter()
    try:
        work(item)
    except MemoryError as error:
        item.failure = error if isinstance(error, RealesrError) else _out_of_memory(item.job)
    except Exception as error:
        item.failure = error
    if item.failure is not None:
        item.image = None
    item.seconds += time.perf_counter() - start


def _out_of_memory(job: Job) -> OutOfMemoryError:
    need = job.output_bytes / 2**30
    return OutOfMemoryError(
        f"{job.source.name}: not enough memory; the result alone takes {need:.1f} GiB, so a "
        "smaller factor (-s) or fewer programs at once help"
    )


def _fatal(failure: BaseException | None) -> bool:
    """Whether the images after this one are bound to fail as well: the disk is full."""
    while failure is not None:
        if isinstance(failure, OSError) and failure.errno in _DISK_FULL:
            return True
        failure = failure.__cause__
    return False
