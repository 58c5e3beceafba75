"""Results that are written while they are computed: order, failures, stopping, memory."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realesr_cli.batch import pipeline
from realesr_cli.batch.jobs import Job
from realesr_cli.batch.pipeline import run_images
from realesr_cli.batch.run import run_jobs
from realesr_cli.batch.sources import InputSource
from realesr_cli.engine.settings import UpscaleSettings
from realesr_cli.errors import CancelledError, ImageWriteError, OutOfMemoryError, RealesrError
from realesr_cli.image.formats import WriteSettings
from realesr_cli.image.probe import ImageInfo
from realesr_cli.image.read import read_image
from realesr_cli.image.types import Band, Image, ImageStream
from realesr_cli.image.write import write_image

BANDS, ROWS, WIDTH = 8, 64, 256
BAND_BYTES = ROWS * WIDTH * 3


@dataclass
class Network:
    """Gives an image in bands, each of its own gray, and may fail or be stopped at one of them."""

    memory: int = 2**34
    fail_at: int = BANDS
    error: Exception = field(default_factory=lambda: RuntimeError("kernel"))
    made: list[int] = field(default_factory=list)
    noise: bool = False

    def require_memory(self, need: int, size: tuple[int, int]) -> None:
        if need > self.memory:
            raise OutOfMemoryError("too large")

    def __call__(self, image: Image, settings: Any = None, **callbacks: Any) -> Image:
        raise AssertionError("the result is to be streamed")

    def stream(
        self,
        image: Image | ImageStream,
        settings: UpscaleSettings | None = None,
        *,
        progress: Any = None,
        stop_requested: Any = None,
    ) -> ImageStream:
        def bands() -> Iterator[Band]:
            for number in range(BANDS):
                if stop_requested():
                    raise CancelledError("cancelled")
                if number == self.fail_at:
                    raise self.error
                self.made.append(number)
                band = np.full((ROWS, WIDTH, 3), number * 30, np.uint8)
                if self.noise:
                    band += np.random.default_rng(number).integers(0, 256, band.shape, np.uint8)
                yield band, None

        return ImageStream(BANDS * ROWS, WIDTH, 3, np.dtype(np.uint8), False, bands, image.about)


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    info = ImageInfo(128, 64, 3, 8, False, "PNG")
    write_image(Image(np.zeros((128, 64, 3), np.uint8)), tmp_path / "in.png")
    return [
        Job(
            InputSource(tmp_path / "in.png"),
            tmp_path / f"{name}.png",
            write=WriteSettings(format="png"),
            info=info,
            out_height=BANDS * ROWS,
            out_width=WIDTH,
        )
        for name in "ab"
    ]


def left(jobs: list[Job]) -> list[str]:
    """Files in the folder besides the input."""
    assert jobs[0].target is not None
    return sorted(p.name for p in jobs[0].target.parent.iterdir() if p.name != "in.png")


def test_bands_become_the_file(jobs: list[Job]):
    records = run_jobs(jobs, Network())
    assert [record.status for record in records] == ["done", "done"]
    assert left(jobs) == ["a.png", "b.png"]
    for job in jobs:
        pixels = read_image(job.target).pixels
        assert pixels[:, 0, 0].tolist() == [n * 30 for n in range(BANDS) for _ in range(ROWS)]


def test_writing_begins_before_the_last_band_is_made(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
):
    network, seen = Network(), []
    network.memory = 8 * BAND_BYTES  # one band waits at a time

    def write(image: ImageStream, path: Path, settings: WriteSettings) -> None:
        for _ in image.bands():
            seen.append(len(network.made))

    monkeypatch.setattr(pipeline, "write_image", write)
    run_images(jobs[:1], network, pipeline.Observer())
    # One is being made and one waits while one is written.
    assert all(made <= number + 3 for number, made in enumerate(seen)), seen


@pytest.mark.parametrize("at", [0, 3])
def test_a_failing_network_leaves_no_file(jobs: list[Job], at: int):
    records = run_jobs(jobs, Network(fail_at=at))
    assert [record.status for record in records] == ["failed", "failed"]
    assert "kernel" in (records[0].error or "")
    assert left(jobs) == []


def test_memory_running_out_on_the_way_is_said(jobs: list[Job]):
    records = run_jobs(jobs, Network(fail_at=2, error=MemoryError()))
    assert isinstance(records[0].failure, OutOfMemoryError)
    assert left(jobs) == []


def test_a_full_disk_stops_the_network(jobs: list[Job], monkeypatch: pytest.MonkeyPatch):
    network = Network(memory=8 * BAND_BYTES)

    def write(image: ImageStream, path: Path, settings: WriteSettings) -> None:
        next(image.bands())
        raise ImageWriteError("full") from OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(pipeline, "write_image", write)
    records = run_jobs(jobs, network)
    assert [record.status for record in records] == ["failed", "stopped"]
    assert isinstance(records[0].failure, ImageWriteError)
    assert len(network.made) < BANDS


def test_a_run_that_is_stopped_leaves_no_part(jobs: list[Job]):
    network = Network()
    stop = threading.Event()

    def stop_requested() -> bool:
        if len(network.made) >= 3:
            stop.set()
        return stop.is_set()

    records = run_jobs(jobs, network, stop_requested=stop_requested)
    assert [record.status for record in records] == ["stopped", "stopped"]
    assert left(jobs) == []


@pytest.mark.parametrize("write", [WriteSettings("webp"), WriteSettings("png", max_bytes=10**6)])
def test_what_is_not_written_in_bands_is_collected(jobs: list[Job], write: WriteSettings):
    job = replace(jobs[0], write=write)
    (record,) = run_jobs([job], Network())
    assert record.status == "done"
    assert read_image(job.target).height == BANDS * ROWS
    (record,) = run_jobs([job], Network(memory=1000))
    assert isinstance(record.failure, RealesrError)
    assert not pipeline.is_banded(write)


def test_without_a_target_the_bytes_are_given(jobs: list[Job]):
    given: list[bytes] = []

    class Watch(pipeline.Observer):
        def finished(self, record: Any) -> None:
            given.append(record.data)

    run_images([replace(jobs[0], target=None)], Network(), Watch())
    assert read_image(given[0]).height == BANDS * ROWS


def test_large_inputs_come_as_rows(jobs: list[Job]):
    network, kinds = Network(), []
    stream = network.stream

    def watch(image: Any, *args: Any, **options: Any) -> ImageStream:
        kinds.append(type(image))
        return stream(image, *args, **options)

    network.stream = watch  # type: ignore[method-assign]
    run_jobs(jobs[:1], network)
    network.memory = 16 * 128 * 64
    run_jobs(jobs[:1], network)
    assert kinds == [Image, ImageStream]


def test_a_disk_that_is_full_for_real(jobs: list[Job]):
    resource = pytest.importorskip("resource")
    network = Network(noise=True)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
        (record, *_) = run_jobs(jobs, network)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert record.status == "failed"
    assert isinstance(record.failure, ImageWriteError)
    assert left(jobs) == []
