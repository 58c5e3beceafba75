"""Back-projection of rows that are finished one after the other: few of them are held.

A corrected row depends on the enlarged image some (iterations x 4 or 5) pixels of the original to
each side. If tiles overlapped by that much, the network would cost far more than the correction
itself. So tiles stay as they are, and the correction follows the sweep at that distance; the result
is that of the whole image, wherever tiles lie.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from realesr_cli.ops.back_projection import AxisSteps, make_axis_steps, sum_residuals

ReadRows = Callable[[int, int], Tensor]
"""`read(start, stop)`: rows of the original, (C, stop - start, w) float32 in [0, 1]."""

_PIECE = 256
"""Rows of the enlarged image worked on at a time."""

_REACH = 6
"""No iteration looks further than this, in pixels of the original, at any ratio above 1."""


def count_held_rows(iterations: int, ratio: float) -> int:
    """Return the most rows of the enlarged image that are held as floats, with some to spare."""
    return int((1.5 * iterations * _REACH + 2 * _REACH) * ratio) + _PIECE


def correct_rows(
    rows: Iterable[Tensor],
    size: tuple[int, int],
    out_size: tuple[int, int],
    original: ReadRows,
    method: tuple[int, str],
) -> Iterator[Tensor]:
    """Yield `rows` (C, n, W) of an enlarged image back-projected, in order, in other portions.

    `size` is that of the original and `out_size` that of the result, each (along the sweep, across
    it); `method` is (iterations, kernel) as of `ops.back_projection`.
    """
    iterations, kernel = method
    axes = [
        make_axis_steps(small, large, kernel) for small, large in zip(size, out_size, strict=True)
    ]
    correction = RowCorrection((axes[0], axes[1]), iterations, original)
    for part in rows:
        yield from correction.add(part)


class RowCorrection:
    """The rows that are held, and how far their correction has come."""

    def __init__(
        self, axes: tuple[AxisSteps, AxisSteps], iterations: int, original: ReadRows
    ) -> None:
        """`axes` are those across the rows that come, and along them; `iterations` at least 1."""
        self._axes, self._iterations, self._original = axes, iterations, original
        rows = axes[0]
        self._size, self._out_size = rows.down.rows, rows.up.rows
        self._halo = (iterations - 1) * rows.reach
        # Row i of the residual can be computed once this many rows of the image are known, and row
        # i of the correction once this many rows of the residual are.
        self._measurable = rows.down.last.cummax(0).values
        self._correctable = rows.up.last.cummax(0).values
        self._held: deque[Tensor] = deque()
        self._held_from = self._known = self._given = 0
        self._residual = torch.empty(0)
        self._residual_from = self._measured = 0

    def add(self, rows: Tensor) -> Iterator[Tensor]:
        """Take the next rows (C, n, W) and yield those that nothing to come can change.

        After the last ones all rows have been yielded.
        """
        for piece in rows.split(_PIECE, 1):
            self._held.append(piece.clone())
            self._known += piece.shape[1]
            self._measure()
        yield from self._correct()

    def _measure(self) -> None:
        """Extend the residual by those rows of the original whose part of the image is complete."""
        rows, columns = self._axes
        start, stop = self._measured, int(torch.searchsorted(self._measurable, self._known + 1))
        if stop == start:
            return
        low, high = rows.down.needs(start, stop)
        small = rows.down.apply(self._read(low, high), -2, window=(start, stop), origin=low)
        missing = self._original(start, stop) - columns.down.apply(small, -1)
        self._residual = torch.cat((self._residual, missing), 1) if start else missing
        self._measured = stop

    def _correct(self) -> Iterator[Tensor]:
        """Yield corrected rows as far as the residual is final, and forget what they used.

        They are not needed for measuring either: enlarging and reducing reach equally far.
        """
        complete = self._measured == self._size
        # Each iteration after the first makes `reach` rows at the residual's lower end wrong.
        final = self._size if complete else self._measured - self._halo
        stop = int(torch.searchsorted(self._correctable, final + 1))
        # Every portion is computed with its surroundings again, so portions are not too small.
        least = 1 if complete else self._halo * self._out_size // (2 * self._size)
        if stop - self._given < max(1, least):
            return
        rows, columns = self._axes
        first, last = rows.up.needs(self._given, stop)
        low = max(0, first - self._halo)
        high = min(self._measured, last + self._halo)
        residual = self._residual[:, low - self._residual_from : high - self._residual_from]
        total = sum_residuals(
            residual, self._axes, self._iterations, origin=low, wanted=(first, last)
        )
        for top in range(self._given, stop, _PIECE):
            window = (top, min(top + _PIECE, stop))
            change = rows.up.apply(total, -2, window=window, origin=first)
            yield columns.up.apply(change, -1).add_(self._read(*window))
            self._forget(window[1])
        self._given = stop
        if stop < self._out_size:
            kept = max(0, int(rows.up.first[stop:].min()) - self._halo)
            self._residual = self._residual[:, kept - self._residual_from :].clone()
            self._residual_from = kept

    def _read(self, start: int, stop: int) -> Tensor:
        """Return rows [start, stop) of the enlarged image, from those held."""
        found, top = [], self._held_from
        for part in self._held:
            bottom = top + part.shape[1]
            if bottom > start and top < stop:
                found.append(part[:, max(0, start - top) : stop - top])
            top = bottom
        return torch.cat(found, 1)

    def _forget(self, before: int) -> None:
        while self._held and self._held_from + self._held[0].shape[1] <= before:
            self._held_from += self._held.popleft().shape[1]
