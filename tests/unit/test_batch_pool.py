"""Tasks on workers that die: done elsewhere, bounded in flight, given up in the end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from realesr_cli.batch.jobs import Job, Record, Tally
from realesr_cli.batch.pipeline import Observer
from realesr_cli.batch.places import parse_place, split_machine
from realesr_cli.batch.pool import (
    MAX_DEATHS,
    SLOTS,
    Done,
    Member,
    WorkerPool,
    WorkerStartError,
    run_tasks,
)
from realesr_cli.batch.sources import InputSource
from realesr_cli.batch.worker import Task
from realesr_cli.engine.policy import GpuInfo, MachineInfo
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.errors import ConfigError, ImageError


class FakePool(WorkerPool):
    """Workers that end one task, chosen by chance, each time they are asked."""

    def __init__(self, count: int, dies: Callable[[str], bool] = lambda name: False) -> None:
        super().__init__(count)
        self.dies = dies
        self.most = 0
        self.started_count = 0
        self.chance = random.Random(0)
        self.starts = True
        self.closed = False

    def start(self, member: Member) -> None:
        self.started_count += 1

    def send(self, member: Member, number: int, task: Task) -> None:
        assert member.ready
        assert not (member.alone and len(member.tasks) > 1)
        self.most = max(self.most, sum(len(m.tasks) for m in self.members))

    def receive(self, seconds: float) -> list[Done]:
        for member in [m for m in self.members if not m.ready]:
            if not self.starts:
                return self.lost(member, "no memory")
            self.started(member, None)
        busy = [m for m in self.members if m.tasks]
        if not busy:
            return []
        member = self.chance.choice(busy)
        number = self.chance.choice(list(member.tasks))
        task = member.tasks[number].task
        assert isinstance(task, Job)
        if self.dies(task.source.stem):
            return self.lost(member)
        return [Done(member, number, Record(task, "done"))]

    def close(self) -> None:
        self.closed = True


class Records(Observer):
    """Keeps the records by name."""

    def __init__(self) -> None:
        self.found: dict[str, Record] = {}
        self.progress: tuple[int, int] = (0, 0)

    def finished(self, record: Record) -> None:
        assert record.job.source.stem not in self.found
        self.found[record.job.source.stem] = record

    def __call__(self, done: int, total: int) -> None:
        self.progress = (done, total)

    def names(self, status: str) -> set[str]:
        return {name for name, record in self.found.items() if record.status == status}


def jobs(count: int) -> list[Job]:
    return [Job(InputSource(Path(f"{i}.png"))) for i in range(count)]


@pytest.mark.parametrize("workers", [1, 3])
def test_what_kills_its_worker_is_given_up_and_all_others_are_made(workers: int):
    pool, records = FakePool(workers, dies=lambda name: name == "4"), Records()
    run_tasks(jobs(30), lambda: pool, records)
    assert records.names("failed") == {"4"}
    assert len(records.names("done")) == 29
    assert "3 workers" in str(records.found["4"].failure)
    assert records.progress == (30, 30)
    assert pool.started_count == workers + MAX_DEATHS
    assert Tally(records.found.values()).exit_code == 1
    assert pool.closed


def test_workers_that_die_for_no_fault_of_the_task_cost_nothing():
    chance = random.Random(1)
    pool, records = FakePool(4, dies=lambda name: chance.random() < 0.05), Records()
    run_tasks(jobs(100), lambda: pool, records)
    assert len(records.names("done")) == 100
    assert pool.started_count > 5


def test_tasks_are_taken_only_when_a_worker_has_room():
    taken: list[int] = []
    pool, records = FakePool(3), Records()

    def source() -> Iterator[Job]:
        for job in jobs(40):
            taken.append(len(taken))
            assert len(taken) - len(records.found) <= 3 * SLOTS + 1
            yield job

    run_tasks(source(), lambda: pool, records)
    assert len(records.found) == 40
    assert pool.most == 3 * SLOTS
    assert records.progress == (40, 0)


def test_a_run_that_is_stopped_records_the_rest():
    pool, records = FakePool(2), Records()
    run_tasks(jobs(20), lambda: pool, records, stop_requested=lambda: len(records.found) >= 5)
    assert len(records.names("done")) == 5
    assert len(records.names("stopped")) == 15
    assert pool.closed


def test_the_first_failure_may_end_the_run():
    pool, records = FakePool(1, dies=lambda name: name == "0"), Records()
    run_tasks(jobs(9), lambda: pool, records, fail_fast=True)
    assert records.names("failed") == {"0"}
    assert records.names("stopped")


def test_what_needs_no_worker_starts_none():
    finished = [Job(InputSource(Path("a.png")), finished=True)]
    failed = [Job(InputSource(Path("b.png")), error=ImageError("damaged"))]
    records = Records()
    run_tasks(finished + failed, lambda: pytest.fail("started"), records)
    assert (records.names("skipped"), records.names("failed")) == ({"a"}, {"b"})


def test_workers_that_cannot_start_end_the_run():
    pool = FakePool(2)
    pool.starts = False
    with pytest.raises(WorkerStartError, match="no memory"):
        run_tasks(jobs(3), lambda: pool, Observer())


@pytest.mark.parametrize("text", ["local", "local:0", "local:x", "ray:", "ray://", "ray://h", "x"])
def test_a_place_that_does_not_exist(text: str):
    with pytest.raises(ConfigError, match="ray://HOST:PORT"):
        parse_place(text)


def test_a_machine_is_split(monkeypatch: pytest.MonkeyPatch):
    gpus = tuple(GpuInfo(f"cuda:{i}", "", 0, 0) for i in range(2))
    machine = MachineInfo(cores=8, memory_available=12 * 2**30, gpus=gpus)
    monkeypatch.setattr("realesr_cli.batch.places.machine_info", lambda: machine)
    for device in ("auto", "cuda"):
        engines = split_machine(EngineSettings(device=device), 3)
        assert [engine.device for engine in engines] == ["cuda:0", "cuda:1", "cuda:0"]
    for count, threads in ((3, 2), (20, 1)):
        engines = split_machine(EngineSettings(device="cpu"), count)
        assert {(e.device, e.threads) for e in engines} == {("cpu", threads)}
        assert len(engines) == count
        assert engines[0].memory == 12 * 2**30 // count
