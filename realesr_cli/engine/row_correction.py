"""Back-projection of an image that is finished row by row: only rows not yet settled are held.

A corrected row depends on the enlarged image some (iterations x 4 or 5) pixels of the original to
each side. Tiles overlapping by that much would cost a network far more than the correction itself,
so tiles stay as they are, and the correction follows the sweep at that distance: it is the same as
on the whole image, wherever tiles lie.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from realesr_cli.ops.back_projection import AxisSteps, residual_sum

Rows = Callable[[Tensor], None]
"""Takes the next rows (C, n, W) of the enlarged image, from the first to the last."""

_PIECE = 256
"""Rows of the enlarged image worked on at a time."""

_REACH = 6
"""No iteration looks further than this, in pixels of the original, at any ratio above 1."""


def rows_held(iterations: int, ratio: float) -> int:
    """Most rows of the enlarged image that a `RowCorrection` keeps as floats, some to spare."""
    return int((1.5 * iterations * _REACH + 2 * _REACH) * ratio) + _PIECE


class RowCorrection:
    """Itself a taker of rows, which gives them on to another: corrected, in order, all of them."""

    def __init__(
        self,
        axes: tuple[AxisSteps, AxisSteps],
        iterations: int,
        original: Callable[[int, int], Tensor],
        give: Rows,
    ) -> None:
        """`axes`: across the rows that come, and along them. `original(start, stop)` are rows of
        the original, (C, stop - start, w) float32 in [0, 1]. `iterations` is at least 1.
        """
        self._axes, self._iterations = axes, iterations
        self._original, self._give = original, give
        rows = axes[0]
        self._size, self._out_size = rows.down.rows, rows.up.rows
        self._halo = (iterations - 1) * rows.reach
        # From which number of known rows on each row can be computed.
        self._measurable = rows.down.last.cummax(0).values
        self._correctable = rows.up.last.cummax(0).values
        self._held: deque[Tensor] = deque()
        self._held_from = self._known = self._given = 0
        self._residual = torch.empty(0)
        self._residual_from = self._measured = 0

    def __call__(self, rows: Tensor) -> None:
        """The next rows; after the last one all have been given on."""
        for piece in rows.split(_PIECE, 1):
            self._held.append(piece.clone())
            self._known += piece.shape[1]
            self._measure()
        self._settle()

    def _measure(self) -> None:
        """The residual of those rows of the original whose part of the image is complete."""
        rows, columns = self._axes
        start, stop = self._measured, int(torch.searchsorted(self._measurable, self._known + 1))
        if stop == start:
            return
        low, high = rows.down.needs(start, stop)
        small = rows.down.apply(self._piece(low, high), -2, window=(start, stop), origin=low)
        missing = self._original(start, stop) - columns.down.apply(small, -1)
        self._residual = torch.cat((self._residual, missing), 1) if start else missing
        self._measured = stop

    def _settle(self) -> None:
        """Correct and give on the rows that nothing to come can change.

        They are not needed any more for measuring either: enlarging and reducing reach as far.
        """
        whole = self._measured == self._size
        known = self._size if whole else self._measured - self._halo
        stop = int(torch.searchsorted(self._correctable, known + 1))
        # Every part has to be computed with its surroundings, so parts are not made too small.
        least = 1 if whole else self._halo * self._out_size // (2 * self._size)
        if stop - self._given < max(1, least):
            return
        rows, columns = self._axes
        first, last = rows.up.needs(self._given, stop)
        low = max(0, first - self._halo)
        high = min(self._measured, last + self._halo)
        residual = self._residual[:, low - self._residual_from : high - self._residual_from]
        total = residual_sum(
            residual, self._axes, self._iterations, origin=low, wanted=(first, last)
        )
        for top in range(self._given, stop, _PIECE):
            window = (top, min(top + _PIECE, stop))
            change = rows.up.apply(total, -2, window=window, origin=first)
            self._give(columns.up.apply(change, -1).add_(self._piece(*window)))
            self._forget(window[1])
        self._given = stop
        if stop < self._out_size:
            kept = max(0, int(rows.up.first[stop:].min()) - self._halo)
            self._residual = self._residual[:, kept - self._residual_from :].clone()
            self._residual_from = kept

    def _piece(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of the enlarged image, from those held."""
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
