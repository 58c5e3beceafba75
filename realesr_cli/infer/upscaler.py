"""`Upscaler`: a network on a device, built once, that turns pictures into larger ones."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from realesr_cli.image.alpha import bleed, constant_alpha
from realesr_cli.image.color import tone_curve
from realesr_cli.image.record import Image
from realesr_cli.infer import policy as policies
from realesr_cli.infer.backends import make_forwards, with_tta
from realesr_cli.infer.engine import Array, Grid, Hooks, Look, upscale_tiled
from realesr_cli.infer.guard import Forward, Guard
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


@dataclass(frozen=True)
class Plan:
    """What one picture will take; sizes in pixels, memory in bytes."""

    height: int
    width: int
    out_height: int
    out_width: int
    tiles: int
    passes: int
    """Times that all tiles are computed: one, and one more for an alpha channel."""
    tile: int
    overlap: int
    output_bytes: int
    peak_bytes: int
    """Estimate of the main memory needed beyond Python, torch and the network."""
    seconds: float | None
    """Estimate from the pictures done so far; None before the first."""


class Upscaler:
    """A network ready to enlarge pictures. Safe to use from several threads at once.

    Holds the network, the policy and what was learned about the device, nothing of a picture.
    """

    def __init__(self, net: nn.Module, engine: EngineSettings = EngineSettings()) -> None:
        """`net` as `load_model` gives it; raises DeviceError for a device that is not there."""
        self.architecture: Architecture = net.architecture  # type: ignore[assignment]
        self.scale: int = self.architecture.scale
        chosen = policies.choose(policies.facts(), engine, self.architecture)
        if engine.threads is not None:
            # A setting of the whole process, so it is left alone unless asked for.
            torch.set_num_threads(engine.threads)
        forwards = make_forwards(net, chosen)
        self._multiple = forwards.multiple
        self._tile_is_ours = engine.tile == "auto"
        if chosen.overlap is None:
            context = measured_context(forwards.fast, self.scale, forwards.multiple)
            chosen = dataclasses.replace(chosen, overlap=context + BLEND)
        self.policy: Policy = chosen
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
        plan = self.plan(image.height, image.width, settings, image=image)
        hooks = _hooks(plan, report, cancel)
        began = time.perf_counter()
        alpha = self._alpha(image, settings, hooks)
        pixels = image.pixels
        if image.alpha is not None and constant_alpha(image.alpha) is None:
            pixels = bleed(pixels, image.alpha)
        curve = tone_curve(image.icc)
        look = Look(
            strength=settings.strength,
            color_fix=settings.color_fix,
            decode=curve.to_srgb if curve else None,
            encode=curve.from_srgb if curve else None,
        )
        result = upscale_tiled(
            self._forward(settings), pixels, self._grid(image, settings), look, hooks
        )
        work = plan.height * plan.width * plan.passes * _turns(settings)
        self._pace.learn(work, time.perf_counter() - began)
        return image.with_pixels(result, alpha)

    def plan(
        self,
        height: int,
        width: int,
        settings: UpscaleSettings = UpscaleSettings(),
        *,
        image: Image | None = None,
        alpha: bool = False,
        channels: int = 3,
        bits: int = 8,
    ) -> Plan:
        """What a picture of this size will take; of `image`, where given, its own kind counts."""
        if image is not None:
            changing = image.alpha is not None and constant_alpha(image.alpha) is None
            alpha, channels, bits = changing, image.channels, image.bits
        grid = self._axes((height, width), settings)
        out_height, out_width = grid.rows.out_size, grid.columns.out_size
        passes = 2 if alpha and settings.alpha == "model" else 1
        output_bytes = out_height * out_width * (channels + alpha) * (bits // 8)
        return Plan(
            height=height,
            width=width,
            out_height=out_height,
            out_width=out_width,
            tiles=grid.tiles * passes,
            passes=passes,
            tile=grid.rows.core,
            overlap=grid.rows.overlap,
            output_bytes=output_bytes,
            peak_bytes=output_bytes + self._working_bytes(grid, channels),
            seconds=self._pace.expect(height * width * passes * _turns(settings)),
        )

    def _working_bytes(self, grid: Grid, channels: int) -> int:
        """The widest tile on the CPU, and the band of unfinished output."""
        core = grid.rows.core or max(grid.rows.size, grid.columns.size)
        window = 1
        for axis in (grid.rows, grid.columns):
            window *= min(axis.size, core + 2 * axis.overlap)
        per_pixel = policies.bytes_per_pixel(
            self.architecture, self.policy.precision, self.policy.backend
        )
        long = max(grid.rows, grid.columns, key=lambda axis: axis.out_size)
        short = min(grid.rows.out_size, grid.columns.out_size)
        line = min(long.out_size, core * long.out_size // long.size + 1)
        on_cpu = per_pixel if self.policy.device == "cpu" else 4 * 3 * self.scale**2
        return window * on_cpu + line * short * channels * 4

    def _alpha(self, image: Image, settings: UpscaleSettings, hooks: Hooks) -> Array | None:
        if image.alpha is None:
            return None
        grid = self._grid(image, settings)
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

    def _grid(self, image: Image, settings: UpscaleSettings) -> Grid:
        return self._axes((image.height, image.width), settings)

    def _axes(self, size: tuple[int, int], settings: UpscaleSettings) -> Grid:
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


def _turns(settings: UpscaleSettings) -> int:
    return 8 if settings.tta else 1


def _hooks(plan: Plan, report: Report | None, cancel: Cancel | None) -> Hooks:
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        if report is not None:
            report(done, plan.tiles)

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
