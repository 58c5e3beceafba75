"""Two processes learn what one does with the same global batch, also when one of them is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import SETS, Memory, make_images, run, tiny_config

from realesr_cli.train.checkpoint import list_checkpoints, read_checkpoint

WORKER = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from tiny_training import run, tiny_config
from realesr_cli.train.distributed import join_world

config = tiny_config(Path(sys.argv[2]), *sys.argv[4:])
with join_world("cpu") as (world, device):
    run(config, Path(sys.argv[3]), world=world)
"""


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
victim, step = os.environ["VICTIM"].split(":")
from realesr_cli.train import loop
usual = loop._report

def report(run, state, *args):
    usual(run, state, *args)
    first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if first and os.environ["RANK"] == victim and state.progress.step == int(step):
        os.kill(os.getpid(), signal.SIGKILL)

loop._report = report
import torch
torch.set_num_threads(1)
from realesr_cli.cli.main import run
run()
"""
"""The command line, in which one process kills itself after a step of its first life."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run_two(code: str, *args: str, **environment: str) -> list[tuple[int, str]]:
    """Run what `torchrun --nproc-per-node 2` does, without its supervisor: exit codes, stderr."""
    port, workers = str(free_port()), []
    for rank in ("0", "1"):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-c", code, str(Path(__file__).parent), *args]
        workers.append(
            subprocess.Popen(
                command,
                env={**os.environ, **place, **address, **environment},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    return [(worker.returncode, text) for worker, text in zip(workers, errors, strict=True)]


def two_processes(data: Path, out: Path, *sets: str) -> None:
    assert [code for code, _ in run_two(WORKER, str(data), str(out), *sets)] == [0, 0]


def tiny_arguments(data: Path, out: Path) -> list[str]:
    sets = [item for text in (*SETS, "checkpoints.every=3") for item in ("--set", text)]
    return ["train", "--device", "cpu", "--data", str(data), "--out", str(out), *sets, "--resume"]


def final_weights(out: Path) -> dict[str, torch.Tensor]:
    found = read_checkpoint(list_checkpoints(out)[-1])
    assert (found.progress.stage, found.progress.step) == (1, 4)
    return {
        f"{part}.{key}": tensor
        for part in ("generator", "ema", "discriminator")
        for key, tensor in found.parts[part].items()
    }


@pytest.mark.slow
def test_a_killed_process_ends_the_other_with_one_sentence_and_a_checkpoint(
    tmp_path: Path,
) -> None:
    data, out = make_images(tmp_path / "photos"), tmp_path / "run"
    (code, errors), (victim, _) = run_two(KILLED, *tiny_arguments(data, out), VICTIM="1:2")
    assert (code, victim) == (1, -signal.SIGKILL), errors
    assert "Traceback" not in errors
    assert "error: the connection to another process was lost" in errors
    assert [path.name for path in list_checkpoints(out)] == ["1-psnr-000000002.pt"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["0:2", "1:2"])
def test_torchrun_restarts_after_a_kill_and_ends_as_if_undisturbed(
    tmp_path: Path, victim: str
) -> None:
    data = make_images(tmp_path / "photos")
    script = tmp_path / "worker.py"
    script.write_text(KILLED)
    for name, who in (("whole", "9:9"), ("killed", victim)):
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
            "--max-restarts=1", f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--rdzv-backend=c10d",
            str(script), str(Path(__file__).parent), *tiny_arguments(data, tmp_path / name),
        ]  # fmt: skip
        environment = {**os.environ, "VICTIM": who, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    a, b = final_weights(tmp_path / "whole"), final_weights(tmp_path / "killed")
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


def test_two_processes_equal_one_with_the_same_global_batch(tmp_path: Path) -> None:
    data = make_images(tmp_path / "photos")
    sets = ("validation.split=0.2", "optimizer.clip=1.0")
    two_processes(data, tmp_path / "two", *sets)
    memory = Memory()
    run(tiny_config(data, *sets, "data.accumulate=2"), tmp_path / "one", memory)
    ends = []
    for name in ("one", "two"):
        path = list_checkpoints(tmp_path / name)[-1]
        assert path.name == "2-gan-000000004.pt"
        ends.append(read_checkpoint(path).parts)
    for part in ("generator", "ema", "discriminator"):
        for key, wanted in ends[0][part].items():
            torch.testing.assert_close(ends[1][part][key], wanted, rtol=1e-3, atol=1e-5, msg=key)
    logs = [
        [json.loads(line) for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()]
        for n in ("one", "two")
    ]
    losses = [
        [(line["total"], line["pixel"]) for line in log if line["kind"] == "step"] for log in logs
    ]
    assert [total for total, _ in losses[1]] == list(range(1, 9))
    for (_, one), (_, two) in zip(*losses, strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    assert len(memory.scores) == 4
