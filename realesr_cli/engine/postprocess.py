"""What happens to a tile between the network and the finished image; tensors of one window."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from realesr_cli.engine.tiling import Taps
from realesr_cli.ops.filters import gaussian_blur

COLOR_SIGMA = 5.0
"""Standard deviation, in input pixels, of what --color-fix takes for large-scale color."""

COLOR_RADIUS = 15
"""Where its Gaussian is cut off: three standard deviations."""

_BLOCK = 64


def resample(x: Tensor, rows: Taps | None, columns: Taps | None, origin: tuple[int, int]) -> Tensor:
    """Apply pieces of two resampling matrices to a window (B, C, h, w).

    `origin` is the window's place (row, column) on the grid that the taps refer to. None keeps an
    axis. The window must hold all pixels that the taps use.
    """
    if rows is not None:
        x = _along_rows(x, rows, origin[0])
    if columns is not None:
        x = _along_rows(x.transpose(2, 3), columns, origin[1]).transpose(2, 3)
    return x


def _along_rows(x: Tensor, taps: Taps, origin: int) -> Tensor:
    """Banded matrix times window, in blocks of rows: small dense products, few wasted zeros."""
    count, width = taps.weights.shape
    parts = []
    for top in range(0, count, _BLOCK):
        first = taps.first[top : top + _BLOCK]
        start = int(first.min())
        dense = np.zeros((len(first), int(first.max()) - start + width), np.float32)
        places = (first - start)[:, None] + np.arange(width)
        np.put_along_axis(dense, places, taps.weights[top : top + _BLOCK], axis=1)
        low = start - origin
        window = x[:, :, low : low + dense.shape[1]]
        parts.append(torch.einsum("oh,bchw->bcow", torch.from_numpy(dense).to(x), window))
    return torch.cat(parts, 2)


def color_fix(y: Tensor, x: Tensor) -> Tensor:
    """`y` with its low frequencies replaced by those of `x`.

    `y`: (B, 3, h * s, w * s), the network's result for `x`: (B, 3, h, w). Both are compared at
    input size, the difference is smoothed (Gaussian, COLOR_SIGMA) and added back.
    """
    scale = y.shape[2] // x.shape[2]
    size = 2 * COLOR_RADIUS + 1
    difference = gaussian_blur(x - F.avg_pool2d(y, scale), size=size, sigma=COLOR_SIGMA)
    return y + F.interpolate(difference, size=y.shape[2:], mode="bilinear", align_corners=False)


def support(size: int, out_size: int) -> int:
    """Input pixels to each side that antialiased cubic resampling uses."""
    return math.ceil(2 * max(1.0, size / out_size)) + 1
