"""The pipeline of a run: the next image is read and the last written while one is upscaled."""

from __future__ import annotations

import errno
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from realesr_cli.batch.handover import POLL_SECONDS, Bands, Gate
from realesr_cli.batch.jobs import Job, Record
from realesr_cli.engine.policy import Policy
from realesr_cli.engine.settings import UpscaleSettings
from realesr_cli.errors import CancelledError, ImageWriteError, OutOfMemoryError, RealesrError
from realesr_cli.image.formats import WriteSettings, find_format
from realesr_cli.image.read import read_image
from realesr_cli.image.types import Image, ImageStream
from realesr_cli.image.write import encode_image, write_image
from realesr_cli.progress import Progress, StopRequested, never
from realesr_cli.text import format_bytes

IN_FLIGHT_BYTES = 1 << 30
"""Finished images that wait to be written hold at most this much, one image excepted."""

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


class Upscale(Protocol):
    """What a run needs of an `Upscaler`."""

    def __call__(
        self,
        image: Image,
        settings: UpscaleSettings = ...,
        *,
        progress: Progress | None = None,
        stop_requested: StopRequested | None = None,
    ) -> Image: ...


@runtime_checkable
class StreamingUpscale(Upscale, Protocol):
    """An `Upscale` whose results can be written while they are computed, as `Upscaler` is."""

    memory: int
    """Bytes that images and tiles may take."""

    def require_memory(self, need: int, size: tuple[int, int]) -> None: ...

    def stream(
        self,
        image: Image | ImageStream,
        settings: UpscaleSettings = ...,
        *,
        progress: Progress | None = None,
        stop_requested: StopRequested | None = None,
    ) -> ImageStream: ...


class Observer:
    """Receives what happens in a run; the methods do nothing until a subclass overrides them.

    Each method is called by one thread at a time. An exception in one ends the run.
    """

    def ready(self, policy: Policy | None) -> None:
        """Note how the first of several workers works, before it begins."""

    def started(self, job: Job) -> None:
        """Note that an image is being upscaled from now on."""

    def __call__(self, done: int, total: int) -> None:
        """Note the progress of that image, in tiles."""

    def finished(self, record: Record) -> None:
        """Take the record of an image; records come in the order of the jobs."""


@dataclass
class _Item:
    """A job on its way through the stages."""

    job: Job
    image: Image | ImageStream | None = None
    bands: Bands | None = None
    """The rows of a result that is written while it is computed."""
    failure: Exception | None = None
    seconds: float = 0.0
    cost: int = 0
    """Bytes of the result that the gate counts."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Pipeline:
    """The stages of one run and the queues between them."""

    observer: Observer
    stop_requested: StopRequested
    fail_fast: bool
    gate: Gate
    memory: int | None = None
    """Bytes that images may take, where results are written while they are computed."""
    stop: threading.Event = field(default_factory=threading.Event)
    loaded: queue.Queue[_Item | None] = field(default_factory=lambda: queue.Queue(maxsize=1))
    ready: queue.Queue[_Item | None] = field(default_factory=lambda: queue.Queue(maxsize=1))
    crashes: list[BaseException] = field(default_factory=list)
    """What the observer raised in one of our threads, for the caller's thread to raise."""

    def thread(self, work: Callable[[], None]) -> threading.Thread:
        """Make a thread whose crash ends the run instead of leaving the other stages waiting."""

        def body() -> None:
            try:
                work()
            except BaseException as error:
                self.crashes.append(error)
                self.stop.set()

        return threading.Thread(target=body, daemon=True)

    def stopped(self) -> bool:
        """Return whether the run is to end early; asks the caller too."""
        if not self.stop.is_set() and self.stop_requested():
            self.stop.set()
        return self.stop.is_set()


def count_waiting_bytes(memory: int, most: int = IN_FLIGHT_BYTES) -> int:
    """Return how many bytes of finished rows may wait where images may take `memory`."""
    return min(most, memory // 8)


def run_images(
    jobs: Sequence[Job],
    upscale: Upscale | None,
    observer: Observer,
    *,
    stop_requested: StopRequested = never,
    fail_fast: bool = False,
    in_flight_bytes: int = IN_FLIGHT_BYTES,
) -> list[Record]:
    """Run jobs of images in order; see `run_jobs`, which calls this."""
    memory = None
    if isinstance(upscale, StreamingUpscale):
        memory = upscale.memory
        in_flight_bytes = count_waiting_bytes(memory, in_flight_bytes)
    line = _Pipeline(observer, stop_requested, fail_fast, Gate(in_flight_bytes), memory)
    records: list[Record] = []
    reader = line.thread(lambda: _read_all(line, jobs))
    writer = line.thread(lambda: _write_all(line, records))
    reader.start()
    writer.start()
    try:
        _upscale_all(line, upscale)
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
        record = Record(job, "stopped")
        records.append(record)
        observer.finished(record)
    return records


def _put(place: queue.Queue[_Item | None], item: _Item | None, stopped: Callable[[], bool]) -> bool:
    while True:
        try:
            place.put(item, timeout=POLL_SECONDS)
            return True
        except queue.Full:
            if stopped():
                return False


def _read_all(line: _Pipeline, jobs: Sequence[Job]) -> None:
    for job in jobs:
        if line.stop.is_set():
            return
        item = _Item(job, failure=job.error)
        if job.pending:
            _time(item, lambda item: _read(item, line.memory))
        if not _put(line.loaded, item, line.stop.is_set):
            return
    _put(line.loaded, None, line.stop.is_set)


def _read(item: _Item, memory: int | None) -> None:
    job = item.job
    content = job.source.content()
    if isinstance(content, Path) and memory is not None and job.input_bytes > memory // 16:
        from realesr_cli.image.rows import open_rows

        item.image = open_rows(content, max_pixels=job.max_pixels)
    if item.image is None:
        item.image = read_image(content, max_pixels=job.max_pixels)
    item.notes = item.image.about.notes if isinstance(item.image, ImageStream) else item.image.notes


def _upscale_all(line: _Pipeline, upscale: Upscale | None) -> None:
    while not line.stopped():
        try:
            item = line.loaded.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        if item is None:
            return
        if item.image is not None:
            assert upscale is not None
            line.observer.started(item.job)
            _time(item, lambda item: _upscale(item, line, upscale))
        if isinstance(item.failure, CancelledError) or not _put(line.ready, item, line.stopped):
            line.stop.set()
            return
        if item.bands is not None:
            item.bands.send()


def _upscale(item: _Item, line: _Pipeline, upscale: Upscale) -> None:
    job, image, item.image = item.job, item.image, None
    assert image is not None
    if not isinstance(upscale, StreamingUpscale):
        assert not isinstance(image, ImageStream)
        item.cost = job.output_bytes
        line.gate.enter(item.cost, line.stopped)
        item.image = upscale(
            image, job.upscale, progress=line.observer, stop_requested=line.stopped
        )
        return
    result = upscale.stream(image, job.upscale, progress=line.observer, stop_requested=line.stopped)
    if is_banded(job.write):
        item.bands = Bands(result.bands(), line.gate, line.stopped)
        item.image = replace(result, bands=item.bands.receive)
        return
    upscale.require_memory(result.nbytes, (result.height, result.width))
    item.cost = job.output_bytes
    line.gate.enter(item.cost, line.stopped)
    item.image = result.collect()


def is_banded(write: WriteSettings) -> bool:
    """Return whether a result is written while it is computed, so that it is never held whole."""
    return write.format is not None and find_format(write.format).banded and not write.max_bytes


def _write_all(line: _Pipeline, records: list[Record]) -> None:
    while True:
        item = line.ready.get()
        if item is None:
            return
        if line.stop.is_set():
            if item.bands is not None:
                item.bands.discard()
            continue  # Only taken from the queue, so that nobody waits for room in it.
        record = _finish(item)
        if isinstance(item.failure, CancelledError):
            line.stop.set()
            continue
        line.gate.leave(item.cost)
        line.observer.finished(record)
        records.append(replace(record, data=None))  # Encoded images do not pile up.
        if record.status == "failed" and (line.fail_fast or is_fatal(item.failure)):
            line.stop.set()


def _finish(item: _Item) -> Record:
    if item.job.finished:
        return Record(item.job, "skipped")
    data: list[bytes] = []
    if item.failure is None:
        _time(item, lambda item: _write(item, data))
    if item.failure is not None:
        if item.bands is not None:
            item.bands.discard()
        return Record(item.job, "failed", item.seconds, item.failure, notes=item.notes)
    return Record(item.job, "done", item.seconds, data=data[0] if data else None, notes=item.notes)


def _write(item: _Item, data: list[bytes]) -> None:
    job, image = item.job, item.image
    item.image = None
    assert image is not None
    made_by = None if job.made_by is None else job.made_by.to_text()
    if isinstance(image, ImageStream):
        image = replace(image, about=replace(image.about, made_by=made_by))
    else:
        image = replace(image, made_by=made_by)
    if job.target is None:
        assert job.write.format is not None
        data.append(encode_image(image, job.write.format, job.write))
        return
    make_folder(job.target.parent)
    write_image(image, job.target, job.write)


def make_folder(folder: Path) -> None:
    """Create the folder of a result. Raises ImageWriteError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"{folder}: cannot be created: {error.strerror or error}"
        raise ImageWriteError(text, advice="choose-output") from error


def _time(item: _Item, work: Callable[[_Item], None]) -> None:
    """Run one stage of an item; what it raises is kept, so that one image harms no other."""
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
    need = format_bytes(job.output_bytes)
    text = f"{job.source.name}: not enough memory; the result alone takes {need}"
    return OutOfMemoryError(text, advice="result-too-large")


def is_fatal(failure: BaseException | None) -> bool:
    """Return whether the images after this one are bound to fail as well: the disk is full."""
    while failure is not None:
        if isinstance(failure, OSError) and failure.errno in _DISK_FULL:
            return True
        failure = failure.__cause__
    return False
