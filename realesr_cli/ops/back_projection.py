"""Iterative back-projection: make an enlarged image match its original when reduced again.

Both published variants are linear in what is still missing, so the whole iteration can be carried
out at the size of the original. With D the bicubic reduction, U the bicubic enlargement and P a
filter, an iteration is H <- H + P U (L - D H). Its residual obeys E <- E - (D P U) E, hence after n
of them H = H0 + P U (E0 + E1 + ... + E(n-1)). All four are products of one matrix per axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from realesr_cli.errors import ConfigError
from realesr_cli.ops.banded import Banded, zero_padded_filter
from realesr_cli.ops.filters import gaussian_taps
from realesr_cli.ops.resize import resample_band
from realesr_cli.text import did_you_mean

KERNELS = ("gaussian", "reverse")
"""The variants: each correction is filtered by a squared Gaussian, or enlarged only."""


@dataclass(frozen=True)
class AxisSteps:
    """The matrices of back-projection along one axis."""

    down: Banded
    """D: enlarged to original."""
    up: Banded
    """P U: original to enlarged, filtered."""
    step: Banded
    """D P U: what one iteration removes from the residual."""

    @property
    def reach(self) -> int:
        """Pixels of the original to each side that one iteration reads."""
        index = torch.arange(self.step.rows)
        return int(max((index - self.step.first).max(), (self.step.last - 1 - index).max()))


def make_axis_steps(size: int, out_size: int, kernel: str) -> AxisSteps:
    """Build the matrices for an axis of `size` pixels enlarged to `out_size`.

    Raises ConfigError for an unknown kernel, and where out_size does not exceed size.
    """
    if kernel not in KERNELS:
        raise ConfigError(
            f"unknown back-projection kernel {kernel!r}: expected {' or '.join(KERNELS)}"
            f"{did_you_mean(kernel, KERNELS)}"
        )
    if out_size <= size:
        raise ConfigError(
            f"cannot back-project from {size} to {out_size} pixels: expected a larger size"
        )
    down, up = resample_band(out_size, size), resample_band(size, out_size)
    if kernel == "gaussian":
        # The square of the 5x5 Gaussian of deviation 1 is separable as the Gaussian itself is.
        taps = gaussian_taps(5, 1.0).square()
        up = zero_padded_filter(taps / taps.sum(), out_size) @ up
    return AxisSteps(down, up, down @ up)


def sum_residuals(
    residual: Tensor,
    axes: tuple[AxisSteps, AxisSteps],
    iterations: int,
    *,
    origin: int = 0,
    wanted: tuple[int, int] | None = None,
) -> Tensor:
    """Compute E0 + ... + E(iterations - 1) for rows `wanted` (None: all) of the original's size.

    `residual` (..., h, w) is E0 from row `origin` on; `axes` are those of rows and columns. It must
    reach (iterations - 1) * axes[0].reach rows beyond `wanted`, or to the image's border.
    """
    rows, columns = axes
    low, high = origin, origin + residual.shape[-2]
    start, stop = wanted or (low, high)
    reach, size = rows.reach, rows.step.rows
    total = residual[..., start - low : stop - low, :].clone()
    for _ in range(iterations - 1):
        # Rows within `reach` of a cut depend on rows beyond it, so they are unknown after this
        # iteration. Borders of the image are no cuts: nothing lies beyond.
        window = (low + reach if low else 0, high - reach if high < size else size)
        taken = rows.step.apply(residual, -2, window=window, origin=low)
        kept = residual[..., window[0] - low : window[1] - low, :]
        residual = kept - columns.step.apply(taken, -1)
        low, high = window
        total += residual[..., start - low : stop - low, :]
    return total


def back_project(
    enlarged: Tensor, original: Tensor, *, iterations: int, kernel: str = "gaussian"
) -> Tensor:
    """Correct `enlarged` (B, C, H, W) toward an image whose bicubic reduction is `original`.

    `original` is (B, C, h, w) with h < H and w < W, any ratio; both have one floating dtype, in
    which sums are computed, and lie in [0, 1]. The result is not clamped; 0 iterations change
    nothing. All resizing is MATLAB's bicubic. The residual, original minus reduction, shrinks with
    every iteration, for both kernels and any image: the spectral norm of I - D P U is below 1 (at
    x4 0.83 for gaussian, 0.76 for reverse). Clamping and rounding the result end that.

    kernel:
        gaussian: P is the 5x5 Gaussian of deviation 1, squared and made to sum to 1 (zeros beyond
            the border); Irani and Peleg, "Improving resolution by image registration" (1991).
        reverse: no P; the same as H <- H + (U L - U D H), a "reverse filter": Tao et al.,
            "Zero-order reverse filtering" (2017).

    Raises ConfigError for an unknown kernel, negative iterations, and sizes that are not larger.
    """
    if iterations < 0:
        raise ConfigError(f"iterations = {iterations}: must be at least 0")
    sizes = zip(original.shape[-2:], enlarged.shape[-2:], strict=True)
    rows, columns = (make_axis_steps(size, out_size, kernel) for size, out_size in sizes)
    if iterations == 0:
        return enlarged.clone()
    missing = original - columns.down.apply(rows.down.apply(enlarged, -2), -1)
    total = sum_residuals(missing, (rows, columns), iterations)
    return enlarged + columns.up.apply(rows.up.apply(total, -2), -1)
