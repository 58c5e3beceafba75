"""The time of a run is predicted from a part of one image: what is timed, and how it adds up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from realesr_cli.batch import timing
from realesr_cli.batch.jobs import Job
from realesr_cli.batch.sources import InputSource
from realesr_cli.batch.timing import Rates, measure_rates, predict_run
from realesr_cli.engine.estimate import Estimate
from realesr_cli.engine.settings import UpscaleSettings
from realesr_cli.image.formats import WriteSettings
from realesr_cli.image.types import Image, ImageInfo

SCALE, HEIGHT, WIDTH = 4, 300, 400
READ, NETWORK, WRITE, START = 1e-7, 2e-5, 3e-8, 3.0
"""Seconds per pixel, and those that only the first call takes."""


class Clock:
    """A clock that only the fake stages advance."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class FakeUpscaler:
    """Takes NETWORK seconds per pixel, and START more the first time."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.calls = clock, 0
        self.policy = SimpleNamespace(tile=512, threads=2, device="cpu")

    def estimate(self, shape: object, settings: UpscaleSettings) -> SimpleNamespace:
        assert hasattr(shape, "height")
        assert hasattr(shape, "width")
        return SimpleNamespace(network_pixels=shape.height * shape.width)

    def __call__(self, image: Image, settings: UpscaleSettings) -> Image:
        self.clock.now += NETWORK * image.height * image.width + (0 if self.calls else START)
        self.calls += 1
        return Image(np.zeros((image.height * SCALE, image.width * SCALE, 3), np.uint8))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()

    def read_image(source: object, *, max_pixels: int | None) -> Image:
        clock.now += READ * HEIGHT * WIDTH
        return Image(np.zeros((HEIGHT, WIDTH, 3), np.uint8))

    def encode_image(image: Image, format: str, settings: WriteSettings) -> bytes:
        clock.now += WRITE * image.height * image.width
        return b""

    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(timing, "read_image", read_image)
    monkeypatch.setattr(timing, "encode_image", encode_image)
    return clock


def test_rates_are_those_of_the_stages_without_what_happens_only_once(clock: Clock) -> None:
    job = Job(
        InputSource(Path("a.png")),
        write=WriteSettings(format="png"),
        info=ImageInfo(HEIGHT, WIDTH, 3, 8, False, "PNG"),
        out_height=HEIGHT * SCALE,
        out_width=WIDTH * SCALE,
    )
    rates = measure_rates(FakeUpscaler(clock), job, budget=1.0)
    assert (rates.read, rates.network) == (pytest.approx(READ), pytest.approx(NETWORK))
    assert (rates.write, rates.start) == (pytest.approx(WRITE), pytest.approx(START))
    assert clock.now < START + 2.0


def makespan(stages: list[tuple[float, float, float]]) -> float:
    """When the last image is written, each stage working on one image at a time."""
    read = network = write = 0.0
    for reading, computing, writing in stages:
        read += reading
        network = max(read, network) + computing
        write = max(network, write) + writing
    return write


@pytest.mark.parametrize("count", [1, 2, 7, 40])
@pytest.mark.parametrize(
    "rates", [Rates(1, 100, 2, 0), Rates(5, 20, 3, 0), Rates(1, 10, 4, 0), Rates(1, 90, 40, 0)]
)
@pytest.mark.parametrize("sizes", [(10, 10), (4, 30)])
def test_a_run_takes_what_its_pipeline_takes(
    count: int, rates: Rates, sizes: tuple[int, int]
) -> None:
    sides = [sizes[i % 2] for i in range(count)]
    costs = [Estimate(n, n, 2 * n, 2 * n, 1, 1, 0, 0, 0, 0, n * n) for n in sides]
    stages = [(rates.read * n * n, rates.network * n * n, rates.write * 4 * n * n) for n in sides]
    assert predict_run(rates, costs) == pytest.approx(makespan(stages), rel=0.15)


def test_no_images_take_no_time() -> None:
    assert predict_run(Rates(1, 1, 1, start=5), []) == 0


def test_the_first_image_takes_longer() -> None:
    costs = [Estimate(1, 1, 2, 2, 1, 1, 0, 0, 0, 0, 1)] * 3
    more = predict_run(Rates(0, 10, 1, 0, start=5), costs) - predict_run(Rates(0, 10, 1, 0), costs)
    assert more == 5
