"""Pixels of images and parts of images, decoded once and kept within a memory budget."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from realesr_cli.image.read import read_rgb8

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Region:
    """A rectangle of an image file, in its pixels."""

    path: Path
    top: int
    left: int
    height: int
    width: int


class RegionCache:
    """Decoded regions, the least recently used given up first; safe to use from several threads.

    What is kept decides only how long `get` takes, never what it returns.
    """

    def __init__(self, budget: int) -> None:
        """`budget` in bytes."""
        self.budget = budget
        self.decoded = 0
        """Files decoded so far."""
        self._kept: OrderedDict[Region, Pixels] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self._busy: dict[Region, threading.Lock] = {}

    def get(self, region: Region) -> Pixels:
        """Pixels (height, width, 3) of a region; the ImageError of a file that cannot be read."""
        with self._lock:
            found = self._take(region)
            if found is not None:
                return found
            busy = self._busy.setdefault(region, threading.Lock())
        # One thread decodes; others that want the same region wait for it.
        with busy:
            with self._lock:
                found = self._take(region)
                if found is not None:
                    return found
            whole = read_rgb8(region.path)
            bottom, right = region.top + region.height, region.left + region.width
            cut = whole[region.top : bottom, region.left : right]
            pixels = whole if cut.shape == whole.shape else cut.copy()
            with self._lock:
                self.decoded += 1
                self._keep(region, pixels)
                self._busy.pop(region, None)
            return pixels

    def _take(self, region: Region) -> Pixels | None:
        found = self._kept.get(region)
        if found is not None:
            self._kept.move_to_end(region)
        return found

    def _keep(self, region: Region, pixels: Pixels) -> None:
        if region in self._kept:
            return
        self._kept[region] = pixels
        self._size += pixels.nbytes
        while self._size > self.budget and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._size -= old.nbytes
