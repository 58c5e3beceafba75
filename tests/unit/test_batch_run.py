"""The pipeline: order, failures, cancelling, memory, and that stages overlap."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from realesr_cli.batch import pipeline
from realesr_cli.batch.jobs import Job, Record, Tally, planned
from realesr_cli.batch.pipeline import Observer, run_images
from realesr_cli.batch.run import run_jobs
from realesr_cli.batch.sources import InputSource
from realesr_cli.engine.settings import UpscaleSettings
from realesr_cli.errors import (
    CancelledError,
    ImageWriteError,
    OutOfMemoryError,
    UnreadableImageError,
)
from realesr_cli.image.formats import WriteSettings
from realesr_cli.image.probe import ImageInfo
from realesr_cli.image.types import Image

INFO = ImageInfo(height=2, width=3, channels=3, bits=8, has_alpha=False, format="PNG")


class Desk:
    """Reading, upscaling and writing without files: what happened, and faults to plant."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.read: list[str] = []
        self.upscaled: list[str] = []
        self.faults: dict[str, Exception] = {}
        self.on_write: Callable[[str], None] = lambda name: None
        self.on_upscale: Callable[[str], None] = lambda name: None
        self._of: dict[int, str] = {}

    def read_image(self, source: Path, *, max_pixels: int | None = None) -> Image:
        self._fail(f"read {source.stem}")
        self.read.append(source.stem)
        image = Image(np.zeros((2, 3, 3), np.uint8))
        self._of[id(image)] = source.stem
        return image

    def upscale(
        self,
        image: Image,
        settings: UpscaleSettings | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        stop_requested: Callable[[], bool] | None = None,
    ) -> Image:
        name = self._of[id(image)]
        self.on_upscale(name)
        assert progress is not None
        assert stop_requested is not None
        progress(1, 1)
        if stop_requested():
            raise CancelledError("cancelled")
        self._fail(f"upscale {name}")
        self.upscaled.append(name)
        result = image.with_pixels(np.zeros((8, 12, 3), np.uint8), None)
        self._of[id(result)] = name
        return result

    def write_image(self, image: Image, path: Path, settings: object) -> None:
        self.on_write(path.stem)
        self._fail(f"write {path.stem}")
        self.written.append(path.stem)

    def _fail(self, what: str) -> None:
        if what in self.faults:
            raise self.faults[what]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    found = Desk()
    monkeypatch.setattr(pipeline, "read_image", found.read_image)
    monkeypatch.setattr(pipeline, "write_image", found.write_image)
    return found


def _jobs(folder: Path, names: str, **others: object) -> list[Job]:
    return [
        Job(
            InputSource(Path(f"{n}.png")),
            folder / f"{n}.png",
            write=WriteSettings(format="png"),
            info=INFO,
            out_height=8,
            out_width=12,
            **others,  # type: ignore[arg-type]
        )
        for n in names
    ]


class Listener(Observer):
    """Remembers what it receives."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.tiles: list[tuple[int, int]] = []
        self.records: list[Record] = []

    def started(self, job: Job) -> None:
        self.names.append(job.source.stem)

    def __call__(self, done: int, total: int) -> None:
        self.tiles.append((done, total))

    def finished(self, record: Record) -> None:
        self.records.append(record)


def _statuses(records: list[Record]) -> str:
    return "".join(record.status[:2] + " " for record in records).strip()


def test_every_job_gets_a_record_in_order(desk: Desk, tmp_path: Path):
    listener = Listener()
    records = run_jobs(_jobs(tmp_path, "abcdef"), desk.upscale, listener)
    assert [r.job.source.stem for r in records] == list("abcdef")
    assert listener.records == records
    assert listener.tiles == [(1, 1)] * 6
    assert _statuses(records) == "do do do do do do"
    assert desk.written == listener.names == list("abcdef")


def test_an_image_that_fails_at_any_stage_harms_no_other(desk: Desk, tmp_path: Path):
    desk.faults = {
        "read a": UnreadableImageError("a is no image"),
        "upscale c": OutOfMemoryError("too large"),
        "write e": ImageWriteError("denied"),
    }
    records = run_jobs(_jobs(tmp_path, "abcdef"), desk.upscale)
    assert _statuses(records) == "fa do fa do fa do"
    assert [r.error for r in records if r.error] == ["a is no image", "too large", "denied"]
    assert desk.written == list("bdf")
    assert Tally(records).exit_code == 1
    counts = Tally(records).to_plain()
    assert (counts["done"], counts["failed"], counts["stopped"]) == (3, 3, 0)


def test_memory_that_runs_out_everywhere_has_its_own_exit_code(desk: Desk, tmp_path: Path):
    desk.faults = {"upscale a": MemoryError(), "upscale b": OutOfMemoryError("too large")}
    records = run_jobs(_jobs(tmp_path, "ab"), desk.upscale)
    assert Tally(records).exit_code == 4
    assert isinstance(records[0].failure, OutOfMemoryError)
    assert Tally([*records, Record(records[0].job, "done")]).exit_code == 4


def test_an_error_nobody_foresaw_keeps_its_traceback(desk: Desk, tmp_path: Path):
    desk.faults = {"upscale a": TypeError("bug")}
    first, second = run_jobs(_jobs(tmp_path, "ab"), desk.upscale)
    assert first.error == "unexpected TypeError: bug"
    assert "in upscale" in str(first.trace)
    assert (first.exit_code, second.status) == (1, "done")


@pytest.mark.parametrize("stage", ["read b", "upscale b", "write b"])
def test_fail_fast_stops_after_the_first_failure(desk: Desk, tmp_path: Path, stage: str):
    desk.faults = {stage: ImageWriteError("bad")}
    records = run_jobs(_jobs(tmp_path, "abcdefgh"), desk.upscale, fail_fast=True)
    assert _statuses(records).startswith("do fa")
    assert set(_statuses(records[2:]).split()) == {"st"}
    assert desk.written == ["a"]
    assert all("ended early" in str(r.error) for r in records[2:])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_the_run(desk: Desk, tmp_path: Path, number: int):
    error = ImageWriteError("a.png: cannot be written")
    error.__cause__ = OSError(number, "no space left on device")
    desk.faults = {"write a": error}
    records = run_jobs(_jobs(tmp_path, "abcde"), desk.upscale)
    assert records[0].status == "failed"
    assert {r.status for r in records[1:]} == {"stopped"}


def test_other_write_errors_do_not_end_the_run(desk: Desk, tmp_path: Path):
    error = ImageWriteError("a.png: cannot be written")
    error.__cause__ = OSError(errno.EACCES, "denied")
    desk.faults = {"write a": error}
    assert _statuses(run_jobs(_jobs(tmp_path, "ab"), desk.upscale)) == "fa do"


def test_cancelling_stops_the_current_image_and_starts_no_other(desk: Desk, tmp_path: Path):
    asked = threading.Event()
    desk.on_upscale = lambda name: asked.set() if name == "c" else None
    records = run_jobs(_jobs(tmp_path, "abcdef"), desk.upscale, stop_requested=asked.is_set)
    assert desk.upscaled == ["a", "b"]
    assert {r.status for r in records[2:]} == {"stopped"}
    done = [r.job.source.stem for r in records if r.status == "done"]
    assert done == desk.written
    assert Tally(records).exit_code == 0


def test_an_interrupt_in_the_calling_thread_leaves_no_thread_behind(desk: Desk, tmp_path: Path):
    def interrupt(name: str) -> None:
        if name == "b":
            raise KeyboardInterrupt

    desk.on_upscale = interrupt
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run_jobs(_jobs(tmp_path, "abcdef"), desk.upscale)
    assert threading.active_count() == before
    assert "c" not in desk.written


def test_a_listener_that_breaks_ends_the_run_with_its_error(desk: Desk, tmp_path: Path):
    class Broken(Observer):
        def finished(self, record: Record) -> None:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_jobs(_jobs(tmp_path, "abcdef"), desk.upscale, Broken())


def test_reading_and_writing_go_on_beside_upscaling(desk: Desk, tmp_path: Path):
    """While `b` is upscaled, `c` is read and `a` is written: each waits to see the others."""
    meanwhile = threading.Barrier(2, timeout=20)

    def at_write(name: str) -> None:
        if name == "a":
            meanwhile.wait()

    def at_upscale(name: str) -> None:
        if name == "b":
            meanwhile.wait()
            while "c" not in desk.read:
                threading.Event().wait(0.001)

    desk.on_write, desk.on_upscale = at_write, at_upscale
    records = run_jobs(_jobs(tmp_path, "abcd"), desk.upscale)
    assert _statuses(records) == "do do do do"


def test_finished_images_wait_in_bounded_memory(desk: Desk, tmp_path: Path):
    """With room for one result, the next image is not begun until the last is written."""
    alive: list[int] = []
    lock = threading.Lock()

    def count(change: int) -> None:
        with lock:
            alive.append((alive[-1] if alive else 0) + change)

    desk.on_upscale = lambda name: count(+1)
    desk.on_write = lambda name: count(-1)
    run_images(_jobs(tmp_path, "abcdefgh"), desk.upscale, Observer(), in_flight_bytes=1)
    assert max(alive) == 1


def test_finished_and_refused_jobs_need_no_network(desk: Desk, tmp_path: Path):
    jobs = _jobs(tmp_path, "a", finished=True) + _jobs(
        tmp_path, "b", error=UnreadableImageError("no")
    )
    records = run_jobs(jobs, None)
    assert _statuses(records) == "sk fa"
    assert desk.read == []
    assert [planned(job).status for job in jobs] == ["skipped", "failed"]
    assert planned(_jobs(tmp_path, "c")[0]).status == "planned"


def test_no_jobs_no_records():
    assert run_jobs([], None) == []
    assert Tally([]).exit_code == 0


def test_a_folder_that_cannot_be_made_fails_the_image(desk: Desk, tmp_path: Path):
    (tmp_path / "file").write_text("")
    (record,) = run_jobs(_jobs(tmp_path / "file" / "sub", "a"), desk.upscale)
    assert record.status == "failed"
    assert "cannot be created" in str(record.error)


def test_folders_of_results_are_made(desk: Desk, tmp_path: Path):
    run_jobs(_jobs(tmp_path / "x" / "y", "a"), desk.upscale)
    assert (tmp_path / "x" / "y").is_dir()


def test_a_job_without_a_file_passes_on_its_bytes(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline, "encode_image", lambda image, format, settings: format.encode())
    job = replace(_jobs(Path(), "a")[0], target=None, write=WriteSettings(format="webp"))
    listener = Listener()
    (record,) = run_jobs([job], desk.upscale, listener)
    assert (record.status, record.data) == ("done", None)
    assert listener.records[0].data == b"webp"
