"""Processes of this machine and a Ray cluster: equal results, dead workers and nodes, refusals.

The cluster runs in a network namespace that has only a loopback device, so nothing else can be
contacted.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_upscalers import Mortal, Unstartable, make_spec, plan_doubling
from upscale_cli import Shell, make_image, size_of

from realesr_cli.batch.jobs import Record, Tally
from realesr_cli.batch.pipeline import Observer
from realesr_cli.batch.places import ProcessPool
from realesr_cli.batch.pool import WorkerStartError, run_tasks
from realesr_cli.engine.settings import EngineSettings

TESTS = Path(__file__).resolve().parent.parent


class Counting(Observer):
    """Adds up the records."""

    def __init__(self) -> None:
        self.tally = Tally()

    def finished(self, record: Record) -> None:
        self.tally.add(record)


@pytest.mark.slow
def test_processes_make_the_files_of_one_process(shell: Shell):
    for index in range(5):
        make_image(f"in/{index}.png", width=20 + index)
    assert shell("in", "-o", "one/").code == 0
    outcome = shell("in", "-o", "two/", "--on", "local:2", "--json")
    assert (outcome.code, outcome.summary["done"]) == (0, 5)
    assert {image["device"] for image in outcome.images} == {"cpu"}
    for path in Path("one").iterdir():
        assert path.read_bytes() == Path("two", path.name).read_bytes()
    Path("two/3_x4.png").unlink()
    again = shell("in", "-o", "two/", "--on", "local:2", "--json")
    assert (again.summary["done"], again.summary["skipped"]) == (1, 4)


@pytest.mark.slow
def test_an_image_that_kills_processes_is_given_up(tmp_path: Path):
    tasks = plan_doubling(tmp_path, 6, poison=2)
    watch = Counting()
    spec = make_spec(Mortal)
    run_tasks(tasks, lambda: ProcessPool(spec, [spec.engine]), watch)
    assert [r.job.source.stem for r in watch.tally.failed] == ["2"]
    assert "3 workers died" in str(watch.tally.failed[0].failure)
    assert watch.tally.exit_code == 1
    assert len(list((tmp_path / "out").glob("*.png"))) == 5


@pytest.mark.slow
def test_processes_that_cannot_start(tmp_path: Path):
    tasks = plan_doubling(tmp_path, 2)
    pool = functools.partial(ProcessPool, make_spec(Unstartable), [EngineSettings()])
    with pytest.raises(WorkerStartError, match="no room for the network"):
        run_tasks(tasks, pool, Observer())


def test_ray_without_the_package(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    make_image("a.png")
    outcome = shell("a.png", "--on", "ray")
    assert outcome.code == 2
    assert "pip install 'realesr-cli[ray]'" in outcome.err
    assert outcome.err.count("\n") == 1


def test_standard_output_is_not_for_several_processes(shell: Shell):
    make_image("a.png")
    assert shell("a.png", "-o", "-", "--on", "local:2").code == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", ["ray", "ray://127.0.0.1:9"])
def test_no_cluster_is_one_line_within_ten_seconds(
    shell: Shell, place: str, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    make_image("a.png")
    started = time.monotonic()
    outcome = shell("a.png", "--on", place)
    assert outcome.code == 1
    assert "no Ray cluster can be reached" in outcome.err
    assert outcome.err.count("\n") == 1
    assert time.monotonic() - started < 12


def run_in_cluster(folder: Path, *arguments: object) -> dict[str, object]:
    """Run `ray_cluster.py` where there is only a loopback device, and return what it prints."""
    pytest.importorskip("ray")
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs root for a network namespace of its own")
    script = " ".join([sys.executable, str(TESTS / "ray_cluster.py"), *map(str, arguments)])
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", f"ip link set lo up && exec {script}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_a_node_that_is_lost_costs_no_image(shell: Shell, tiny: Path, tmp_path: Path):
    for index in range(12):
        make_image(f"in/{index}.png", width=60 + index, height=40)
    assert shell("in", "-o", "one/").code == 0
    found = run_in_cluster(tmp_path, "lose-node", tiny)
    assert found["code"] == 0
    assert found["summary"]["done"] == 12  # type: ignore[index]
    assert found["seconds"] < 90  # type: ignore[operator]
    for path in Path("one").iterdir():
        assert path.read_bytes() == Path("two", path.name).read_bytes()


@pytest.mark.slow
def test_an_image_that_kills_actors_is_given_up(tmp_path: Path):
    found = run_in_cluster(tmp_path, "poison")
    assert "no room for the network" in str(found.pop("start"))
    assert found == {"failed": ["2"], "reason": True, "code": 1}
    assert len(list((tmp_path / "out").glob("*.png"))) == 5


@pytest.mark.slow
def test_a_damaged_image_fails_alone_on_a_cluster(tiny: Path, tmp_path: Path):
    for index in range(4):
        make_image(tmp_path / f"in/{index}.png")
    data = (tmp_path / "in/2.png").read_bytes()
    (tmp_path / "in/2.png").write_bytes(data.replace(b"IDAT", b"IDAt"))
    found = run_in_cluster(tmp_path, "plain", tiny)
    assert (found["code"], found["summary"]["done"]) == (1, 3)  # type: ignore[index]
    assert size_of(tmp_path / "two/3_x4.png") == (48, 32)
