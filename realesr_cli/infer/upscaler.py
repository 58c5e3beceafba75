"""`Upscaler`: a network on a device, built once, that turns pictures into larger ones."""

from __future__ import annotations

import dataclasses
import threading
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from realesr_cli.errors import RealesrWarning
from realesr_cli.image.alpha import bleed, constant_alpha
from realesr_cli.image.color import tone_curve
from realesr_cli.image.record import Image
from realesr_cli.infer import policy as policies
from realesr_cli.infer.backends import make_forwards, with_tta
from realesr_cli.infer.engine import Array, Grid, Hooks, Look, upscale_tiled
from realesr_cli.infer.estimate import Estimate, Shape, estimate, working_bytes
from realesr_cli.infer.guard import Forward, Forwards, Guard, is_out_of_memory
from realesr_cli.infer.looks import COLOR_RADIUS, support
from realesr_cli.infer.overlap import BLEND, measured_context
from realesr_cli.infer.policy import Policy
from realesr_cli.infer.settings import EngineSettings, UpscaleSettings, output_size
from realesr_cli.infer.tiling import Axis
from realesr_cli.nets.arch import Architecture

Report = Callable[[int, int], None]
"""report(done, total), in tiles."""

Cancel = Callable[[], bool]

WHOLE_MARGIN = 32
"""A picture of as many pixels as a tile with this much overlap is not cut: overlap costs time."""


class Upscaler:
    """A network ready to enlarge pictures. Safe to use from several threads at once.

    Holds the network, the policy and what was learned about the device, nothing of a picture.
    """

    def __init__(self, net: nn.Module, engine: EngineSettings = EngineSettings()) -> None:
        """`net` as `load_model` gives it; raises DeviceError for a device that is not there."""
        self.architecture: Architecture = net.architecture  # type: ignore[assignment]
        self.scale: int = self.architecture.scale
        if engine.threads is not None:
            # A setting of the whole process, so it is left alone unless asked for.
            torch.set_num_threads(engine.threads)
        self.policy, forwards = _prepared(net, engine, self.architecture)
        self._multiple = forwards.multiple
        self._tile_is_ours = engine.tile == "auto"
        self._guard = Guard(forwards, context=self._overlap)
        self._pace = _Pace()

    @property
    def _overlap(self) -> int:
        assert self.policy.overlap is not None
        return self.policy.overlap

    def __call__(
        self,
        image: Image,
        settings: UpscaleSettings = UpscaleSettings(),
        *,
        report: Report | None = None,
        cancel: Cancel | None = None,
    ) -> Image:
        """The enlarged picture: same channels, depth, profile and metadata.

        Raises Cancelled when `cancel()` turns true between tiles, OutOfMemory when nothing helps.
        """
        shape = Shape.of(image)
        planned = self.estimate(shape, settings)
        grid = self._grid((image.height, image.width), settings)
        hooks = _hooks(planned, report, cancel)
        began = time.perf_counter()
        alpha = self._alpha(image, settings, grid, hooks)
        pixels = image.pixels
        if image.alpha is not None and shape.alpha:
            pixels = bleed(pixels, image.alpha)
        curve = tone_curve(image.icc)
        look = Look(
            strength=settings.strength,
            color_fix=settings.color_fix,
            decode=curve.to_srgb if curve else None,
            encode=curve.from_srgb if curve else None,
        )
        result = upscale_tiled(self._forward(settings), pixels, grid, look, hooks)
        work = planned.height * planned.width * planned.passes * _turns(settings)
        self._pace.learn(work, time.perf_counter() - began)
        return image.with_pixels(result, alpha)

    def estimate(self, shape: Shape, settings: UpscaleSettings = UpscaleSettings()) -> Estimate:
        """What a picture of this shape will take."""
        grid = self._grid((shape.height, shape.width), settings)
        found = estimate(shape, grid, settings.alpha, self._working_bytes(grid, shape))
        pixels = shape.height * shape.width * found.passes * _turns(settings)
        return dataclasses.replace(found, seconds=self._pace.expect(pixels))

    def _working_bytes(self, grid: Grid, shape: Shape) -> int:
        on_cpu = self.policy.device == "cpu"
        per_pixel = (
            policies.bytes_per_pixel(self.architecture, self.policy.precision, self.policy.backend)
            if on_cpu
            else 4 * 3 * self.scale**2
        )
        return working_bytes(grid, shape.channels, per_pixel)

    def _alpha(
        self, image: Image, settings: UpscaleSettings, grid: Grid, hooks: Hooks
    ) -> Array | None:
        if image.alpha is None:
            return None
        value = constant_alpha(image.alpha)
        if value is not None:
            size = (grid.rows.out_size, grid.columns.out_size)
            return np.full(size, value, dtype=image.alpha.dtype)
        by_model = settings.alpha == "model"
        forward = self._forward(settings) if by_model else None
        quiet = hooks if by_model else Hooks(cancel=hooks.cancel)
        return upscale_tiled(forward, image.alpha[..., None], grid, Look(), quiet)[..., 0]

    def _forward(self, settings: UpscaleSettings) -> Forward:
        return with_tta(self._guard) if settings.tta else self._guard

    def _grid(self, size: tuple[int, int], settings: UpscaleSettings) -> Grid:
        """How a picture of this (height, width) is cut."""
        out = output_size(settings, size, self.scale)
        overlap = self._overlap + (COLOR_RADIUS + 1 if settings.color_fix else 0)
        exact = self._overlap >= self.architecture.receptive_radius
        core = self.policy.tile
        if self._tile_is_ours and size[0] * size[1] <= (core + 2 * WHOLE_MARGIN) ** 2:
            core = 0
        axes = []
        for length, out_length in zip(size, out, strict=True):
            blend = 0 if exact else min(BLEND, self._overlap // 4)
            resampled = out_length != length * self.scale or settings.strength < 1
            needed = blend + support(length, out_length) if resampled else blend
            axes.append(
                Axis(
                    size=length,
                    out_size=out_length,
                    core=core,
                    overlap=max(overlap, needed),
                    blend=blend,
                    multiple=self._multiple,
                )
            )
        return Grid(axes[0], axes[1], self.scale, self.policy.batch)


def _prepared(
    net: nn.Module, engine: EngineSettings, architecture: Architecture
) -> tuple[Policy, Forwards]:
    """What will be done and how, the network in place; on the CPU where a GPU has no room."""
    chosen = policies.choose(policies.facts(), engine, architecture)
    try:
        forwards = make_forwards(net, chosen)
        if chosen.overlap is None:
            context = measured_context(forwards.fast, architecture.scale, forwards.multiple)
            chosen = dataclasses.replace(chosen, overlap=context + BLEND)
        return chosen, forwards
    except Exception as error:
        if chosen.device == "cpu" or not is_out_of_memory(error):
            raise
    text = f"{chosen.device} has no memory left for the network; using the CPU"
    warnings.warn(text, RealesrWarning, stacklevel=3)
    precision = "auto" if engine.precision == "fp16" else engine.precision
    on_cpu = dataclasses.replace(engine, device="cpu", precision=precision)
    return _prepared(net, on_cpu, architecture)


def _turns(settings: UpscaleSettings) -> int:
    return 8 if settings.tta else 1


def _hooks(planned: Estimate, report: Report | None, cancel: Cancel | None) -> Hooks:
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        if report is not None:
            report(done, planned.tiles)

    return Hooks(report=one_more, cancel=cancel or (lambda: False))


class _Pace:
    """Seconds per input pixel, learned from finished pictures; a lock keeps threads apart."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pixels, self._seconds = 0, 0.0

    def learn(self, pixels: int, seconds: float) -> None:
        with self._lock:
            self._pixels += pixels
            self._seconds += seconds

    def expect(self, pixels: int) -> float | None:
        with self._lock:
            return self._seconds / self._pixels * pixels if self._pixels else None
