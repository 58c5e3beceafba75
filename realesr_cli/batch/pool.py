"""Tasks given to workers that may die: bounded in flight, done again, given up in the end.

What a worker is, a thread, a process or an actor of a cluster, subclasses of `WorkerPool` know.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from realesr_cli.batch.jobs import Job, Record, planned
from realesr_cli.batch.pipeline import Observer, is_fatal
from realesr_cli.batch.worker import Task, TaskSettings, Worker
from realesr_cli.engine.policy import Policy
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.errors import RealesrError
from realesr_cli.progress import StopRequested, never

SLOTS = 2
"""Tasks of a worker at a time: while one is upscaled, the other is read or written."""

MAX_DEATHS = 3
"""A task during which so many workers died is given up."""

_POLL_SECONDS = 0.05
_MAX_FAILED_STARTS = 3

MakeUpscaler = Callable[[EngineSettings], Any]
"""Builds the `Upscaler` of one worker; pickled, so a function of a module or a partial of one."""


class WorkerStartError(RealesrError):
    """The workers of a run cannot be started, or their cluster cannot be reached."""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker is made of."""

    make_upscaler: MakeUpscaler
    engine: EngineSettings
    tasks: TaskSettings

    def build(self) -> tuple[Worker, Policy | None]:
        """Build the worker, and say how it will work."""
        upscaler = self.make_upscaler(self.engine)
        return Worker(upscaler, self.tasks), getattr(upscaler, "policy", None)


@dataclass(frozen=True)
class Attempt:
    """A task, and how many workers died while they had it."""

    task: Task
    deaths: int = 0


@dataclass(eq=False)
class Member:
    """One worker of a pool."""

    handle: Any = None
    policy: Policy | None = None
    ready: bool = False
    tasks: dict[int, Attempt] = field(default_factory=dict)
    alone: bool = False
    """Whether its one task must stay its only one."""


@dataclass(frozen=True)
class Done:
    """A task has ended: with its record, or because its worker died."""

    member: Member
    number: int
    record: Record | None = None


class WorkerPool:
    """Some workers, replaced when they die. Subclasses know what a worker is."""

    slots = SLOTS

    def __init__(self, count: int) -> None:
        self.members: list[Member] = []
        self._count = count
        self._failed_starts = 0

    def start(self, member: Member) -> None:
        """Begin to start a worker."""
        raise NotImplementedError

    def send(self, member: Member, number: int, task: Task) -> None:
        """Give a task to a worker that is ready."""
        raise NotImplementedError

    def receive(self, seconds: float) -> list[Done]:
        """Wait for news from the workers, at most so long; note which became ready."""
        raise NotImplementedError

    def close(self) -> None:
        """End all workers, whatever they do."""

    def fill(self) -> None:
        """Start as many workers as there should be."""
        while len(self.members) < self._count:
            member = Member()
            self.members.append(member)
            self.start(member)

    def started(self, member: Member, policy: Policy | None) -> None:
        """Note that a worker is ready for tasks."""
        member.ready, member.policy = True, policy
        self._failed_starts = 0

    def lost(self, member: Member, reason: str = "") -> list[Done]:
        """Forget a worker that died, and return its tasks.

        Raises WorkerStartError where several in a row died before they were ready.
        """
        if member not in self.members:
            return []
        self.members.remove(member)
        if not member.ready:
            self._failed_starts += 1
            if self._failed_starts >= _MAX_FAILED_STARTS:
                raise WorkerStartError(f"no worker can be started: {reason or 'it died'}")
        return [Done(member, number) for number in member.tasks]


def run_tasks(
    tasks: Iterable[Task],
    make_pool: Callable[[], WorkerPool],
    observer: Observer,
    *,
    stop_requested: StopRequested = never,
    fail_fast: bool = False,
) -> None:
    """Make all tasks, in any order; the observer gets every record, and counts as progress.

    Tasks are taken from the iterable only when a worker has room, and no worker is started where
    none needs one. A task whose worker dies is given to another; from then on it runs alone, so
    that it is known which task the next worker dies of, and after `MAX_DEATHS` it fails. When the
    run ends early, what is in flight, and the rest of a sequence, is recorded as stopped.
    """
    run = _Run(observer, len(tasks) if isinstance(tasks, Sequence) else 0)
    source = run.pending_of(tasks)
    first = next(source, None)
    if first is None:
        return
    source = itertools.chain((first,), source)
    pool = run.pool = make_pool()
    try:
        while not (run.over or stop_requested()):
            pool.fill()
            run.submit(source)
            if run.exhausted and not run.pending:
                return
            news = pool.receive(_POLL_SECONDS)
            run.greet()
            for done in news:
                run.settle(done, fail_fast)
    finally:
        pool.close()
        for task in (*run.unfinished(), *(source if isinstance(tasks, Sequence) else ())):
            run.report(Record(job_of(task), "stopped"))


class _Run:
    """The state of one call of `run_tasks`."""

    def __init__(self, observer: Observer, total: int) -> None:
        self.observer, self.total = observer, total
        self.pool: WorkerPool
        self.over = self.exhausted = self._greeted = False
        self.suspects: deque[Attempt] = deque()
        self._count = self._done = 0

    @property
    def pending(self) -> bool:
        return bool(self.suspects) or any(member.tasks for member in self.pool.members)

    def pending_of(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """Yield the tasks that need a worker; report the others."""
        for task in tasks:
            if not isinstance(task, Job) or task.pending:
                yield task
            else:
                self.report(planned(task))

    def unfinished(self) -> list[Task]:
        """Return the tasks that were taken from the source and are neither done nor given up."""
        given = (attempt for member in self.pool.members for attempt in member.tasks.values())
        return [attempt.task for attempt in (*given, *self.suspects)]

    def submit(self, source: Iterator[Task]) -> None:
        """Give tasks to the workers with room."""
        ready = sorted((m for m in self.pool.members if m.ready), key=lambda m: len(m.tasks))
        while ready and self.suspects:  # The least busy workers are kept for these.
            member = ready.pop(0)
            if member.tasks:
                break
            self._send(member, self.suspects.popleft(), alone=True)
        for member in ready:
            while not member.alone and len(member.tasks) < self.pool.slots and not self.exhausted:
                task = next(source, None)
                self.exhausted = task is None
                if task is not None:
                    self._send(member, Attempt(task), alone=False)

    def _send(self, member: Member, attempt: Attempt, *, alone: bool) -> None:
        self._count += 1
        member.tasks[self._count], member.alone = attempt, alone
        self.pool.send(member, self._count, attempt.task)

    def settle(self, done: Done, fail_fast: bool) -> None:
        """Take the end of a task."""
        attempt = done.member.tasks.pop(done.number)
        done.member.alone = False
        if done.record is not None:
            self.report(done.record)
            failed = done.record.status == "failed"
            self.over |= failed and (fail_fast or is_fatal(done.record.failure))
            return
        attempt = Attempt(attempt.task, attempt.deaths + 1)
        if attempt.deaths < MAX_DEATHS:
            self.suspects.append(attempt)
            return
        text = f"given up: {MAX_DEATHS} workers died while they processed it"
        self.report(Record(job_of(attempt.task), "failed", failure=RealesrError(text)))
        self.over |= fail_fast

    def report(self, record: Record) -> None:
        self._done += 1
        self.observer.finished(record)
        self.observer(self._done, self.total)

    def greet(self) -> None:
        """Let the observer know how the first worker works."""
        ready = next((m for m in self.pool.members if m.ready), None)
        if ready is not None and not self._greeted:
            self._greeted = True
            self.observer.ready(ready.policy)


def job_of(task: Task) -> Job:
    """Return the job of a task, or one that only knows its source."""
    return task if isinstance(task, Job) else Job(task)
