"""Overhead of several workers: images that take a fixed time, in processes and Ray actors.

Each upscaler sleeps, so that any number of workers fits on any machine, and what is measured is
what giving out, reading, writing and recording cost, after the first image of each worker. Ray
needs a cluster: `ray start --head`, or `--cluster` starts one inside this process.

    python benchmarks/bench_workers.py --workers 1 4 16 --seconds 2 --place ray --cluster
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from realesr_cli.batch.jobs import Record, Tally
from realesr_cli.batch.pipeline import Observer
from realesr_cli.batch.places import ProcessPool
from realesr_cli.batch.pool import WorkerPool, run_tasks
from realesr_cli.batch.run import run_jobs

TESTS = str(Path(__file__).resolve().parent.parent / "tests")
sys.path.insert(0, TESTS)
os.environ["PYTHONPATH"] = os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])  # of workers

from fake_upscalers import Doubler, make_spec, plan_doubling  # noqa: E402


class Watch(Observer):
    """Notes when the records come."""

    def __init__(self) -> None:
        self.tally, self.times = Tally(), []

    def finished(self, record: Record) -> None:
        self.tally.add(record)
        self.times.append(time.perf_counter())


def measure(place: str, count: int, seconds: float, each: int) -> float:
    """Return the seconds of a worker per image, without its first one."""
    spec = make_spec(functools.partial(Doubler, seconds=seconds))
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        jobs = plan_doubling(Path(folder), count * each)
        if place == "local":
            run_jobs(jobs, spec.make_upscaler(spec.engine), watch)
        else:
            pool = all_at_once(open_pool(place, spec, count))
            run_tasks(jobs, lambda: pool, watch)
    assert watch.tally.to_plain()["done"] == len(jobs), watch.tally.failed
    return (watch.times[-1] - watch.times[count - 1]) * count / (len(jobs) - count)


def open_pool(place: str, spec: object, count: int) -> WorkerPool:
    if place == "processes":
        return ProcessPool(spec, [spec.engine] * count)
    from realesr_cli.batch.ray_pool import RayPool

    return RayPool(spec, count=count, cores=0.01)


def all_at_once(pool: WorkerPool) -> WorkerPool:
    """Let no worker of the pool begin before all are ready."""
    usual, waiting = pool.started, []

    def started(member: object, policy: object) -> None:
        waiting.append(member)
        if len(waiting) == pool._count:
            for one in waiting:
                usual(one, policy)

    pool.started = started
    return pool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--each", type=int, default=5, help="images per worker")
    parser.add_argument("--place", choices=["local", "processes", "ray"], default="ray")
    parser.add_argument("--cluster", action="store_true")
    options = parser.parse_args()
    if options.cluster:
        import ray

        ray.init(num_cpus=16, object_store_memory=10**8, include_dashboard=False)
    for count in options.workers:
        each = measure(options.place, count, options.seconds, options.each)
        row = {"place": options.place, "workers": count, "seconds": options.seconds}
        print(json.dumps(row | {"per_image": round(each, 4)}), flush=True)


if __name__ == "__main__":
    main()
