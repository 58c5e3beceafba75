"""Banded matrices: composed with each other, and applied to the axes of images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Rows multiplied at a time, as a small dense matrix: enough for a matrix product to pay, few enough
# to skip most of the zeros.
_BLOCK = 64


@dataclass(frozen=True, eq=False)
class Banded:
    """A (rows, columns) matrix whose rows are zero but for a few neighbors.

    Row i holds weights[i, j] at column first[i] + j.

    `first` and `last` are (rows,) int64, `weights` (rows, width) float64; from column last[i] on
    row i is zero, and its weights may reach beyond the matrix there.
    """

    first: Tensor
    last: Tensor
    weights: Tensor
    columns: int

    @property
    def rows(self) -> int:
        """The number of rows: the length of an axis after the matrix is applied."""
        return self.first.shape[0]

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the columns [low, high) that rows [start, stop), at least one, use."""
        return int(self.first[start:stop].min()), int(self.last[start:stop].max())

    def __matmul__(self, other: Banded) -> Banded:
        """Return the matrix that applies `other` first and this one then."""
        taps, width = self.weights.shape[1], other.weights.shape[1]
        rows = (self.first.view(-1, 1) + torch.arange(taps)).clamp(max=other.rows - 1)
        starts = other.first[rows]
        first = starts.amin(1)
        span = int((starts.amax(1) - first).max()) + width
        weights = torch.zeros(self.rows, span, dtype=torch.float64)
        for tap in range(taps):
            offset = (starts[:, tap] - first).view(-1, 1) + torch.arange(width)
            part = self.weights[:, tap].view(-1, 1) * other.weights[rows[:, tap]]
            weights.scatter_add_(1, offset, part)
        return make_banded(first.view(-1, 1) + torch.arange(span), weights, other.columns)

    def apply(
        self, x: Tensor, axis: int, *, window: tuple[int, int] | None = None, origin: int = 0
    ) -> Tensor:
        """Multiply one axis (-2 or -1) of `x` (..., H, W) by the matrix.

        Only the rows of `window` are computed (None: all); the axis of `x` begins at column
        `origin` of the matrix and must hold all columns of `needs(*window)`. Sums are computed in
        the dtype of `x`.
        """
        start, stop = window or (0, self.rows)
        width = self.weights.shape[1]
        parts = []
        for top in range(start, stop, _BLOCK):
            bottom = min(top + _BLOCK, stop)
            low, high = self.needs(top, bottom)
            dense = torch.zeros(bottom - top, high - low + width, dtype=torch.float64)
            offset = (self.first[top:bottom] - low).view(-1, 1) + torch.arange(width)
            dense.scatter_(1, offset, self.weights[top:bottom])
            block = dense[:, : high - low].to(x)
            piece = x.narrow(axis, low - origin, high - low)
            parts.append(block @ piece if axis == -2 else piece @ block.t())
        return torch.cat(parts, axis)


def make_banded(index: Tensor, weights: Tensor, columns: int) -> Banded:
    """Build a matrix whose row i has weights[i, j] at column index[i, j]; repeats are added.

    Both are (rows, taps), `index` int64 and `weights` float64; columns outside the matrix are
    allowed where the weight is zero. No row may be all zeros.
    """
    counts = weights != 0
    first = torch.where(counts, index, columns).amin(1)
    last = torch.where(counts, index, -1).amax(1) + 1
    width = int((last - first).max())
    offset = torch.where(counts, index - first.view(-1, 1), 0)
    places = torch.zeros(index.shape[0], width, dtype=torch.float64)
    return Banded(first, last, places.scatter_add_(1, offset, weights), columns)


def zero_padded_filter(taps: Tensor, size: int) -> Banded:
    """Return a symmetric filter (odd number of `taps`) on an axis of `size`, zeros beyond it."""
    reach = taps.numel() // 2
    index = torch.arange(size).view(-1, 1) + torch.arange(-reach, reach + 1)
    inside = (index >= 0) & (index < size)
    return make_banded(index, inside * taps.to(torch.float64), size)
