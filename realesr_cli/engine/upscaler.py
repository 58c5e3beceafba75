"""`Upscaler`: a network on a device, built once, that turns images into larger ones."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from realesr_cli.engine import policy as policies
from realesr_cli.engine.backends import find_backend
from realesr_cli.engine.estimate import Estimate, ImageShape, Pace, estimate, working_bytes
from realesr_cli.engine.forward import (
    Forward,
    add_tta,
    blend,
    measure_context,
    require_same_scale,
)
from realesr_cli.engine.guard import Guard, build_forwards, get_architecture, is_out_of_memory
from realesr_cli.engine.policy import Policy
from realesr_cli.engine.settings import (
    DEFAULT_SHARE,
    EngineSettings,
    UpscaleSettings,
    output_size,
)
from realesr_cli.engine.sweep import Array, PostProcess, upscale_tiled
from realesr_cli.engine.tiling import Axis, Grid
from realesr_cli.errors import ConfigError, OutOfMemoryError, RealesrWarning
from realesr_cli.image.pixels import bleed
from realesr_cli.image.types import Image
from realesr_cli.nets.architecture import Architecture
from realesr_cli.progress import Progress, StopRequested, never, no_progress

if TYPE_CHECKING:
    from realesr_cli.weights.load import OpenedModel

BLEND = 8
"""Input pixels on each side of a boundary over which inexact tiles are blended."""

WHOLE_MARGIN = 32
"""An image of as many pixels as a tile with this much overlap is not cut: overlap costs time."""


@dataclass(frozen=True)
class _Placed:
    """A network on its device, and what it needs of a tile."""

    architecture: Architecture
    policy: Policy
    guard: Guard

    @property
    def overlap(self) -> int:
        assert self.policy.overlap is not None
        return self.policy.overlap

    @property
    def exact(self) -> bool:
        return self.overlap >= self.architecture.receptive_radius


class Upscaler:
    """A network ready to enlarge images. Safe to use from several threads at once.

    Holds the network, the policy and what was learned about the device, nothing of an image.
    """

    def __init__(
        self,
        net: nn.Module,
        engine: EngineSettings = EngineSettings(),
        *,
        partner: nn.Module | None = None,
    ) -> None:
        """Place `net`, as `load_model` returns it, and `partner`, a second one to blend in.

        `UpscaleSettings.blend` is the partner's share. Raises what `policy.choose` raises, and
        ConfigError for a network without `.architecture` and for a partner of another scale.
        """
        self.architecture = get_architecture(net)
        self.scale: int = self.architecture.scale
        if partner is not None:
            other = get_architecture(partner)
            names = (self.architecture.describe(), self.scale), (other.describe(), other.scale)
            require_same_scale(*names)
        networks = (net,) if partner is None else (net, partner)
        self._networks = [_place(network, engine) for network in networks]
        self.policy = _combine([network.policy for network in self._networks])
        if engine.threads is not None:
            # A setting of the whole process, so it is left alone unless requested.
            torch.set_num_threads(engine.threads)
        self._tile_is_auto = engine.tile == "auto"
        self._pace = Pace()

    def __call__(
        self,
        image: Image,
        settings: UpscaleSettings = UpscaleSettings(),
        *,
        progress: Progress | None = None,
        stop_requested: StopRequested | None = None,
    ) -> Image:
        """Enlarge an image: same channels, depth, profile and metadata.

        `progress` counts tiles. Raises CancelledError when `stop_requested()` turns true between
        tiles, OutOfMemoryError when the result or the smallest tile does not fit in memory.
        """
        shape = ImageShape.of(image)
        grid = self._make_grid((image.height, image.width), settings)
        cost = self._estimate(shape, grid, settings)
        if cost.output_bytes > policies.memory_available():
            # Systems that promise more memory than there is kill the process instead of raising.
            raise OutOfMemoryError(
                f"a result of {cost.out_width}x{cost.out_height} pixels takes "
                f"{cost.output_bytes / 2**30:.1f} GiB, more than is free",
                advice="result-too-large",
            )
        report, stop = progress or no_progress, stop_requested or never
        began = time.perf_counter()
        before = cost.tiles - grid.tiles
        pixels, alpha = image.pixels, image.alpha
        if alpha is not None and not shape.alpha:
            alpha = np.full((cost.out_height, cost.out_width), alpha.flat[0], alpha.dtype)
        elif alpha is not None:
            if settings.alpha != "keep":
                pixels = bleed(pixels, alpha)
            alpha = self._enlarge_alpha(
                alpha, settings, grid, lambda done, _: report(done, cost.tiles), stop
            )
        result = upscale_tiled(
            self._forward(settings),
            pixels,
            grid,
            _post_process(settings, image),
            progress=lambda done, _: report(before + done, cost.tiles),
            stop_requested=stop,
        )
        self._pace.learn(cost.network_pixels, time.perf_counter() - began)
        enlarged = image.with_pixels(result, alpha)
        return dataclasses.replace(enlarged, hidden_color=settings.alpha == "keep")

    def estimate(
        self, shape: ImageShape, settings: UpscaleSettings = UpscaleSettings()
    ) -> Estimate:
        """Estimate what an image of this shape will take."""
        grid = self._make_grid((shape.height, shape.width), settings)
        return self._estimate(shape, grid, settings)

    def _estimate(self, shape: ImageShape, grid: Grid, settings: UpscaleSettings) -> Estimate:
        passes = 2 if shape.alpha and settings.alpha != "resize" else 1
        working = self._working_bytes(grid, shape, settings)
        cost = estimate(shape, grid, passes, working)
        runs = passes * (8 if settings.tta else 1) * len(self._used(settings))
        pixels = grid.read_pixels * runs
        return dataclasses.replace(cost, network_pixels=pixels, seconds=self._pace.predict(pixels))

    def _working_bytes(self, grid: Grid, shape: ImageShape, settings: UpscaleSettings) -> int:
        result = 4 * 3 * self.scale**2
        needs = []
        for network in self._used(settings):
            policy = network.policy
            backend = find_backend(policy.backend)
            need = backend.memory_per_pixel(network.architecture, policy.precision)
            # On a GPU only the result of a tile comes to main memory.
            needs.append(need if policy.device == "cpu" else result)
        # Of two networks one runs while the other's result waits.
        per_pixel = max(needs) + result * (len(needs) - 1)
        rows = 0
        if settings.back_project:
            from realesr_cli.engine.row_correction import count_held_rows

            long = max(grid.rows, grid.columns, key=lambda axis: axis.out_size)
            ratio = long.out_size / long.size
            rows = min(long.out_size, count_held_rows(settings.back_project, ratio))
        return working_bytes(grid, shape.channels, per_pixel, rows)

    def _enlarge_alpha(
        self,
        alpha: Array,
        settings: UpscaleSettings,
        grid: Grid,
        progress: Progress,
        stop_requested: StopRequested,
    ) -> Array:
        by_model = settings.alpha != "resize"
        # Without back-projection: around a hard edge it rings, which shows as a ghost of a cut-out.
        return upscale_tiled(
            self._forward(settings) if by_model else None,
            alpha[..., None],
            grid,
            PostProcess(),
            progress=progress if by_model else no_progress,
            stop_requested=stop_requested,
        )[..., 0]

    def _share(self, settings: UpscaleSettings) -> float:
        """Return the second network's share in the result."""
        if len(self._networks) > 1:
            return DEFAULT_SHARE if settings.blend is None else settings.blend
        if settings.blend is not None:
            raise ConfigError(
                f"blend = {settings.blend:g} without a second model: pass blend_model, or the "
                "partner of an Upscaler"
            )
        return 0.0

    def _used(self, settings: UpscaleSettings) -> list[_Placed]:
        """Return the networks with a share in the result; the only one gives exactly its image."""
        share = self._share(settings)
        if share == 0:
            return self._networks[:1]
        return self._networks[1:] if share == 1 else self._networks

    def _forward(self, settings: UpscaleSettings) -> Forward:
        forwards: list[Forward] = [network.guard for network in self._used(settings)]
        if settings.tta:
            forwards = [add_tta(forward) for forward in forwards]
        if len(forwards) == 1:
            return forwards[0]
        return blend(forwards[0], forwards[1], self._share(settings))

    def _make_grid(self, size: tuple[int, int], settings: UpscaleSettings) -> Grid:
        """Decide how an image of this (height, width) is cut."""
        out = output_size(settings, size, self.scale)
        networks = self._used(settings)
        policy = _combine([network.policy for network in networks])
        own = max(network.overlap for network in networks)
        overlap = own
        if settings.color_fix:
            from realesr_cli.ops.color import LARGE_SCALE_RADIUS

            overlap += LARGE_SCALE_RADIUS + 1
        exact = all(network.exact for network in networks)
        tile = policy.tile
        if self._tile_is_auto and size[0] * size[1] <= (tile + 2 * WHOLE_MARGIN) ** 2:
            tile = 0
        axes = []
        for length, out_length in zip(size, out, strict=True):
            ramp = 0 if exact else min(BLEND, own // 4)
            # Input pixels to each side that antialiased cubic resizing reads.
            reach = math.ceil(2 * max(1.0, length / out_length)) + 1
            if out_length != length * self.scale:
                # What is resized has to be right itself, so it needs its own surroundings.
                needed = overlap + reach
            elif settings.strength < 1:
                needed = max(overlap, ramp + reach)
            else:
                needed = max(overlap, ramp)
            axes.append(
                Axis(
                    size=length,
                    out_size=out_length,
                    tile=tile,
                    overlap=needed,
                    blend=ramp,
                    multiple=math.lcm(*(network.architecture.multiple for network in networks)),
                    wrap=settings.pad == "wrap",
                )
            )
        return Grid(axes[0], axes[1], self.scale, policy.batch)


def build_upscaler(
    models: Sequence[OpenedModel], engine: EngineSettings = EngineSettings()
) -> Upscaler:
    """Build the `Upscaler` of one model, or of two to be blended.

    Raises what `Upscaler` raises; the ConfigError for different scales names both models.
    """
    if len(models) == 1:
        return Upscaler(models[0].net, engine)
    first, partner = models
    require_same_scale(
        (first.name, first.architecture.scale), (partner.name, partner.architecture.scale)
    )
    return Upscaler(first.net, engine, partner=partner.net)


def _place(network: nn.Module, engine: EngineSettings) -> _Placed:
    """Put a network on its device; on the CPU where a GPU has no room for it."""
    architecture, machine = get_architecture(network), policies.machine_info()
    policy = policies.choose(machine, engine, architecture)
    try:
        forwards = build_forwards(network, policy, machine)
        if policy.overlap is None:
            context = measure_context(forwards.fast, architecture.scale, architecture.multiple)
            policy = dataclasses.replace(policy, overlap=context + BLEND)
        assert policy.overlap is not None
        return _Placed(architecture, policy, Guard(forwards, context=policy.overlap))
    except Exception as error:
        if policy.device == "cpu" or not is_out_of_memory(error):
            raise
    text = f"{policy.device} has no memory left for the network; using the CPU"
    warnings.warn(text, RealesrWarning, stacklevel=3)
    precision = "auto" if engine.precision == "fp16" else engine.precision
    on_cpu = dataclasses.replace(engine, device="cpu", precision=precision, backend="auto")
    return _place(network, on_cpu)


def _combine(found: Sequence[Policy]) -> Policy:
    """Return the first network's policy, with tiles that suit all of them."""
    if len(found) == 1:
        return found[0]
    return dataclasses.replace(
        found[0],
        tile=min(policy.tile for policy in found),
        overlap=max(policy.overlap or 0 for policy in found),
        batch=min(policy.batch for policy in found),
        reasons=tuple(dict.fromkeys(text for policy in found for text in policy.reasons)),
    )


def _post_process(settings: UpscaleSettings, image: Image) -> PostProcess:
    curve = None
    if image.icc is not None:
        from realesr_cli.image.color import tone_curve

        curve = tone_curve(image.icc)
    return PostProcess(
        strength=settings.strength,
        color_fix=settings.color_fix,
        back_project=settings.back_project,
        kernel=settings.kernel,
        decode=curve.to_srgb if curve else None,
        encode=curve.from_srgb if curve else None,
    )
