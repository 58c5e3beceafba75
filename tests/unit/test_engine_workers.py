"""Workers: each computes alone, stages wait for their neighbors only, errors arrive, host kept."""

from __future__ import annotations

import os
import threading
import time

import pytest
import torch

from realesr_cli.engine.workers import Workers, call_steadily, get_workers

WORKERS = get_workers(3)


def test_a_worker_computes_with_one_thread_and_the_host_keeps_its_own():
    from threadpoolctl import threadpool_info

    def openmp():
        return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "openmp"]

    before, mine = torch.get_num_threads(), openmp()
    seen = list(WORKERS.map(lambda _: (torch.get_num_threads(), openmp()), range(6), 3))
    assert {threads for threads, _ in seen} == {1}
    assert {value for _, values in seen for value in values} <= {1}
    assert (torch.get_num_threads(), openmp()) == (before, mine)
    fresh = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert fresh == [before]


def test_a_block_waits_for_the_neighbors_of_the_stage_before():
    neighbors = [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3]]
    done: list[tuple[int, int]] = []
    lock = threading.Lock()

    def stage(number):
        def compute(block):
            with lock:
                needed = [(number - 1, other) for other in neighbors[block]] if number else []
                assert all(step in done for step in needed)
            time.sleep(0.001 * (block == 0))
            with lock:
                done.append((number, block))

        return compute

    WORKERS.run([stage(n) for n in range(5)], neighbors)
    assert sorted(done) == [(n, i) for n in range(5) for i in range(4)]


def test_the_first_error_arrives_and_the_rest_is_skipped():
    done = []

    def fail(block):
        if block == 0:
            raise ValueError("block 0")

    with pytest.raises(ValueError, match="block 0"):
        WORKERS.run([fail, lambda i: done.append(i)], [[0, 1], [0, 1]])
    assert done == []
    WORKERS.each(done.append, [1, 2, 3])
    assert sorted(done) == [1, 2, 3]


def test_results_come_in_order_with_a_limit_on_those_ahead():
    running, most = [0], [0]
    lock = threading.Lock()

    def slow(i):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.002 * (3 - i % 3))
        with lock:
            running[0] -= 1
        return i

    assert list(WORKERS.map(slow, range(12), 2)) == list(range(12))
    assert most[0] <= 2
    results = WORKERS.map(lambda i: 1 // (2 - i), range(5), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_call_from_a_worker_computes_there():
    seen = []
    WORKERS.each(
        lambda _: WORKERS.each(lambda _: seen.append(threading.get_ident()), range(3)), [0]
    )
    assert len(seen) == 3
    assert len(set(seen)) == 1


def test_workers_are_shared_and_started_again_after_a_fork():
    assert get_workers(3) is WORKERS
    assert isinstance(get_workers(2), Workers)
    if not hasattr(os, "fork"):
        return
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        done: list[int] = []
        get_workers(3).each(done.append, range(4))
        os.write(writable, bytes([len(done)]))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(readable, 1) == bytes([4])
    os.close(readable)
    os.close(writable)


def test_a_steady_call_computes_with_one_thread_and_shares_with_workers():
    def call():
        seen: list[str] = []
        WORKERS.each(lambda _: seen.append(threading.current_thread().name), range(20))
        assert threading.current_thread().name not in seen
        return torch.get_num_threads(), threading.get_ident(), call_steadily(threading.get_ident)

    threads, here, nested = call_steadily(call)
    assert threads == 1
    assert here == nested != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        call_steadily(lambda: 1 // 0)
    assert call_steadily(threading.get_ident) == here
