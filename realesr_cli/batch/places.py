"""Where tasks are made: in this process, in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import re
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from realesr_cli.batch.jobs import Record
from realesr_cli.batch.pool import SLOTS, Done, Member, WorkerPool, WorkerSpec
from realesr_cli.batch.worker import Task
from realesr_cli.engine.policy import machine_info
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.errors import ConfigError, RealesrError
from realesr_cli.progress import StopRequested, never


def parse_place(text: str) -> tuple[str, str]:
    """Read where to run: ("local", "N") or ("ray", address). Raises ConfigError."""
    if (match := re.fullmatch(r"local:(\d{1,4})", text)) and int(match[1]):
        return "local", match[1]
    if text == "ray" or re.fullmatch(r"ray://[^/\s]+:\d+", text):
        return "ray", text.partition("://")[2]
    raise ConfigError(f"on {text!r}: expected local:N, ray or ray://HOST:PORT")


def open_pool(
    on: str | None, spec: WorkerSpec, stop_requested: StopRequested = never
) -> WorkerPool:
    """Return the workers of a place: this process, processes of this machine, or a cluster."""
    if on is None:
        return ThreadPool(spec, stop_requested)
    kind, value = parse_place(on)
    if kind == "local":
        return ProcessPool(spec, split_machine(spec.engine, int(value)))
    from realesr_cli.batch.ray_pool import RayPool

    return RayPool(spec, value)


def split_machine(engine: EngineSettings, count: int) -> list[EngineSettings]:
    """Return settings for `count` processes: its GPUs in turn, or as many threads for each."""
    machine = machine_info()
    memory = engine.memory or max(1, machine.memory_available // count)
    engine = replace(engine, memory=memory)
    gpus = [g.device for g in machine.gpus if engine.device in ("auto", g.device.partition(":")[0])]
    if gpus:
        return [replace(engine, device=gpus[i % len(gpus)]) for i in range(count)]
    threads = engine.threads or max(1, machine.cores // count)
    return [replace(engine, threads=threads)] * count


class ThreadPool(WorkerPool):
    """One worker, in this process: its reading and writing overlap with upscaling."""

    slots = 4

    def __init__(self, spec: WorkerSpec, stop_requested: StopRequested = never) -> None:
        super().__init__(1)
        self._worker, self._policy = spec.build()
        self._stop, self._closed = stop_requested, threading.Event()
        self._threads = ThreadPoolExecutor(self.slots)
        self._news: queue.Queue[Done] = queue.Queue()

    def start(self, member: Member) -> None:
        self.started(member, self._policy)

    def send(self, member: Member, number: int, task: Task) -> None:
        def work() -> None:
            stop = lambda: self._closed.is_set() or self._stop()  # noqa: E731
            self._news.put(Done(member, number, self._worker.make(task, stop)))

        self._threads.submit(work)

    def receive(self, seconds: float) -> list[Done]:
        with suppress(queue.Empty):
            return [self._news.get(timeout=seconds)]
        return []

    def close(self) -> None:
        self._closed.set()
        self._threads.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Process:
    number: int
    """Which of the settings it works with."""
    process: Any
    connection: Connection


class ProcessPool(WorkerPool):
    """Processes of this machine, one for each `EngineSettings`."""

    def __init__(self, spec: WorkerSpec, engines: Sequence[EngineSettings]) -> None:
        super().__init__(len(engines))
        self._specs = [pickle.dumps(replace(spec, engine=engine)) for engine in engines]
        self._context = multiprocessing.get_context("spawn")

    def start(self, member: Member) -> None:
        used = {m.handle.number for m in self.members if m.handle is not None}
        number = next(i for i in range(len(self._specs)) if i not in used)
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._specs[number])
        process = self._context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        member.handle = _Process(number, process, ours)

    def send(self, member: Member, number: int, task: Task) -> None:
        with suppress(OSError):  # It died; `receive` will notice.
            member.handle.connection.send((number, task))

    def receive(self, seconds: float) -> list[Done]:
        by_connection: dict[Any, Member] = {m.handle.connection: m for m in self.members}
        news = []
        for connection in wait(list(by_connection), seconds):
            member = by_connection[connection]
            try:
                number, result = member.handle.connection.recv()
            except (EOFError, OSError):
                news += self._forget(member, "the process ended")
                continue
            if isinstance(result, Record):
                news.append(Done(member, number, result))
            elif isinstance(result, RealesrError):
                news += self._forget(member, str(result))
            else:
                self.started(member, result)
        return news

    def _forget(self, member: Member, reason: str) -> list[Done]:
        member.handle.process.kill()
        member.handle.process.join()
        return self.lost(member, reason)

    def close(self) -> None:
        for member in self.members:
            member.handle.process.kill()
        for member in self.members:
            member.handle.process.join()


def _serve(connection: Connection, spec: bytes) -> None:
    """Be a worker process until the connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides when to stop.
    lock = threading.Lock()

    def send(number: int, result: object) -> None:
        with lock, suppress(OSError):
            connection.send((number, result))

    def make(number: int, task: Task) -> None:
        send(number, worker.make(task))

    try:
        worker, policy = pickle.loads(spec).build()
    except Exception as error:
        send(0, RealesrError(str(error) or type(error).__name__))
        return
    send(0, policy)
    with ThreadPoolExecutor(SLOTS) as threads, suppress(EOFError, OSError):
        while True:
            number, task = connection.recv()
            threads.submit(make, number, task)
