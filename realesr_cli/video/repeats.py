"""Work that need not be done twice: repeated frames, and tiles that have not changed."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import numpy as np
from torch import Tensor

from realesr_cli.engine.forward import Forward
from realesr_cli.video.frames import Array, Frame

HIGH, LOW, FRACTION = 64 * 12, 64 * 5, 0.33
"""A frame is new where one 8x8 block differs by more than HIGH (sum of absolute differences in
8-bit levels), or more than FRACTION of all blocks by more than LOW: the thresholds of FFmpeg's
mpdecimate, which noise of compression stays below and a moving mouth does not."""


def is_near(old: tuple[Array, ...], new: tuple[Array, ...]) -> bool:
    """Return whether two frames, as planes of 8-bit levels, differ by noise only."""
    return all(_is_near_plane(a, b) for a, b in zip(old, new, strict=True))


def _is_near_plane(old: Array, new: Array) -> bool:
    difference = np.abs(old.astype(np.int16) - new).astype(np.int32)
    height, width = difference.shape
    # Zeros at the border, so that no pixel is outside all blocks.
    padded = np.pad(difference, ((0, 4 + -height % 4), (0, 4 + -width % 4)))
    small = padded.reshape(padded.shape[0] // 4, 4, padded.shape[1] // 4, 4).sum(axis=(1, 3))
    blocks = small[:-1, :-1] + small[1:, :-1] + small[:-1, 1:] + small[1:, 1:]
    return bool(blocks.max() <= HIGH and np.mean(blocks > LOW) <= FRACTION)


_MOST_SEEN = 4096
"""Inputs that are remembered by their hash alone."""


class RepeatFinder:
    """Compares each frame with the last one that was not a repeat, so that nothing drifts."""

    def __init__(self, mode: str) -> None:
        """Take `off`, `exact` or `near`, which includes exact."""
        self._mode = mode
        self._kept: Frame | None = None

    def is_repeat(self, frame: Frame) -> bool:
        """Return whether the frame repeats the kept one; if not it is the kept one from now on."""
        kept = self._kept
        if kept is not None and self._mode != "off" and self._matches(kept, frame):
            return True
        self._kept = frame
        return False

    def _matches(self, kept: Frame, frame: Frame) -> bool:
        alpha = kept.alpha is frame.alpha or np.array_equal(_or_empty(kept), _or_empty(frame))
        if alpha and np.array_equal(kept.pixels, frame.pixels):
            return True
        return alpha and self._mode == "near" and is_near(kept.planes, frame.planes)


def _or_empty(frame: Frame) -> Array:
    return np.empty(0) if frame.alpha is None else frame.alpha


class TileCache:
    """Results of a network by the hash of what it saw; bit-identical to running it again.

    Tiles that are computed together are looked up together: a batch of another size might be
    computed by another algorithm, in other rounding. A result is stored when its input comes for
    the second time, so that a film without still parts costs a hash per tile and no copy.
    """

    def __init__(self, limit: int) -> None:
        """Hold results of at most `limit` bytes, the most recently used."""
        self._limit = limit
        self._held = 0
        self._results: OrderedDict[Any, Tensor] = OrderedDict()
        self._seen: OrderedDict[Any, None] = OrderedDict()
        self.hits = self.lookups = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the results held now."""
        return self._held

    def wrap(self, forward: Forward) -> Forward:
        """Return `forward` with the cache before it."""
        return lambda x: self._run(forward, x)

    def _run(self, forward: Forward, x: Tensor) -> Tensor:
        seen = x.detach().cpu().contiguous().numpy()
        key = (seen.shape, hashlib.sha256(seen.data).digest())
        self.lookups += 1
        found = self._results.get(key)
        if found is not None:
            self.hits += 1
            self._results.move_to_end(key)
            return found.clone()  # The caller works in place.
        y = forward(x)
        size = y.numel() * y.element_size()
        if key not in self._seen:
            self._seen[key] = None
            if len(self._seen) > _MOST_SEEN:
                self._seen.popitem(last=False)
        elif size <= self._limit:
            while self._held + size > self._limit:
                _, oldest = self._results.popitem(last=False)
                self._held -= oldest.numel() * oldest.element_size()
            self._results[key] = y.clone()
            self._held += size
        return y
