"""Upscalers for workers in other processes: they repeat pixels, sleep, or end their process."""

from __future__ import annotations

import os
import time
from pathlib import Path

from upscale_cli import make_image

from realesr_cli.batch.jobs import BatchSettings, Job, make_plan
from realesr_cli.batch.output_paths import Destination
from realesr_cli.batch.pool import WorkerSpec
from realesr_cli.batch.sources import InputSource
from realesr_cli.batch.worker import TaskSettings
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.image.types import Image

POISON_WIDTH = 13


class Doubler:
    """Doubles an image, after some seconds."""

    def __init__(self, engine: EngineSettings, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self, image: Image, *_: object, **__: object) -> Image:
        time.sleep(self.seconds)
        return image.with_pixels(image.pixels.repeat(2, 0).repeat(2, 1), None)


class Mortal(Doubler):
    """Ends its process at an image of a certain width."""

    def __call__(self, image: Image, *_: object, **__: object) -> Image:
        if image.width == POISON_WIDTH:
            os._exit(9)
        return super().__call__(image)


class Unstartable:
    """Fails where a worker starts."""

    def __init__(self, engine: EngineSettings) -> None:
        raise ValueError("no room for the network")


def plan_doubling(folder: Path, count: int, *, poison: int | None = None) -> tuple[Job, ...]:
    """Make small images, and the jobs that double them; one may be the poison of `Mortal`."""
    sources = [
        InputSource(make_image(folder / f"in/{i}.png", POISON_WIDTH if i == poison else 12))
        for i in range(count)
    ]
    settings = BatchSettings(model="fake", scale=2)
    return make_plan(sources, Destination("folder", folder=folder / "out"), settings).jobs


def make_spec(make_upscaler: object) -> WorkerSpec:
    """Return the spec of a worker with such an upscaler, for jobs that are planned."""
    tasks = TaskSettings(Destination("beside"), BatchSettings(model="fake", scale=2))
    return WorkerSpec(make_upscaler, EngineSettings(threads=1), tasks)  # type: ignore[arg-type]
