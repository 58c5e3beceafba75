"""Finished rows and images on their way to the thread that writes them, within bounds of memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from realesr_cli.errors import CancelledError
from realesr_cli.image.types import Band

POLL_SECONDS = 0.05


class Gate:
    """Lets finished images wait up to a number of bytes; one always fits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._change = threading.Condition()

    def enter(self, cost: int, stopped: Callable[[], bool]) -> None:
        with self._change:
            while self._held and self._held + cost > self._limit and not stopped():
                self._change.wait(POLL_SECONDS)
            self._held += cost

    def leave(self, cost: int) -> None:
        with self._change:
            self._held -= cost
            self._change.notify_all()


class Bands:
    """The rows of one result on their way from the thread that computes them to that which writes.

    They wait in memory up to what the gate lets in, so that neither waits for the other.
    """

    def __init__(self, source: Iterator[Band], gate: Gate, stopped: Callable[[], bool]) -> None:
        self._source, self._gate, self._stopped = source, gate, stopped
        self._queue: queue.SimpleQueue[Band | Exception | None] = queue.SimpleQueue()
        self._unwanted = threading.Event()
        self._received = False

    def send(self) -> None:
        """Compute all rows, or as many as are wanted; an error is raised by `receive`."""
        try:
            for band in self._source:
                self._gate.enter(_count_bytes(band), self._ended)
                self._queue.put(band)
                if self._ended():
                    raise CancelledError("cancelled")
        except Exception as error:
            self._queue.put(error)
        except BaseException:
            self._queue.put(CancelledError("cancelled"))
            raise
        else:
            self._queue.put(None)

    def receive(self) -> Iterator[Band]:
        """Yield the rows."""
        while True:
            found = self._queue.get()
            self._received = not isinstance(found, tuple)
            if found is None:
                return
            if isinstance(found, Exception):
                raise found
            self._gate.leave(_count_bytes(found))
            yield found

    def discard(self) -> None:
        """Tell the sender to stop, and let go of what waits."""
        self._unwanted.set()
        while not self._received and isinstance(found := self._queue.get(), tuple):
            self._gate.leave(_count_bytes(found))

    def _ended(self) -> bool:
        return self._unwanted.is_set() or self._stopped()


def _count_bytes(band: Band) -> int:
    pixels, alpha = band
    return int(pixels.nbytes) + (0 if alpha is None else int(alpha.nbytes))
