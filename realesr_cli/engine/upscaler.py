"""`Upscaler`: a network on a device, built once, that turns images into larger ones."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from realesr_cli.engine import policy as policies
from realesr_cli.engine.backends.base import make_forwards, with_tta
from realesr_cli.engine.blending import DEFAULT_SHARE, blend_forwards, require_same_scale
from realesr_cli.engine.estimate import Estimate, ImageShape, estimate, working_bytes
from realesr_cli.engine.guard import Forward, Forwards, Guard, is_out_of_memory
from realesr_cli.engine.overlap import BLEND, measure_context
from realesr_cli.engine.policy import Policy
from realesr_cli.engine.postprocess import COLOR_RADIUS, support
from realesr_cli.engine.row_correction import rows_held
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings, output_size
from realesr_cli.engine.tiled import Array, Grid, PostProcess, TileCallbacks, upscale_tiled
from realesr_cli.engine.tiling import Axis
from realesr_cli.errors import ConfigError, RealesrWarning
from realesr_cli.image.alpha import bleed, constant_alpha
from realesr_cli.image.color import tone_curve
from realesr_cli.image.types import Image
from realesr_cli.nets.architecture import Architecture

Report = Callable[[int, int], None]
"""report(done, total), in tiles."""

Cancel = Callable[[], bool]

WHOLE_MARGIN = 32
"""An image of as many pixels as a tile with this much overlap is not cut: overlap costs time."""


@dataclass(frozen=True)
class _Placed:
    """A network in place on its device, and what it needs of a window of pixels."""

    architecture: Architecture
    policy: Policy
    guard: Guard
    multiple: int

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
        """`net` as `load_model` gives it, `partner` a second one whose images are blended in.

        `UpscaleSettings.blend` says how much of them. Raises DeviceError for a device that is not
        there, ConfigError for a partner of another scale.
        """
        self.architecture: Architecture = net.architecture  # type: ignore[assignment]
        self.scale: int = self.architecture.scale
        if partner is not None:
            other: Architecture = partner.architecture  # type: ignore[assignment]
            names = (self.architecture.describe(), self.scale), (other.describe(), other.scale)
            require_same_scale(*names)
        if engine.threads is not None:
            # A setting of the whole process, so it is left alone unless asked for.
            torch.set_num_threads(engine.threads)
        self._networks: list[_Placed] = []
        for network in (net, partner):
            if network is not None:
                architecture: Architecture = network.architecture  # type: ignore[assignment]
                policy, forwards = _prepared(network, engine, architecture)
                assert policy.overlap is not None
                guard = Guard(forwards, context=policy.overlap)
                self._networks.append(_Placed(architecture, policy, guard, forwards.multiple))
        self.policy = _common([network.policy for network in self._networks])
        self._tile_is_ours = engine.tile == "auto"
        self._pace = _Pace()

    def __call__(
        self,
        image: Image,
        settings: UpscaleSettings = UpscaleSettings(),
        *,
        report: Report | None = None,
        cancel: Cancel | None = None,
    ) -> Image:
        """The enlarged image: same channels, depth, profile and metadata.

        Raises Cancelled when `cancel()` turns true between tiles, OutOfMemory when nothing helps.
        """
        shape = ImageShape.of(image)
        planned = self.estimate(shape, settings)
        grid = self._grid((image.height, image.width), settings)
        hooks = _hooks(planned, report, cancel)
        began = time.perf_counter()
        alpha = self._alpha(image, settings, grid, hooks)
        pixels = image.pixels
        if image.alpha is not None and shape.alpha:
            pixels = bleed(pixels, image.alpha)
        curve = tone_curve(image.icc)
        look = PostProcess(
            strength=settings.strength,
            color_fix=settings.color_fix,
            back_project=settings.back_project,
            kernel=settings.kernel,
            decode=curve.to_srgb if curve else None,
            encode=curve.from_srgb if curve else None,
        )
        result = upscale_tiled(self._forward(settings), pixels, grid, look, hooks)
        work = planned.height * planned.width * planned.passes * self._turns(settings)
        self._pace.learn(work, time.perf_counter() - began)
        return image.with_pixels(result, alpha)

    def estimate(
        self, shape: ImageShape, settings: UpscaleSettings = UpscaleSettings()
    ) -> Estimate:
        """What an image of this shape will take."""
        grid = self._grid((shape.height, shape.width), settings)
        working = self._working_bytes(grid, shape, settings)
        found = estimate(shape, grid, settings.alpha, working)
        pixels = shape.height * shape.width * found.passes * self._turns(settings)
        return dataclasses.replace(found, seconds=self._pace.expect(pixels))

    def _working_bytes(self, grid: Grid, shape: ImageShape, settings: UpscaleSettings) -> int:
        result = 4 * 3 * self.scale**2
        needs = []
        for network in self._used(settings):
            policy, architecture = network.policy, network.architecture
            found = policies.bytes_per_pixel(architecture, policy.precision, policy.backend)
            needs.append(found if policy.device == "cpu" else result)
        # Of two networks one runs while the other's result waits.
        per_pixel = max(needs) + result * (len(needs) - 1)
        rows = 0
        if settings.back_project:
            long = max(grid.rows, grid.columns, key=lambda axis: axis.out_size)
            ratio = long.out_size / long.size
            rows = min(long.out_size, rows_held(settings.back_project, ratio))
        return working_bytes(grid, shape.channels, per_pixel, rows)

    def _alpha(
        self, image: Image, settings: UpscaleSettings, grid: Grid, hooks: TileCallbacks
    ) -> Array | None:
        if image.alpha is None:
            return None
        value = constant_alpha(image.alpha)
        if value is not None:
            size = (grid.rows.out_size, grid.columns.out_size)
            return np.full(size, value, dtype=image.alpha.dtype)
        by_model = settings.alpha == "model"
        forward = self._forward(settings) if by_model else None
        quiet = hooks if by_model else TileCallbacks(cancel=hooks.cancel)
        # Never back-projected: a hard edge would get rings, which show as ghosts around a cut-out.
        return upscale_tiled(forward, image.alpha[..., None], grid, PostProcess(), quiet)[..., 0]

    def _share(self, settings: UpscaleSettings) -> float:
        """How much of the second network's image is in the result."""
        if len(self._networks) > 1:
            return DEFAULT_SHARE if settings.blend is None else settings.blend
        if settings.blend is not None:
            raise ConfigError(
                f"blend = {settings.blend:g} without a second model: name it with blend_model "
                "(--blend-model), or as the partner of an Upscaler"
            )
        return 0.0

    def _used(self, settings: UpscaleSettings) -> list[_Placed]:
        """The networks that have a share in the result; alone it is exactly its own image."""
        share = self._share(settings)
        if share == 0:
            return self._networks[:1]
        return self._networks[1:] if share == 1 else self._networks

    def _turns(self, settings: UpscaleSettings) -> int:
        """Times that a network is run on every pixel."""
        return (8 if settings.tta else 1) * len(self._used(settings))

    def _forward(self, settings: UpscaleSettings) -> Forward:
        ways: list[Forward] = [network.guard for network in self._used(settings)]
        if settings.tta:
            ways = [with_tta(way) for way in ways]
        return (
            ways[0] if len(ways) == 1 else blend_forwards(ways[0], ways[1], self._share(settings))
        )

    def _grid(self, size: tuple[int, int], settings: UpscaleSettings) -> Grid:
        """How an image of this (height, width) is cut."""
        out = output_size(settings, size, self.scale)
        networks = self._used(settings)
        policy = _common([network.policy for network in networks])
        own = max(network.overlap for network in networks)
        overlap = own + (COLOR_RADIUS + 1 if settings.color_fix else 0)
        exact = all(network.exact for network in networks)
        core = policy.tile
        if self._tile_is_ours and size[0] * size[1] <= (core + 2 * WHOLE_MARGIN) ** 2:
            core = 0
        axes = []
        for length, out_length in zip(size, out, strict=True):
            blend = 0 if exact else min(BLEND, own // 4)
            if out_length != length * self.scale:
                # What is resampled has to be right itself, so it needs its own surroundings.
                needed = overlap + support(length, out_length)
            elif settings.strength < 1:
                needed = max(overlap, blend + support(length, out_length))
            else:
                needed = max(overlap, blend)
            axes.append(
                Axis(
                    size=length,
                    out_size=out_length,
                    core=core,
                    overlap=needed,
                    blend=blend,
                    multiple=math.lcm(*(network.multiple for network in networks)),
                )
            )
        return Grid(axes[0], axes[1], self.scale, policy.batch)


def _common(found: Sequence[Policy]) -> Policy:
    """The first network's policy, with tiles that suit all of them."""
    if len(found) == 1:
        return found[0]
    return dataclasses.replace(
        found[0],
        tile=min(policy.tile for policy in found),
        overlap=max(policy.overlap or 0 for policy in found),
        batch=min(policy.batch for policy in found),
        reasons=tuple(dict.fromkeys(text for policy in found for text in policy.reasons)),
    )


def _prepared(
    net: nn.Module, engine: EngineSettings, architecture: Architecture
) -> tuple[Policy, Forwards]:
    """What will be done and how, the network in place; on the CPU where a GPU has no room."""
    chosen = policies.choose(policies.machine_info(), engine, architecture)
    try:
        forwards = make_forwards(net, chosen)
        if chosen.overlap is None:
            context = measure_context(forwards.fast, architecture.scale, forwards.multiple)
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


def _hooks(planned: Estimate, report: Report | None, cancel: Cancel | None) -> TileCallbacks:
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        if report is not None:
            report(done, planned.tiles)

    return TileCallbacks(report=one_more, cancel=cancel or (lambda: False))


class _Pace:
    """Seconds per input pixel, learned from finished images; a lock keeps threads apart."""

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
