"""One chunk of a video, decoded, upscaled and encoded side by side; every frame is counted."""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import CancelledError, DamagedVideoError
from realesr_cli.image.types import Image
from realesr_cli.progress import StopRequested
from realesr_cli.video.animations import RawWriter, read_animation
from realesr_cli.video.encoder import SegmentWriter
from realesr_cli.video.frames import Frame, Span, read_film
from realesr_cli.video.journal import ChunkCounts, DoneChunk
from realesr_cli.video.repeats import RepeatFinder, TileCache
from realesr_cli.video.video_plan import VideoPlan

T = TypeVar("T")

_AHEAD = 3
"""Frames decoded in advance, and frames that wait for the encoder."""


@dataclass(frozen=True)
class ChunkWorker:
    """What turns chunks into files: a plan, a network, and a cache that outlives a chunk."""

    plan: VideoPlan
    upscaler: Upscaler
    cache: TileCache | None

    @staticmethod
    def of(plan: VideoPlan, upscaler: Upscaler) -> ChunkWorker:
        """Make a worker, with the cache that the plan's settings request."""
        size = plan.settings.tile_cache << 20
        if not size:
            return ChunkWorker(plan, upscaler, None)
        cache = TileCache(size)
        upscaler = copy.copy(upscaler)  # The caller's own stays without a cache.
        upscaler.wrap_forward = cache.wrap
        return ChunkWorker(plan, upscaler, cache)

    def run(
        self, number: int, part: Path, on_frame: Callable[[], None], stop_requested: StopRequested
    ) -> DoneChunk:
        """Write one chunk to `part`; `on_frame` is called after each frame.

        Raises CancelledError when asked to stop, DamagedVideoError for a damaged frame in strict
        mode, and what decoder, network and encoder raise.
        """
        began, counts = time.perf_counter(), ChunkCounts()
        cache = self.cache
        before = (cache.lookups, cache.hits) if cache else (0, 0)
        span = self.plan.chunks[number]
        writer = _open_writer(self.plan, span, part)
        try:
            with ThreadPoolExecutor(1) as pool:
                waiting: deque[Future[None]] = deque()
                for image in self._upscale(span, counts, stop_requested):
                    waiting.append(pool.submit(writer.add, image.pixels, image.alpha))
                    if len(waiting) > _AHEAD:
                        waiting.popleft().result()
                    counts.frames += 1
                    on_frame()
                for future in waiting:
                    future.result()
            writer.finish()
        except BaseException:
            writer.abort()
            raise
        if cache is not None:
            counts.tile_lookups = cache.lookups - before[0]
            counts.tile_hits = cache.hits - before[1]
        counts.seconds = time.perf_counter() - began
        return DoneChunk(number, writer.delay, counts)

    def _upscale(
        self, span: Span, counts: ChunkCounts, stop_requested: StopRequested
    ) -> Iterator[Image]:
        """Yield the enlarged frames of a span, as many as it has."""
        repeats, last, missing = RepeatFinder(self.plan.settings.dedupe), None, 0
        for frame in _read_ahead(read_frames(self.plan, span)):
            if stop_requested():
                raise CancelledError("cancelled")
            if frame is None:
                counts.concealed += 1
                if self.plan.settings.strict:
                    raise DamagedVideoError(
                        f"{self.plan.source.path}: a frame from {span[0]} to {span[1]} cannot be "
                        "decoded"
                    )
                if last is None:
                    missing += 1
                    continue
            elif last is not None and repeats.is_repeat(frame):
                counts.repeated += 1
                counts.corrupt += frame.corrupt
            else:
                repeats.is_repeat(frame)
                last = self._enlarge(frame, counts, stop_requested)
                # What is missing at the beginning shows the first frame that is there.
                yield from [last] * missing
                missing = 0
            assert last is not None
            yield last
        if last is None:
            yield from [self._enlarge(find_neighbor(self.plan, span), counts, stop_requested)] * (
                span[1] - span[0]
            )

    def _enlarge(self, frame: Frame, counts: ChunkCounts, stop_requested: StopRequested) -> Image:
        counts.computed += 1
        counts.corrupt += frame.corrupt
        image = Image(frame.pixels, frame.alpha)
        return self.upscaler(image, self.plan.upscale, stop_requested=stop_requested)


def read_frames(plan: VideoPlan, span: Span) -> Iterator[Frame | None]:
    """Yield the frames of a span of a film or an animation."""
    read = read_animation if plan.source.kind == "animation" else read_film
    return read(plan.source, span, plan.read)


def find_neighbor(plan: VideoPlan, span: Span) -> Frame:
    """Return the nearest frame that can be decoded, where a whole chunk cannot."""
    count = len(plan.source.index)
    before = [(max(0, low - 250), low) for low in range(span[0], 0, -250)]
    after = [(high, min(count, high + 250)) for high in range(span[1], count, 250)]
    for low, high in (*before, *after):
        found = [frame for frame in read_frames(plan, (low, high)) if frame is not None]
        if found:
            return found[-1] if high <= span[0] else found[0]
    raise DamagedVideoError(f"{plan.source.path}: no frame can be decoded")


def _open_writer(plan: VideoPlan, span: Span, part: Path) -> SegmentWriter | RawWriter:
    if plan.spec is None:
        return RawWriter(part)
    return SegmentWriter(part, plan.spec, plan.source.index.pts[span[0] : span[1]])


def _read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield items that are made in another thread, a few in advance."""
    end: Any = object()
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, items, end) for _ in range(_AHEAD))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, items, end))
                yield item
        finally:
            for future in waiting:
                future.cancel()
            close = getattr(items, "close", None)
            if close is not None:
                pool.submit(close)
