"""Batches of coming steps, prepared in a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Calls `make` for each key in order, `ahead` of whoever takes the results.

    What is made depends on the key alone, so working ahead changes nothing but the wait. An
    exception of `make` is raised where its result would have been taken. Use as a context manager.
    """

    def __init__(self, make: Callable[[int, int], T], keys: Iterator[tuple[int, int]], ahead: int):
        self._make = make
        self._keys = keys
        self._ahead = ahead
        self._results: queue.Queue[tuple[tuple[int, int], T | BaseException]] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)

    def __enter__(self) -> Prefetcher[T]:
        if self._ahead:
            self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._stop.set()
        if self._ahead:
            self._thread.join()

    def take(self, step: int, stream: int) -> T:
        """The result of a key, which must be the next one in order."""
        if not self._ahead:
            return self._make(step, stream)
        key, result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        if key != (step, stream):
            raise RuntimeError(f"prepared {key}, asked for {(step, stream)}")
        return result

    def _work(self) -> None:
        for key in self._keys:
            try:
                result: T | BaseException = self._make(*key)
            except BaseException as error:
                # Raised again in the thread that asks for it.
                result = error
            while not self._stop.is_set():
                try:
                    self._results.put((key, result), timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._stop.is_set() or isinstance(result, BaseException):
                return


def step_keys(first: int, last: int, streams: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(step, stream) for every step from first up to last, streams in order within a step."""
    return ((step, stream) for step in range(first, last) for stream in streams)
