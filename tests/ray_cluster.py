"""A Ray cluster of two nodes with one core each, and a run on it; started by a slow test."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import warnings
from pathlib import Path

from fake_upscalers import Mortal, Unstartable, make_spec, plan_doubling

from realesr_cli.batch.jobs import Record, Tally
from realesr_cli.batch.pipeline import Observer
from realesr_cli.batch.pool import WorkerStartError, run_tasks
from realesr_cli.batch.ray_pool import RayPool
from realesr_cli.cli.console import Console
from realesr_cli.cli.main import run

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.update(RAY_raylet_start_wait_time_s="180")  # Of machines that do much else.
warnings.simplefilter("ignore")


def main(what: str, model: str = "") -> dict[str, object]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8}
    )
    second = cluster.add_node(num_cpus=1, object_store_memory=10**8)
    cluster.wait_for_nodes(timeout=180)
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        if what == "poison":
            return run_poison()
        if what == "lose-node":
            lose_after(3, lambda: cluster.remove_node(second, allow_graceful=False))
        return run_command(model)
    finally:
        cluster.shutdown()


def lose_after(count: int, lose: object) -> None:
    """Let the console call `lose` once, after so many images."""
    usual, seen = Console.finished, []

    def finished(self: Console, record: Record) -> None:
        usual(self, record)
        seen.append(record)
        if len(seen) == count:
            lose()  # type: ignore[operator]

    Console.finished = finished  # type: ignore[method-assign]


def run_command(model: str) -> dict[str, object]:
    started, out = time.monotonic(), io.StringIO()
    command = ["upscale", "-m", model, "--device", "cpu", "--threads", "1", "in", "-o", "two/"]
    code: object = None
    try:
        with contextlib.redirect_stdout(out):
            run([*command, "--json", "--on", "ray"])
    except SystemExit as ended:
        code = ended.code
    last = json.loads(out.getvalue().splitlines()[-1])
    seconds = time.monotonic() - started
    return {"code": code, "summary": last.get("summary"), "seconds": seconds}


def run_poison() -> dict[str, object]:
    tally = Tally()

    class Counting(Observer):
        def finished(self, record: Record) -> None:
            tally.add(record)

    tasks = plan_doubling(Path.cwd(), 6, poison=2)
    run_tasks(tasks, lambda: RayPool(make_spec(Mortal)), Counting())
    try:
        run_tasks(tasks[:1], lambda: RayPool(make_spec(Unstartable)), Observer())
    except WorkerStartError as error:
        reason = str(error)
    return {
        "start": reason,
        "failed": [record.job.source.stem for record in tally.failed],
        "reason": "3 workers died" in str(tally.failed[0].failure),
        "code": tally.exit_code,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))  # noqa: T201
