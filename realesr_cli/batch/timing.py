"""How long a run will take, extrapolated from a part of one image."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from realesr_cli.batch.jobs import Job
from realesr_cli.batch.pipeline import count_waiting_bytes, is_banded
from realesr_cli.engine.estimate import Estimate, ImageShape
from realesr_cli.engine.settings import UpscaleSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.image.read import read_image
from realesr_cli.image.types import Image
from realesr_cli.image.write import encode_image

_SMALL_SIDE = 96
"""Side in pixels of the image that warms up and decides how large a one can be timed."""

_BUDGET_SECONDS = 2.0


@dataclass(frozen=True)
class Rates:
    """Seconds per pixel of the three stages of a run."""

    read: float
    """Per pixel of the input."""
    network: float
    """Per pixel that networks are run on, see `Estimate.network_pixels`."""
    write: float
    """Per pixel of the result."""
    parallel: float = 1.0
    """Share of reading and writing that delays the network while they go on beside it."""
    start: float = 0.0
    """Seconds that the network takes once, at its first image."""


def estimate_cost(upscaler: Upscaler, job: Job) -> Estimate:
    """Estimate the cost of one image; its time is unknown before the first has been made."""
    info = job.info
    assert info is not None
    shape = ImageShape(info.height, info.width, info.channels, info.has_alpha, info.bits)
    cost = upscaler.estimate(shape, job.upscale)
    if is_banded(job.write):
        held = min(cost.output_bytes, count_waiting_bytes(upscaler.memory))
        cost = replace(cost, peak_bytes=cost.peak_bytes - cost.output_bytes + held)
    return cost


def measure_rates(upscaler: Upscaler, job: Job, *, budget: float = _BUDGET_SECONDS) -> Rates:
    """Time the stages on the middle of an image, as much of it as takes about `budget` seconds.

    The network is timed with the job's own settings, and the result encoded in its format, as both
    depend on them. Raises what reading and upscaling raise.
    """
    assert job.info is not None
    assert job.write.format is not None
    start = time.perf_counter()
    image = read_image(job.source.content(), max_pixels=job.max_pixels)
    read = (time.perf_counter() - start) / (image.height * image.width)
    scale = math.sqrt(job.out_height * job.out_width / (image.height * image.width))
    settings = replace(job.upscale, scale=scale, width=None, height=None, fit=None, max_side=None)
    small = _crop(image, _SMALL_SIDE)
    first, _ = _time_network(upscaler, small, settings)
    network, result = _time_network(upscaler, small, settings)
    small_pixels = upscaler.estimate(ImageShape.of(small), settings).network_pixels
    once = max(0.0, (first - network) * small_pixels)
    pixels = max(_SMALL_SIDE**2, budget / max(network, 1e-12))
    side = min(int(math.sqrt(pixels)), upscaler.policy.tile or 2**31)
    if side > _SMALL_SIDE:
        network, result = _time_network(upscaler, _crop(image, side), settings)
    start = time.perf_counter()
    encode_image(result, job.write.format, job.write)
    write = (time.perf_counter() - start) / (result.height * result.width)
    on_cpu = upscaler.policy.device == "cpu"
    return Rates(read, network, write, 1 / upscaler.policy.threads if on_cpu else 0, once)


def _time_network(
    upscaler: Upscaler, image: Image, settings: UpscaleSettings
) -> tuple[float, Image]:
    """Return the seconds per network pixel, and the result."""
    cost = upscaler.estimate(ImageShape.of(image), settings)
    start = time.perf_counter()
    result = upscaler(image, settings)
    return (time.perf_counter() - start) / cost.network_pixels, result


def _crop(image: Image, side: int) -> Image:
    """Cut at most side x side pixels out of the middle."""
    top, left = max(0, image.height - side) // 2, max(0, image.width - side) // 2
    window = (slice(top, top + side), slice(left, left + side))
    alpha = None if image.alpha is None else image.alpha[window]
    return image.with_pixels(image.pixels[window], alpha)


def predict_image(rates: Rates, cost: Estimate) -> float:
    """Return the seconds that one image takes from its file to the file of its result."""
    read, network, write = _stages(rates, cost)
    return read + network + write


def predict_run(rates: Rates, costs: Sequence[Estimate]) -> float:
    """Return the seconds that images take in a run: each stage has one image at a time.

    What is read and written beside the network slows it by the share `parallel`.
    """
    stages = [_stages(rates, cost) for cost in costs]
    idle = (0.0, 0.0, 0.0)
    read = write = 0.0
    network = rates.start if stages else 0.0
    for before, now, after in zip([idle, *stages], stages, [*stages[1:], idle], strict=False):
        read += now[0]
        network = max(read, network) + now[1] + rates.parallel * (after[0] + before[2])
        write = max(network, write) + now[2]
    return write


def _stages(rates: Rates, cost: Estimate) -> tuple[float, float, float]:
    return (
        rates.read * cost.height * cost.width,
        rates.network * cost.network_pixels,
        rates.write * cost.out_height * cost.out_width,
    )
