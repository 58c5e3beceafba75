"""The largest batch and patch that fit in memory, found by trying."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from realesr_cli.engine.guard import is_out_of_memory

SMALLEST_PATCH = 16
"""Low-quality pixels below which a patch is not halved."""


@dataclass(frozen=True)
class Fit:
    """What fits: samples per pass, passes per step, side of the patch in low-quality pixels."""

    batch: int
    accumulate: int
    patch: int

    @property
    def settings(self) -> str:
        """As options of the command line."""
        return (
            f"--batch-size {self.batch} --set data.accumulate={self.accumulate} "
            f"--set data.patch={self.patch}"
        )


Trial = Callable[[int, int], object]
"""Runs one whole step with that batch and patch; an out-of-memory error is its answer."""


def fits(trial: Trial, batch: int, patch: int) -> bool:
    """Whether one step with this batch and patch has the memory it needs."""
    try:
        trial(batch, patch)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def largest_fit(trial: Trial, *, batch: int, accumulate: int, patches: Sequence[int]) -> Fit | None:
    """The largest divisor of the batch that fits, the rest made up by accumulation.

    Where not even one sample of the first patch fits, the next patches are tried. None where
    nothing fits.
    """
    for patch in patches:
        for size in sorted((n for n in range(1, batch + 1) if batch % n == 0), reverse=True):
            if fits(trial, size, patch):
                return Fit(size, accumulate * batch // size, patch)
    return None


def smaller_patches(patch: int) -> tuple[int, ...]:
    """The patch and its halves down to the smallest, each but the first a multiple of 8."""
    found = [patch]
    while found[-1] // 16 * 8 >= SMALLEST_PATCH:
        found.append(found[-1] // 16 * 8)
    return tuple(found)
