"""`Upscaler`: a network on a device, built once, that turns images into larger ones."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from torch import nn

from realesr_cli.engine import policy as policies
from realesr_cli.engine.backends import find_backend, has_fixed_tiles
from realesr_cli.engine.estimate import Estimate, ImageShape, Pace, estimate, working_bytes
from realesr_cli.engine.forward import Forward, add_tta, blend, require_same_scale
from realesr_cli.engine.guard import (
    BLEND,
    PlacedNetwork,
    combine_policies,
    get_architecture,
    place_network,
)
from realesr_cli.engine.settings import (
    DEFAULT_SHARE,
    EngineSettings,
    UpscaleSettings,
    output_size,
)
from realesr_cli.engine.sweep import PostProcess, RowSource, join_alpha_rows, upscale_bands
from realesr_cli.engine.tiling import Axis, Grid
from realesr_cli.engine.workers import call_steadily, get_workers
from realesr_cli.errors import ConfigError, OutOfMemoryError
from realesr_cli.image.pixels import bleed
from realesr_cli.image.types import Band, Image, ImageStream, RowWindow
from realesr_cli.progress import Progress, StopRequested, never, no_progress
from realesr_cli.text import format_bytes

if TYPE_CHECKING:
    from realesr_cli.weights.load import OpenedModel

WHOLE_MARGIN = 32
"""An image of as many pixels as a tile with this much overlap is not cut: overlap costs time."""

_LINE_SHARE = 0.25
"""Part of the memory that one line of tiles of an RGBA image may take."""

_FEWEST_TILES = 4
"""Tiles of a small image where each thread computes one."""

_LEAST_ROWS = 32
"""Height of the lowest tiles in input pixels: the overlap costs time, too."""


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
        self._networks = [place_network(network, engine) for network in networks]
        self.policy = combine_policies([network.policy for network in self._networks])
        self._tile_is_auto = engine.tile == "auto"
        self.memory = policies.memory_budget(engine)
        """Bytes of main memory for images and tiles."""
        self._pace = Pace()
        self.wrap_forward: Callable[[Forward], Forward] | None = None
        """Applied to what computes the tiles, for a cache before it."""

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
        result = self.stream(image, settings, progress=progress, stop_requested=stop_requested)
        self.require_memory(result.nbytes, (result.height, result.width))
        return result.collect()

    def require_memory(self, need: int, size: tuple[int, int]) -> None:
        """Raise OutOfMemoryError if a whole result (height, width) of `need` bytes does not fit."""
        # Systems that promise more memory than there is kill the process instead of raising.
        if need > min(self.memory, policies.memory_available()):
            raise OutOfMemoryError(
                f"a result of {size[1]}x{size[0]} pixels takes {format_bytes(need)}, more than "
                "may be used",
                advice="result-too-large",
            )

    def stream(
        self,
        image: Image | ImageStream,
        settings: UpscaleSettings = UpscaleSettings(),
        *,
        progress: Progress | None = None,
        stop_requested: StopRequested | None = None,
    ) -> ImageStream:
        """Enlarge an image as `__call__` does, but compute its rows when they are asked for.

        Of an `ImageStream` only some rows are held, unless it has alpha or `pad` is wrap: then all
        are. The errors of `__call__` are raised on the way.
        """
        if isinstance(image, ImageStream) and (image.has_alpha or settings.pad == "wrap"):
            image = image.collect()
        shape = ImageShape.of(image)
        grid = self._make_grid((image.height, image.width), settings, image.bits)
        callbacks = progress or no_progress, stop_requested or never
        return ImageStream(
            height=grid.rows.out_size,
            width=grid.columns.out_size,
            channels=image.channels,
            dtype=image.dtype,
            has_alpha=image.has_alpha,
            bands=lambda: self._enlarge(image, shape, grid, settings, callbacks),
            about=dataclasses.replace(image.about, hidden_color=settings.alpha == "keep"),
        )

    def _enlarge(
        self,
        image: Image | ImageStream,
        shape: ImageShape,
        grid: Grid,
        settings: UpscaleSettings,
        callbacks: tuple[Progress, StopRequested],
    ) -> Iterator[Band]:
        cost = self._estimate(shape, grid, settings)
        report, stop = callbacks
        done = [0, 0]  # tiles of color and of alpha, which take turns

        def count(kind: int, tiles: int) -> None:
            done[kind] = tiles
            report(sum(done), cost.tiles)

        source: RowSource
        if isinstance(image, Image):
            source, alpha = image.pixels, image.alpha
            if alpha is not None and shape.alpha and settings.alpha != "keep":
                source = bleed(image.pixels, alpha)
        else:
            lag = 0
            if settings.back_project:
                from realesr_cli.engine.row_correction import count_held_rows

                lag = count_held_rows(settings.back_project, 1)
            source, alpha = RowWindow(image, lag), None
        workers = get_workers(self.policy.threads) if self.policy.device == "cpu" else None
        colors = upscale_bands(
            self._forward(settings),
            source,
            grid,
            _post_process(settings, image.about.icc),
            workers=workers, progress=lambda tiles, _: count(0, tiles), stop_requested=stop,
        )  # fmt: skip
        alphas = None
        if alpha is not None and shape.alpha:
            by_model = settings.alpha != "resize"
            # No back-projection: it rings around hard edges, so a cut-out would get a ghost.
            alphas = upscale_bands(
                self._forward(settings) if by_model else None,
                alpha[..., None],
                grid,
                PostProcess(), workers=workers,
                progress=(lambda tiles, _: count(1, tiles)) if by_model else no_progress,
                stop_requested=stop,
            )  # fmt: skip
        bands = join_alpha_rows(colors, alphas, None if alpha is None else alpha.flat[0])
        seconds = 0.0
        while True:
            # Time that whoever takes the bands spends on them does not count.
            began = time.perf_counter()
            # On the CPU never by the caller's OpenMP threads: they stall when one loses its core.
            band = call_steadily(lambda: next(bands, None)) if workers else next(bands, None)
            seconds += time.perf_counter() - began
            if band is None:
                break
            yield band
        self._pace.learn(cost.network_pixels, seconds)

    def estimate(
        self, shape: ImageShape, settings: UpscaleSettings = UpscaleSettings()
    ) -> Estimate:
        """Estimate what an image of this shape will take."""
        grid = self._make_grid((shape.height, shape.width), settings, shape.bits)
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

            ratio = grid.rows.out_size / grid.rows.size
            rows = min(grid.rows.out_size, count_held_rows(settings.back_project, ratio))
        return working_bytes(grid, shape.channels, per_pixel, rows)

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

    def _used(self, settings: UpscaleSettings) -> list[PlacedNetwork]:
        """Return the networks with a share in the result; the only one gives exactly its image."""
        share = self._share(settings)
        if share == 0:
            return self._networks[:1]
        return self._networks[1:] if share == 1 else self._networks

    def _forward(self, settings: UpscaleSettings) -> Forward:
        forwards: list[Forward] = [network.guard for network in self._used(settings)]
        if settings.tta:
            forwards = [add_tta(forward) for forward in forwards]
        forward = forwards[0]
        if len(forwards) == 2:
            forward = blend(forward, forwards[1], self._share(settings))
        return forward if self.wrap_forward is None else self.wrap_forward(forward)

    def _make_grid(self, size: tuple[int, int], settings: UpscaleSettings, bits: int) -> Grid:
        """Decide how an image of this (height, width) and depth is cut."""
        out = output_size(settings, size, self.scale)
        networks = self._used(settings)
        policy = combine_policies([network.policy for network in networks])
        own = max(network.overlap for network in networks)
        overlap = own
        if settings.color_fix:
            from realesr_cli.ops.color import LARGE_SCALE_RADIUS

            overlap += LARGE_SCALE_RADIUS + 1
        exact = all(network.exact for network in networks)
        tile = policy.tile
        fixed = any(has_fixed_tiles(network.policy.backend) for network in networks)
        if self._tile_is_auto and not fixed:
            if policy.tiles_at_once > 1:
                tile = min(tile, max(_LEAST_ROWS, math.isqrt(size[0] * size[1] // _FEWEST_TILES)))
            elif size[0] * size[1] <= (tile + 2 * WHOLE_MARGIN) ** 2:
                tile = 0
        rows = tile
        if self._tile_is_auto and tile:
            # Tiles of a wide image are less high, so that a line of them takes little memory.
            value = bits // 8 if exact and not settings.back_project else 4
            most = int(self.memory * _LINE_SHARE / (4 * value * out[1]))
            rows = min(tile, max(_LEAST_ROWS, most * size[0] // out[0]))
        axes = []
        for length, out_length, side in zip(size, out, (rows, tile), strict=True):
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
                    tile=side,
                    overlap=needed,
                    blend=ramp,
                    multiple=math.lcm(*(network.architecture.multiple for network in networks)),
                    wrap=settings.pad == "wrap",
                    # A multiple of 16, as of any unshuffle: different settings share a shape.
                    read_size=-(-(side + 2 * needed) // 16) * 16 if fixed and tile else 0,
                )
            )
        return Grid(axes[0], axes[1], self.scale, policy.batch, policy.tiles_at_once)


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


def _post_process(settings: UpscaleSettings, icc: bytes | None) -> PostProcess:
    curve = None
    if icc is not None:
        from realesr_cli.image.color import tone_curve

        curve = tone_curve(icc)
    return PostProcess(
        strength=settings.strength,
        color_fix=settings.color_fix,
        back_project=settings.back_project,
        kernel=settings.kernel,
        decode=curve.to_srgb if curve else None,
        encode=curve.from_srgb if curve else None,
    )
