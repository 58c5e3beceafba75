"""Run a Forward over the tiles of an image and assemble the result as integers.

Input and output stay in main memory, in the format of the file; only tiles become floats. Finished
parts are rounded as soon as no later tile can touch them, so that apart from the output itself the
engine holds one row (or column) of tiles as floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from realesr_cli.engine.guard import Forward
from realesr_cli.engine.postprocess import color_fix, resample
from realesr_cli.engine.row_correction import RowCorrection, Rows
from realesr_cli.engine.tiling import Axis, Span, Taps, resample_taps, spans
from realesr_cli.errors import CancelledError
from realesr_cli.ops.back_projection import axis_steps
from realesr_cli.ops.color import luma

Array = NDArray[Any]
Curve = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def full_scale(dtype: np.dtype[Any]) -> float:
    """The value that stands for 1.0 in an array of this type."""
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0


@dataclass(frozen=True)
class Grid:
    """How an image is cut: two axes, the network's scale, and tiles computed at a time."""

    rows: Axis
    columns: Axis
    scale: int
    batch: int = 1

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(spans(self.rows)) * len(spans(self.columns))


@dataclass(frozen=True)
class PostProcess:
    """What is done after the network: to each tile, and where tiles have become rows."""

    strength: float = 1.0
    color_fix: bool = False
    back_project: int = 0
    """Iterations of back-projection on the enlarged image, before rounding."""
    kernel: str = "gaussian"
    """Its variant: one of `ops.backproject.KERNELS`."""
    decode: Curve | None = None
    """From the image's tone curve to sRGB's, before the network; float32 (h, w, C)."""
    encode: Curve | None = None
    """The inverse, before rounding."""


@dataclass(frozen=True)
class TileCallbacks:
    """The caller's ears and hand: progress, and a wish to stop."""

    report: Callable[[], None] = field(default=lambda: None)
    """Called once per finished tile."""
    cancel: Callable[[], bool] = field(default=lambda: False)


@torch.inference_mode()
def upscale_tiled(
    forward: Forward | None, source: Array, grid: Grid, look: PostProcess, hooks: TileCallbacks
) -> Array:
    """Enlarge `source` (H, W, 1 or 3) to (grid.rows.out_size, grid.columns.out_size, same C).

    Same dtype in and out: uint8, uint16, or float32 in [0, 1]. One channel goes through the network
    as three equal ones and comes back as their luma. `forward` None resamples only. Raises
    Cancelled when asked to, OutOfMemory (from the Forward) when no piece is small enough.
    """
    target = np.empty((grid.rows.out_size, grid.columns.out_size, source.shape[2]), source.dtype)
    rows, columns = spans(grid.rows), spans(grid.columns)
    # Sweep along the longer side, so that the row of unfinished tiles is the shorter one.
    along_rows = target.shape[0] >= target.shape[1]
    outer, inner = (rows, columns) if along_rows else (columns, rows)
    finished: Rows = _Store(target, along_rows, look.encode)
    if look.back_project:
        finished = _corrected(finished, source, grid, look, along_rows)
    band = _Band(target, along_rows, max(s.write[1] - s.write[0] for s in outer), finished)
    for i, span in enumerate(outer):
        line = [(span, other) if along_rows else (other, span) for other in inner]
        for windows in _batches(line, grid.batch):
            if hooks.cancel():
                raise CancelledError("cancelled")
            tiles = _compute(forward, source, windows, grid, look)
            for (row, column), tile in zip(windows, tiles, strict=True):
                band.add(tile, row, column)
                hooks.report()
        band.finish(outer[i + 1].write[0] if i + 1 < len(outer) else None)
    return target


Window = tuple[Span, Span]


def _batches(line: list[Window], size: int) -> Iterator[list[Window]]:
    """Neighbors whose windows and results have equal shapes, at most `size` at a time."""
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
    forward: Forward | None, source: Array, windows: list[Window], grid: Grid, look: PostProcess
) -> list[Tensor]:
    """The finished (C, h, w) float32 results of the windows, weighted for blending, on the CPU."""
    x = torch.stack([_cut(source, window, look.decode) for window in windows])
    gray = x.shape[1] == 1
    result = None
    if forward is not None and look.strength > 0:
        colored = x.expand(-1, 3, -1, -1) if gray else x
        y = forward(colored).clamp_(0, 1)
        if look.color_fix:
            y = color_fix(y, colored.to(y.device)).clamp_(0, 1)
        if gray:
            y = luma(y)
        result = _placed(y, windows, grid, grid.scale)
    if result is None or look.strength < 1:
        plain = _placed(x.to(result.device) if result is not None else x, windows, grid, 1)
        plain = plain.clamp(0, 1)
        result = plain if result is None else plain.lerp_(result, look.strength)
    for tile, (row, column) in zip(result, windows, strict=True):
        # Most tiles of most images have no neighbor to be mixed with on an axis.
        if row.weights.min() < 1:
            tile *= torch.from_numpy(row.weights).to(tile.device)[:, None]
        if column.weights.min() < 1:
            tile *= torch.from_numpy(column.weights).to(tile.device)
    return list(result.cpu())


def _cut(source: Array, window: Window, decode: Curve | None) -> Tensor:
    (top, bottom), (left, right) = window[0].read, window[1].read
    return _floats(source[top:bottom, left:right], decode)


def _floats(part: Array, decode: Curve | None) -> Tensor:
    """A part of a source (h, w, C) as (C, h, w) float32 in [0, 1], in sRGB's tone curve."""
    piece = part.astype(np.float32)
    piece /= np.float32(full_scale(part.dtype))
    if decode is not None:
        piece = decode(piece)
    return torch.from_numpy(np.ascontiguousarray(piece.transpose(2, 0, 1)))


def _placed(y: Tensor, windows: list[Window], grid: Grid, scale: int) -> Tensor:
    """The part of each window that it writes, on the output grid; `y` is at `scale` x input."""
    results = []
    for tile, (row, column) in zip(y.split(1), windows, strict=True):
        row_taps = _taps(grid.rows, row, scale)
        column_taps = _taps(grid.columns, column, scale)
        origin = (row.read[0] * scale, column.read[0] * scale)
        tile = resample(tile, row_taps, column_taps, origin)
        if row_taps is None:
            tile = tile[:, :, row.write[0] - origin[0] : row.write[1] - origin[0]]
        if column_taps is None:
            tile = tile[..., column.write[0] - origin[1] : column.write[1] - origin[1]]
        results.append(tile)
    return torch.cat(results)


def _taps(axis: Axis, span: Span, scale: int) -> Taps | None:
    if axis.out_size == axis.size * scale:
        return None
    return resample_taps(axis.size * scale, axis.out_size, span.write)


class _Band:
    """The unfinished part of the output as floats: one line of tiles across the shorter side."""

    def __init__(self, target: Array, along_rows: bool, length: int, finished: Rows) -> None:
        self._finished = finished
        self._axis = 0 if along_rows else 1
        shape = list(target.shape)
        self._size = shape[self._axis]
        shape[self._axis] = length
        self._buffer = torch.zeros(shape[2], shape[0], shape[1])
        self._start = 0

    def add(self, tile: Tensor, row: Span, column: Span) -> None:
        """Add a weighted tile at its place."""
        places = [row.write, column.write]
        begin, end = places[self._axis]
        places[self._axis] = (begin - self._start, end - self._start)
        (top, bottom), (left, right) = places
        self._buffer[:, top:bottom, left:right] += tile

    def finish(self, next_start: int | None) -> None:
        """Give on all that lies before `next_start` (None: everything) and move on to there."""
        stop = self._size if next_start is None else next_start
        count = stop - self._start
        dim = self._axis + 1
        # Pieces, so that the rounding needs no second band.
        for begin in range(0, count, 256):
            piece = self._buffer.narrow(dim, begin, min(256, count - begin))
            self._finished(piece if self._axis == 0 else piece.transpose(1, 2))
        rest = self._buffer.shape[dim] - count
        if next_start is not None:
            kept = self._buffer.narrow(dim, count, rest).clone()
            self._buffer.zero_()
            self._buffer.narrow(dim, 0, rest).copy_(kept)
            self._start = stop


class _Store:
    """Rounds finished rows (C, n, W) of the sweep into the output, one after the other."""

    def __init__(self, target: Array, along_rows: bool, encode: Curve | None) -> None:
        self._target = target if along_rows else target.transpose(1, 0, 2)
        self._along_rows, self._encode = along_rows, encode
        self._start = 0

    def __call__(self, rows: Tensor) -> None:
        stop = self._start + rows.shape[1]
        place = self._target[self._start : stop]
        if self._along_rows:
            place[:] = quantize(rows, self._target, self._encode)
        else:
            # In the image's own order, which memory is written to faster in.
            values = quantize(rows.transpose(1, 2), self._target, self._encode)
            place[:] = values.transpose(1, 0, 2)
        self._start = stop


def _corrected(store: Rows, source: Array, grid: Grid, look: PostProcess, along_rows: bool) -> Rows:
    """A taker of rows that corrects them by back-projection and gives them on to `store`."""
    outer, inner = (grid.rows, grid.columns) if along_rows else (grid.columns, grid.rows)
    across = axis_steps(outer.size, outer.out_size, look.kernel)
    along = axis_steps(inner.size, inner.out_size, look.kernel)
    lines = source if along_rows else source.transpose(1, 0, 2)

    def original(start: int, stop: int) -> Tensor:
        return _floats(lines[start:stop], look.decode)

    return RowCorrection((across, along), look.back_project, original, store)


def quantize(tile: Tensor, like: Array, encode: Curve | None) -> Array:
    """(C, h, w) float in [0, 1] as (h, w, C) of the type of `like`: rounded, halves to even."""
    values = tile.permute(1, 2, 0).clamp(0, 1).contiguous()
    if encode is not None:
        values = torch.from_numpy(np.clip(encode(values.numpy()), 0, 1))
    if not np.issubdtype(like.dtype, np.integer):
        return values.numpy()
    rounded = values.mul(full_scale(like.dtype)).round_()
    if like.dtype == np.uint8:
        return rounded.to(torch.uint8).numpy()
    return rounded.numpy().astype(like.dtype)
