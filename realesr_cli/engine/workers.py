"""Threads that compute on the CPU side by side, each alone, without touching the host's threads.

torch splits every operation over OpenMP's threads and waits for all of them; when one of them loses
its core to another program, all wait. Workers each take whole pieces of work instead, with OpenMP
limited to one thread in them, so on a busy machine they lose their fair share and no more.
"""

from __future__ import annotations

import functools
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")

Stage = Callable[[int], object]
"""Computes block i of one stage."""

_here = threading.local()
_pools: dict[tuple[int, int], Workers] = {}
_idle: dict[int, list[Workers]] = {}
"""Threads of `call_steadily` without work, by process."""
_lock = threading.Lock()


def get_workers(count: int) -> Workers:
    """Return the process's workers of this number, started on first use, and again after a fork."""
    with _lock:
        key = os.getpid(), count
        if key not in _pools:
            _pools[key] = Workers(count)
        return _pools[key]


def call_steadily(function: Callable[[], B]) -> B:
    """Call a function in a thread that uses one OpenMP thread, and return its result.

    What the function gives to workers they share, unlike what a worker itself does.
    """
    if getattr(_here, "is_single", False):
        return function()
    with _lock:
        key = os.getpid()
        idle = _idle.setdefault(key, [])
        thread = idle.pop() if idle else Workers(1, shares=True)
    result = thread.submit(function)
    _wait(result)  # Interrupted here, the thread is given up: it is still busy.
    idle.append(thread)
    return result.result()


def _wait(future: Future[B]) -> None:
    """Wait for a result; in steps, since on Windows a single wait cannot be interrupted."""
    while not wait([future], 1).done:
        pass


class Workers:
    """A number of threads that take work from one queue. Safe to use from several threads."""

    def __init__(self, count: int, *, shares: bool = False) -> None:
        """Start the threads; with `shares` they are not workers to `run`, which uses others."""
        self.count = count
        self._shares = shares
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        for i in range(count):
            name = f"realesr-{'caller' if shares else 'worker'}-{i}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        from threadpoolctl import threadpool_limits

        _here.is_single, _here.is_worker = True, not self._shares
        # The first call makes torch apply its own number to this thread, which would undo ours.
        torch.get_num_threads()
        threadpool_limits(1, user_api="openmp")
        with torch.inference_mode():
            while True:
                self._queue.get()()

    def run(self, stages: Sequence[Stage], neighbors: Sequence[Sequence[int]]) -> None:
        """Compute all blocks of all stages; return when all are done.

        Block i of a stage is computed after the blocks `neighbors[i]` of the stage before it, which
        is what it reads, and they of the same stage must not read what it overwrites. There is no
        waiting for a whole stage. Raises the first exception of a stage. Called from a worker, it
        computes everything there.
        """
        if getattr(_here, "is_worker", False):
            for stage in stages:
                for i in range(len(neighbors)):
                    stage(i)
            return
        run = _Run(self._queue, stages, neighbors)
        for i in range(len(neighbors)):
            self._queue.put(functools.partial(run.step, 0, i))
        run.wait()

    def each(self, function: Callable[[A], object], items: Iterable[A]) -> None:
        """Call `function` for all items, in no order."""
        found = list(items)
        if found:
            self.run([lambda i: function(found[i])], [()] * len(found))

    def map(self, function: Callable[[A], B], items: Iterable[A], ahead: int) -> Iterator[B]:
        """Yield the results in order, with at most `ahead` items being computed or waiting."""
        pending: deque[Future[B]] = deque()
        try:
            for item in items:
                if len(pending) == ahead:
                    _wait(pending[0])
                    yield pending.popleft().result()
                pending.append(self.submit(functools.partial(function, item)))
            while pending:
                _wait(pending[0])
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def wrap(self, function: Callable[[A], B]) -> Callable[[A], B]:
        """Return the function as one that always runs in a worker."""

        def call(item: A) -> B:
            if getattr(_here, "is_worker", False):
                return function(item)
            return next(self.map(function, [item], 1))

        return call

    def submit(self, function: Callable[[], B]) -> Future[B]:
        """Queue a call."""
        future: Future[B] = Future()

        def call() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)

        self._queue.put(call)
        return future


class _Run:
    """What is left of one call of `Workers.run`."""

    def __init__(
        self,
        work: queue.SimpleQueue[Callable[[], None]],
        stages: Sequence[Stage],
        neighbors: Sequence[Sequence[int]],
    ) -> None:
        self._queue, self._stages, self._neighbors = work, stages, neighbors
        self._missing = [[len(found) for found in neighbors] for _ in stages]
        self._left = len(stages) * len(neighbors)
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._error: BaseException | None = None

    def step(self, stage: int, block: int) -> None:
        """Compute a block, and hand out those that waited for it."""
        if self._error is None:
            try:
                self._stages[stage](block)
            except BaseException as error:
                self._error = error
        ready = []
        with self._lock:
            self._left -= 1
            if stage + 1 < len(self._stages):
                for other in self._neighbors[block]:
                    self._missing[stage + 1][other] -= 1
                    if not self._missing[stage + 1][other]:
                        ready.append(other)
        for other in ready:
            self._queue.put(functools.partial(self.step, stage + 1, other))
        if not self._left:
            self._finished.set()

    def wait(self) -> None:
        """Return when all blocks are done; an interruption skips those that are not begun."""
        try:
            while not self._finished.wait(1):
                pass
        except BaseException as error:
            self._error = self._error or error
            self._finished.wait()
            raise
        if self._error is not None:
            raise self._error
