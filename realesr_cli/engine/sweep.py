"""Run a Forward over the tiles of an image and give the result as integers, band by band.

Input and output stay in main memory as integers; only tiles become floats. The sweep goes along one
side of the image, and what no later tile can change is finished and rounded at once, so apart from
the result the engine holds one line of tiles as floats.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from realesr_cli.engine.forward import Forward
from realesr_cli.engine.tiling import Axis, Grid, Span
from realesr_cli.errors import CancelledError, OutOfMemoryError
from realesr_cli.ops.quantize import full_scale, quantize
from realesr_cli.progress import Progress, StopRequested, never, no_progress

if TYPE_CHECKING:
    from realesr_cli.ops.banded import Banded

# What only some images need is imported where it is used, so that a plain run starts fast.

Array = NDArray[Any]
Curve = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Window = tuple[Span, Span]
"""A tile: its rows and columns."""

_PIECE = 256
"""Rows that are finished at a time, so that rounding needs no second copy of the line of tiles."""


@dataclass(frozen=True)
class PostProcess:
    """What is done after the network: to each tile, and to finished rows."""

    strength: float = 1.0
    color_fix: bool = False
    back_project: int = 0
    """Iterations of back-projection on the enlarged image, before rounding."""
    kernel: str = "gaussian"
    """Its variant: one of `ops.back_projection.KERNELS`."""
    decode: Curve | None = None
    """From the image's tone curve to sRGB's, before the network; float32 (h, w, C)."""
    encode: Curve | None = None
    """The inverse, before rounding."""


def upscale_tiled(
    forward: Forward | None,
    source: Array,
    grid: Grid,
    post: PostProcess,
    *,
    progress: Progress = no_progress,
    stop_requested: StopRequested = never,
) -> Array:
    """Enlarge `source` (H, W, 1 or 3) to (grid.rows.out_size, grid.columns.out_size, same C).

    Same dtype in and out: uint8, uint16, or float32 in [0, 1]. `forward` None resamples only.
    Raises CancelledError when asked to stop, OutOfMemoryError when the result or (from the
    Forward) a tile does not fit in memory.
    """
    shape = (grid.rows.out_size, grid.columns.out_size, source.shape[2])
    try:
        target = np.empty(shape, source.dtype)
    except (MemoryError, ValueError) as error:  # numpy's own limit on sizes is a ValueError
        need = shape[0] * shape[1] * shape[2] * source.dtype.itemsize
        raise OutOfMemoryError(
            f"a result of {shape[1]}x{shape[0]} pixels takes {need / 2**30:.1f} GiB, which do not "
            "fit in memory",
            advice="result-too-large",
        ) from error
    # Sweep along the longer side, so that the line of unfinished tiles is the shorter one.
    by_rows = shape[0] >= shape[1]
    start = 0
    for band in upscale_bands(
        forward, source, grid, post, by_rows=by_rows, progress=progress,
        stop_requested=stop_requested,
    ):  # fmt: skip
        place = target if by_rows else target.swapaxes(0, 1)
        stop = start + band.shape[0 if by_rows else 1]
        place[start:stop] = band if by_rows else band.swapaxes(0, 1)
        start = stop
    return target


@torch.inference_mode()
def upscale_bands(
    forward: Forward | None,
    source: Array,
    grid: Grid,
    post: PostProcess,
    *,
    by_rows: bool = True,
    progress: Progress = no_progress,
    stop_requested: StopRequested = never,
) -> Iterator[Array]:
    """Yield the enlarged image in finished bands, from the top (or, not `by_rows`, from the left).

    A band is (n, W, C), or (H, n, C), of the dtype of `source`. One channel goes through the
    network as three equal ones and comes back as their luma.
    """
    lines = _sweep(forward, source, grid, post, by_rows, (progress, stop_requested))
    if post.back_project:
        from realesr_cli.engine.row_correction import correct_rows

        outer, inner = (grid.rows, grid.columns) if by_rows else (grid.columns, grid.rows)
        original = source if by_rows else source.swapaxes(0, 1)
        lines = correct_rows(
            lines,
            (outer.size, inner.size),
            (outer.out_size, inner.out_size),
            lambda start, stop: _to_float(original[start:stop], post.decode),
            (post.back_project, post.kernel),
        )
    for part in lines:
        yield _finish(part if by_rows else part.swapaxes(1, 2), source.dtype, post.encode)


def _sweep(
    forward: Forward | None,
    source: Array,
    grid: Grid,
    post: PostProcess,
    by_rows: bool,
    callbacks: tuple[Progress, StopRequested],
) -> Iterator[Tensor]:
    """Yield finished lines (C, n, W) (or (C, n, H), going by columns) as floats, in order.

    Each is a view of a buffer that the next one overwrites.
    """
    progress, stop_requested = callbacks
    outer, inner = grid.row_spans, grid.column_spans
    if not by_rows:
        outer, inner = inner, outer
    band = _Band(source.shape[2], grid, outer, by_rows)
    done = 0
    for i, span in enumerate(outer):
        line = [(span, other) if by_rows else (other, span) for other in inner]
        for windows in _batch(line, grid.batch):
            if stop_requested():
                raise CancelledError("cancelled")
            tiles = _compute(forward, source, windows, grid, post)
            for window, tile in zip(windows, tiles, strict=True):
                band.add(tile, window)
                done += 1
                progress(done, grid.tiles)
        yield from band.finish(outer[i + 1].write[0] if i + 1 < len(outer) else None)


def _batch(line: list[Window], size: int) -> Iterator[list[Window]]:
    """Yield neighbors whose tiles and results have equal shapes, at most `size` at a time."""
    group: list[Window] = []
    for window in line:
        if group and (len(group) == size or _shape(group[0]) != _shape(window)):
            yield group
            group = []
        group.append(window)
    if group:
        yield group


def _shape(window: Window) -> tuple[int, ...]:
    return tuple(e - s for span in window for s, e in (span.read, span.write))


def _compute(
    forward: Forward | None, source: Array, windows: list[Window], grid: Grid, post: PostProcess
) -> list[Tensor]:
    """Return the (C, h, w) float32 results of the windows, weighted for blending, on the CPU."""
    x = torch.stack([_to_float(_read(source, window), post.decode) for window in windows])
    gray = x.shape[1] == 1
    result = None
    if forward is not None and post.strength > 0:
        colored = x.expand(-1, 3, -1, -1) if gray else x
        y = forward(colored).clamp_(0, 1)
        if post.color_fix:
            from realesr_cli.ops.color import match_large_scale_color

            y = match_large_scale_color(y, colored.to(y.device)).clamp_(0, 1)
        if gray:
            from realesr_cli.ops.color import luma

            y = luma(y)
        result = _place(y, windows, grid, grid.scale)
    if result is None or post.strength < 1:
        plain = _place(x.to(result.device) if result is not None else x, windows, grid, 1)
        plain = plain.clamp(0, 1)
        result = plain if result is None else plain.lerp_(result, post.strength)
    for tile, (row, column) in zip(result, windows, strict=True):
        # Most tiles of most images have no neighbor to blend with on an axis.
        if row.weights.min() < 1:
            tile *= torch.from_numpy(row.weights).to(tile.device)[:, None]
        if column.weights.min() < 1:
            tile *= torch.from_numpy(column.weights).to(tile.device)
    return list(result.cpu())


def _read(source: Array, window: Window) -> Array:
    """Return the pixels that a tile sees; beyond the image those of the opposite edge."""
    part = source
    for axis, span in enumerate(window):
        low, high = span.read
        if low >= 0 and high <= source.shape[axis]:
            part = part[low:high] if axis == 0 else part[:, low:high]
        else:
            part = np.take(part, range(low, high), axis=axis, mode="wrap")
    return part


def _to_float(part: Array, decode: Curve | None) -> Tensor:
    """Convert a part of a source (h, w, C) to (C, h, w) float32 in [0, 1], in sRGB's tone curve."""
    piece = part.astype(np.float32)
    piece /= np.float32(full_scale(part.dtype))
    if decode is not None:
        piece = decode(piece)
    return torch.from_numpy(np.ascontiguousarray(piece.transpose(2, 0, 1)))


def _place(y: Tensor, windows: list[Window], grid: Grid, scale: int) -> Tensor:
    """Return of each tile the part that it writes, resampled to the output grid where that differs.

    `y` is at `scale` times the input's size.
    """
    results = []
    for tile, window in zip(y.split(1), windows, strict=True):
        for dim, axis, span in ((-2, grid.rows, window[0]), (-1, grid.columns, window[1])):
            origin = span.read[0] * scale
            if axis.out_size == axis.size * scale:
                tile = tile.narrow(dim, span.write[0] - origin, span.write[1] - span.write[0])
            else:
                margin = _margin(axis, scale)
                matrix = _resampling_matrix(axis.size * scale, axis.out_size, margin)
                tile = matrix.apply(tile, dim, window=span.write, origin=origin + margin)
        results.append(tile)
    return torch.cat(results)


def _margin(axis: Axis, scale: int) -> int:
    """Return the pixels beyond each end of a wrapped axis that its tiles know."""
    return (axis.overlap + axis.multiple) * scale if axis.wrap else 0


@functools.lru_cache(maxsize=8)
def _resampling_matrix(size: int, out_size: int, margin: int) -> Banded:
    """Return the matrix of one axis: the same for all tiles of an image."""
    from realesr_cli.ops.resize import resample_band

    return resample_band(size, out_size, kernel="cubic", margin=margin)


class _Band:
    """The unfinished part of the output as floats: one line of tiles across the sweep."""

    def __init__(self, channels: int, grid: Grid, outer: list[Span], by_rows: bool) -> None:
        self._dim = 1 if by_rows else 2
        self._size = (grid.rows if by_rows else grid.columns).out_size
        length = max(span.write[1] - span.write[0] for span in outer)
        height = length if by_rows else grid.rows.out_size
        width = grid.columns.out_size if by_rows else length
        self._buffer = torch.zeros(channels, height, width)
        self._start = 0

    def add(self, tile: Tensor, window: Window) -> None:
        """Add a weighted tile at its place."""
        (top, bottom), (left, right) = window[0].write, window[1].write
        if self._dim == 1:
            top, bottom = top - self._start, bottom - self._start
        else:
            left, right = left - self._start, right - self._start
        self._buffer[:, top:bottom, left:right] += tile

    def finish(self, next_start: int | None) -> Iterator[Tensor]:
        """Yield the lines before `next_start` (None: all of them) and move on to there."""
        stop = self._size if next_start is None else next_start
        count = stop - self._start
        for begin in range(0, count, _PIECE):
            piece = self._buffer.narrow(self._dim, begin, min(_PIECE, count - begin))
            yield piece if self._dim == 1 else piece.transpose(1, 2)
        if next_start is not None:
            # What the last line of tiles shares with the next moves to the front.
            rest = self._buffer.shape[self._dim] - count
            kept = self._buffer.narrow(self._dim, count, rest).clone()
            self._buffer.zero_()
            self._buffer.narrow(self._dim, 0, rest).copy_(kept)
            self._start = stop


def _finish(part: Tensor, dtype: np.dtype[Any], encode: Curve | None) -> Array:
    """Convert (C, h, w) in [0, 1] to (h, w, C) of `dtype`, in the image's own tone curve."""
    if encode is None:
        return quantize(part, dtype)
    encoded = encode(np.ascontiguousarray(part.permute(1, 2, 0).clamp(0, 1).numpy()))
    return quantize(torch.from_numpy(encoded).permute(2, 0, 1), dtype)
