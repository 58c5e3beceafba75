"""Deflate in parallel: blocks that are compressed by themselves, in threads, and then joined.

Source: RFC 1950 (zlib) and RFC 1951 (deflate). The filtered rows of a photo repeat hardly anywhere:
Huffman codes alone make about the same size of them as a search for repetitions, ten times as fast.
So a sample of every block decides what is worth while.
"""

from __future__ import annotations

import functools
import importlib
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

BLOCK_BYTES = 2**22
"""Bytes that one thread compresses at a time."""

_SAMPLE_BYTES = 2**16
_TOLERANCE = 1.02
"""How much larger than by a search for repetitions a sample may become without one."""

_SMALLEST = 7
"""From this level on, size counts more than time."""

_ADLER_BASE = 65_521


@functools.cache
def _library() -> Any:
    """Return zlib-ng where it is installed, which makes Huffman codes twice as fast, else zlib."""
    try:
        return importlib.import_module("zlib_ng.zlib_ng")
    except ImportError:
        return zlib


def choose_strategy(data: memoryview, level: int) -> tuple[int, int]:
    """Return the fastest (level, strategy) of zlib whose result is about as small as of `level`.

    For a level from 7 on that is nothing larger, below up to 2 % larger.
    """
    plain = level, zlib.Z_DEFAULT_STRATEGY
    if level == 0:
        return plain
    middle = max(0, len(data) - _SAMPLE_BYTES) // 2
    sample = data[middle : middle + _SAMPLE_BYTES]
    allowed = len(deflate(sample, plain)) * (1 if level >= _SMALLEST else _TOLERANCE)
    faster = [(level, zlib.Z_HUFFMAN_ONLY), (level, zlib.Z_RLE)]
    if 1 < level < _SMALLEST:
        faster.append((level - 1, zlib.Z_DEFAULT_STRATEGY))
    return next((way for way in faster if len(deflate(sample, way)) <= allowed), plain)


def deflate(data: memoryview, way: tuple[int, int], *, last: bool = True) -> bytes:
    """Return a block of a raw deflate stream, which refers to no other block."""
    level, strategy = way
    # Repetitions zlib finds better: of drawings zlib-ng makes up to half as much again.
    library = zlib if strategy == zlib.Z_DEFAULT_STRATEGY else _library()
    encoder = library.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    packed = encoder.compress(data)
    return bytes(packed + encoder.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH))


def wrap(raw: bytes, checksum: int) -> bytes:
    """Return a zlib stream of a raw deflate stream."""
    return b"\x78\x9c" + raw + checksum.to_bytes(4, "big")


def adler32(data: memoryview) -> int:
    """Return the checksum of a zlib stream."""
    return int(_library().adler32(data))


def join_adler32(first: int, second: int, size: int) -> int:
    """Return the checksum of two parts together, of which the second has `size` bytes."""
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + size % _ADLER_BASE * ((first & 0xFFFF) - 1)
    return (high % _ADLER_BASE << 16) | low % _ADLER_BASE


def map_ordered(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield `work(item)` of each item in order, computed in as many threads as there are cores.

    Items are taken a few ahead of the results, so memory stays bounded.
    """
    threads = (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) or (
        os.cpu_count() or 1
    )
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            del item
            while len(pending) > threads + 1 or (pending and pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
