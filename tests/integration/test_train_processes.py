"""Two processes under torchrun's rules learn what one process with the same global batch does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import Memory, make_images, run, tiny_config

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


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def two_processes(data: Path, out: Path, *sets: str) -> None:
    """What `torchrun --nproc-per-node 2` does, without its supervisor."""
    port = str(free_port())
    workers = []
    for rank in ("0", "1"):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-c", WORKER, str(Path(__file__).parent), str(data), str(out)]
        workers.append(subprocess.Popen([*command, *sets], env={**os.environ, **place, **address}))
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]


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
