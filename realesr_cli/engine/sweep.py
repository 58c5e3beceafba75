"""Run a Forward over the tiles of an image and give the result as integers, band by band.

Only tiles become floats. The sweep goes from top to bottom, and what no later tile can change is
finished and rounded at once, so the engine holds one line of tiles: as floats where tiles are
blended or corrected, else as integers.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from realesr_cli.engine.forward import Forward
from realesr_cli.engine.tiling import Axis, Grid, Span
from realesr_cli.engine.workers import Workers
from realesr_cli.errors import CancelledError
from realesr_cli.image.types import Band
from realesr_cli.ops.quantize import full_scale, quantize
from realesr_cli.progress import Progress, StopRequested, never, no_progress

if TYPE_CHECKING:
    from realesr_cli.ops.banded import Banded

# What only some images need is imported where it is used, so that a plain run starts fast.

Array = NDArray[Any]
Curve = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Window = tuple[Span, Span]
"""A tile: its rows and columns."""
Line = tuple[Span, Iterator[tuple[Span, Tensor]]]
"""The tiles of one row of tiles: their rows, and each one's columns with its weighted result."""

_PART = 64
"""Rows that a worker finishes at a time."""

_PIECE = 256
"""Rows that are finished at a time, so that rounding needs no second copy of the line of tiles."""


class RowSource(Protocol):
    """An image (H, W, 1 or 3) whose rows can be asked for; an array is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, rows: slice, /) -> Array: ...


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


@torch.inference_mode()
def upscale_bands(
    forward: Forward | None,
    source: RowSource,
    grid: Grid,
    post: PostProcess,
    *,
    workers: Workers | None = None,
    progress: Progress = no_progress,
    stop_requested: StopRequested = never,
) -> Iterator[Array]:
    """Yield the enlarged image in finished bands (n, W, C) of the dtype of `source`, from the top.

    One channel goes through the network as three equal ones and comes back as their luma. Rows of
    `source` are asked for in order, but for the overlap of tiles and the lag of back-projection.
    Same dtype in and out: uint8, uint16, or float32 in [0, 1]. `forward` None resamples only. On
    the CPU `workers` compute `grid.at_once` tiles side by side, and finish rows. Raises
    CancelledError when asked to stop, OutOfMemoryError (from the Forward) when a tile does not fit.
    """
    lines = _compute_lines(forward, source, grid, post, workers, (progress, stop_requested))

    def finish(part: Tensor) -> Array:
        result = np.empty((*part.shape[1:], part.shape[0]), source.dtype)

        def finish_rows(rows: slice) -> None:
            result[rows] = _finish(part[:, rows], source.dtype, post.encode)

        _each_rows(workers, part, finish_rows)
        return result

    if is_final(grid, post):
        for row, tiles in lines:
            height = row.write[1] - row.write[0]
            if len(grid.column_spans) == 1:  # The first rows need not wait for the last ones.
                for part in next(tiles)[1].split(_PIECE, 1):
                    yield finish(part)
                next(tiles, None)
                continue
            line = np.empty((height, grid.columns.out_size, source.shape[2]), source.dtype)
            for column, tile in tiles:
                line[:, slice(*column.write)] = finish(tile)
            for start in range(0, height, _PIECE):
                yield line[start : start + _PIECE]
        return
    rows = _blend_lines(lines, source.shape[2], grid)
    if post.back_project:
        from realesr_cli.engine.row_correction import correct_rows

        rows = correct_rows(
            rows,
            (grid.rows.size, grid.columns.size),
            (grid.rows.out_size, grid.columns.out_size),
            lambda start, stop: _to_float(source[start:stop], post.decode),
            (post.back_project, post.kernel),
        )
    for part in rows:
        yield finish(part)


def is_final(grid: Grid, post: PostProcess) -> bool:
    """Return whether what a tile gives is finished: it is neither blended nor corrected."""
    spans = (*grid.row_spans, *grid.column_spans)
    return not post.back_project and all(span.weights.min() == 1 for span in spans)


def _compute_lines(
    forward: Forward | None,
    source: RowSource,
    grid: Grid,
    post: PostProcess,
    workers: Workers | None,
    callbacks: tuple[Progress, StopRequested],
) -> Iterator[Line]:
    """Yield the lines of tiles from the top, each of which is to be used up before the next."""
    progress, stop_requested = callbacks

    def read() -> Iterator[tuple[list[Window], Tensor]]:
        for row in grid.row_spans:
            for windows in _batch([(row, column) for column in grid.column_spans], grid.batch):
                if stop_requested():
                    raise CancelledError("cancelled")
                parts = [_to_float(_read(source, window), post.decode) for window in windows]
                yield windows, torch.stack(parts)

    def compute(item: tuple[list[Window], Tensor]) -> Iterator[tuple[Window, Tensor]]:
        windows, x = item
        return zip(windows, _compute(forward, x, windows, grid, post, workers), strict=True)

    if workers is not None and grid.at_once > 1:
        computed = workers.map(compute, read(), grid.at_once)
    else:
        computed = map(compute, read())
    tiles = itertools.chain.from_iterable(computed)

    def take(done: int) -> Iterator[tuple[Span, Tensor]]:
        for i, ((_, column), tile) in enumerate(itertools.islice(tiles, len(grid.column_spans))):
            yield column, tile
            progress(done + i + 1, grid.tiles)

    for number, row in enumerate(grid.row_spans):
        yield row, take(number * len(grid.column_spans))


def _each_rows(workers: Workers | None, tile: Tensor, function: Callable[[slice], object]) -> None:
    """Call a function for all rows of a (..., h, w), on the CPU a few at a time by the workers."""
    if workers is None or tile.device.type != "cpu":
        function(slice(None))
        return
    workers.each(function, (slice(y, y + _PART) for y in range(0, tile.shape[-2], _PART)))


def _blend_lines(lines: Iterator[Line], channels: int, grid: Grid) -> Iterator[Tensor]:
    """Yield finished rows (C, n, W) as floats, in order; the next ones overwrite them."""
    rows = grid.row_spans
    height = max(row.write[1] - row.write[0] for row in rows)
    buffer = torch.zeros(channels, height, grid.columns.out_size)
    for (row, tiles), following in itertools.zip_longest(lines, rows[1:]):
        start, stop = row.write
        for column, tile in tiles:
            buffer[:, : stop - start, slice(*column.write)] += tile
        count = (stop if following is None else following.write[0]) - start
        for begin in range(0, count, _PIECE):
            yield buffer[:, begin : min(begin + _PIECE, count)]
        if following is not None:
            # What this line of tiles shares with the next moves to the front.
            kept = buffer[:, count:].clone()
            buffer.zero_()
            buffer[:, : kept.shape[1]] = kept


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
    forward: Forward | None,
    x: Tensor,
    windows: list[Window],
    grid: Grid,
    post: PostProcess,
    workers: Workers | None,
) -> list[Tensor]:
    """Return the (C, h, w) float32 results of tiles `x`, weighted for blending, on the CPU."""
    gray = x.shape[1] == 1
    results: list[Tensor] = []
    if forward is not None and post.strength > 0:
        colored = x.expand(-1, 3, -1, -1) if gray else x
        y = forward(colored)
        _each_rows(workers, y, lambda rows: y[:, :, rows].clamp_(0, 1))
        if post.color_fix:
            from realesr_cli.ops.color import match_large_scale_color

            y = match_large_scale_color(y, colored.to(y.device)).clamp_(0, 1)
        if gray:
            from realesr_cli.ops.color import luma

            y = luma(y)
        results = _place(y, windows, grid, grid.scale)
    if not results or post.strength < 1:
        plain = [tile.clamp(0, 1) for tile in _place(x, windows, grid, 1)]
        for i, tile in enumerate(results):
            plain[i] = plain[i].to(tile.device).lerp_(tile, post.strength)
        results = plain
    for tile, (row, column) in zip(results, windows, strict=True):
        # Most tiles of most images have no neighbor to blend with on an axis.
        if row.weights.min() < 1:
            tile *= torch.from_numpy(row.weights).to(tile.device)[:, None]
        if column.weights.min() < 1:
            tile *= torch.from_numpy(column.weights).to(tile.device)
    return [tile.cpu() for tile in results]


def _read(source: RowSource, window: Window) -> Array:
    """Return the pixels that a tile sees; beyond the image those of the opposite edge."""
    (top, bottom), (left, right) = (span.read for span in window)
    height, width = source.shape[:2]
    if top >= 0 and bottom <= height:
        part = source[top:bottom]
    else:
        part = np.take(source[0:height], range(top, bottom), axis=0, mode="wrap")
    if left >= 0 and right <= width:
        return part[:, left:right]
    return np.take(part, range(left, right), axis=1, mode="wrap")


def _to_float(part: Array, decode: Curve | None) -> Tensor:
    """Convert a part of a source (h, w, C) to (C, h, w) float32 in [0, 1], in sRGB's tone curve."""
    piece = part.astype(np.float32)
    piece /= np.float32(full_scale(part.dtype))
    if decode is not None:
        piece = decode(piece)
    return torch.from_numpy(np.ascontiguousarray(piece.transpose(2, 0, 1)))


def _place(y: Tensor, windows: list[Window], grid: Grid, scale: int) -> list[Tensor]:
    """Return of each tile the part that it writes, resampled to the output grid where that differs.

    `y` is at `scale` times the input's size.
    """
    results = []
    for tile, window in zip(y, windows, strict=True):
        for dim, axis, span in ((-2, grid.rows, window[0]), (-1, grid.columns, window[1])):
            origin = span.read[0] * scale
            if axis.out_size == axis.size * scale:
                tile = tile.narrow(dim, span.write[0] - origin, span.write[1] - span.write[0])
            else:
                margin = _margin(axis, scale)
                matrix = _resampling_matrix(axis.size * scale, axis.out_size, margin)
                tile = matrix.apply(tile, dim, window=span.write, origin=origin + margin)
        results.append(tile)
    return results


def _margin(axis: Axis, scale: int) -> int:
    """Return the pixels beyond each end of a wrapped axis that its tiles know."""
    return (axis.overlap + axis.multiple) * scale if axis.wrap else 0


@functools.lru_cache(maxsize=8)
def _resampling_matrix(size: int, out_size: int, margin: int) -> Banded:
    """Return the matrix of one axis: the same for all tiles of an image."""
    from realesr_cli.ops.resize import resample_band

    return resample_band(size, out_size, kernel="cubic", margin=margin)


def _finish(part: Tensor, dtype: np.dtype[Any], encode: Curve | None) -> Array:
    """Convert (C, h, w) in [0, 1] to (h, w, C) of `dtype`, in the image's own tone curve."""
    if encode is None:
        return quantize(part, dtype)
    encoded = encode(np.ascontiguousarray(part.permute(1, 2, 0).clamp(0, 1).numpy()))
    return quantize(torch.from_numpy(encoded).permute(2, 0, 1), dtype)


def join_alpha_rows(
    colors: Iterator[Array], alphas: Iterator[Array] | None, constant: Any
) -> Iterator[Band]:
    """Yield bands of color with the rows of alpha that belong to them.

    `constant` is the alpha of all pixels where `alphas` is None; None for an image without alpha.
    """
    rest: Array | None = None
    for color in colors:
        if alphas is None:
            alpha = None
            if constant is not None:
                alpha = np.full(color.shape[:2], constant, color.dtype)
            yield color, alpha
            continue
        parts = [] if rest is None else [rest]
        while sum(map(len, parts)) < len(color):
            parts.append(next(alphas)[..., 0])
        held = np.concatenate(parts)
        rest = held[len(color) :]
        yield color, held[: len(color)]
    if alphas is not None:
        next(alphas, None)  # Its last tile is counted when it ends.
