"""Blocks of a tile, and memory that forward passes on the CPU use again and again."""

from __future__ import annotations

import functools
import itertools
import math
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from realesr_cli.engine.tiling import split_evenly

FEWEST_BLOCKS = 4
"""Blocks that even a small tile is cut into, as far as SMALLEST_SIDE allows, to occupy cores."""

SMALLEST_SIDE = 48
"""Below this, what blocks read of each other costs more than it brings."""


@dataclass(frozen=True)
class Window:
    """What a convolution chain reads to compute a block.

    A dimension that reaches the border of the tile is padded by every convolution (`padding` 1), as
    the tile is; in another one each convolution loses a row at both ends. Where only one end is at
    the border, the rows computed from wrong zeros at the other end are not those of the block.
    """

    index: tuple[slice, slice, slice, slice]
    padding: list[int]
    origin: tuple[int, int]
    """Row and column of the block in the result of the whole chain."""


@dataclass(frozen=True)
class Block:
    """A rectangle of one image of a batch."""

    image: int
    top: int
    bottom: int
    left: int
    right: int

    @property
    def index(self) -> tuple[slice, slice, slice, slice]:
        """The index of the block in (B, C, h, w)."""
        return self.scaled(1)

    def scaled(self, factor: int) -> tuple[slice, slice, slice, slice]:
        """Return the index of what the block becomes in an enlarged (B, C, h, w)."""
        rows = slice(self.top * factor, self.bottom * factor)
        columns = slice(self.left * factor, self.right * factor)
        return slice(self.image, self.image + 1), slice(None), rows, columns

    def grow(self, margin: int, size: Sequence[int]) -> Block:
        """Return the block with up to `margin` pixels around it, within a tile of `size`."""
        return Block(
            self.image,
            max(0, self.top - margin),
            min(size[0], self.bottom + margin),
            max(0, self.left - margin),
            min(size[1], self.right + margin),
        )

    def split(self, side: int) -> Iterator[Block]:
        """Yield the block in pieces of at most `side`."""
        ys = split_evenly(self.bottom - self.top, side)
        xs = split_evenly(self.right - self.left, side)
        for top, bottom in itertools.pairwise(self.top + y for y in ys):
            for left, right in itertools.pairwise(self.left + x for x in xs):
                yield Block(self.image, top, bottom, left, right)

    def crop(self, y: Tensor, window: Window) -> Tensor:
        """Return the block in the result of a chain of convolutions of `window`."""
        top, left = window.origin
        return y[:, :, top : top + self.bottom - self.top, left : left + self.right - self.left]

    def widen(self, halo: int, size: Sequence[int]) -> Window:
        """Return the block with `halo` pixels around it, within a tile of `size`."""
        padding, origin, parts = [], [], []
        for low, high, length in (
            (self.top, self.bottom, size[0]),
            (self.left, self.right, size[1]),
        ):
            start, stop = max(0, low - halo), min(length, high + halo)
            at_border = low < halo or high + halo > length
            padding.append(int(at_border))
            origin.append(low - start if at_border else 0)
            parts.append(slice(start, stop))
        index = slice(self.image, self.image + 1), slice(None), parts[0], parts[1]
        return Window(index, padding, (origin[0], origin[1]))


@functools.lru_cache(maxsize=32)
def cut(images: int, height: int, width: int, side: int) -> tuple[list[Block], list[list[int]]]:
    """Cut a batch into blocks of about `side`, and list the neighbors of each, itself included.

    The blocks depend on the size alone, so the result is the same for any number of workers.
    """
    wanted = math.isqrt(height * width // FEWEST_BLOCKS)
    side = max(SMALLEST_SIDE, min(side, wanted))
    ys, xs = split_evenly(height, side), split_evenly(width, side)
    rows, columns = len(ys) - 1, len(xs) - 1
    blocks, neighbors = [], []
    for image in range(images):
        for i in range(rows):
            for j in range(columns):
                blocks.append(Block(image, ys[i], ys[i + 1], xs[j], xs[j + 1]))
                neighbors.append(
                    [
                        (image * rows + k) * columns + m
                        for k in range(max(0, i - 1), min(rows, i + 2))
                        for m in range(max(0, j - 1), min(columns, j + 2))
                    ]
                )
    return blocks, neighbors


class Scratch:
    """Memory for forward passes of one network. Safe to use from several threads.

    Fresh memory costs as much as a convolution, since the system hands it out page by page, so what
    one pass has used is kept for the next.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[Arena] = []
        self._results: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []

    @contextmanager
    def borrow(self) -> Iterator[Arena]:
        """Lend memory for one pass."""
        with self._lock:
            arena = self._free.pop() if self._free else Arena()
        try:
            yield arena
        finally:
            with self._lock:
                self._free.append(arena)

    def take_result(self, *shape: int) -> Tensor:
        """Return an uninitialized float32 tensor that comes back here when nobody uses it."""
        count = math.prod(shape)
        with self._lock:
            fitting = [m for m in self._results if count <= m.size <= 2 * count]
            self._results.clear()
        memory = fitting[0] if fitting else np.empty(count, np.float32)
        view = memory[:count]
        weakref.finalize(view, self._results.append, memory).atexit = False
        return torch.from_numpy(view).view(shape)


class Arena:
    """The feature maps of one pass at a time, by name."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}
        # glibc takes memory from the system, and returns it, block by block for blocks of more than
        # a threshold, which rises to the size of the largest such block that was freed (at most 32
        # MiB). The results of convolutions lie between its first value and this.
        torch.empty(31 * 2**20, dtype=torch.uint8)

    def take(self, name: str, shape: torch.Size | tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an uninitialized (B, C, h, w), channels-last; the same memory for a name."""
        count = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.numel() < count:
            kept = self._kept[name] = torch.empty(count, dtype=dtype)
        batch, channels, height, width = shape
        return kept[:count].view(batch, height, width, channels).permute(0, 3, 1, 2)
