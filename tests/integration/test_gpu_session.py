"""The benchmark for the day with a GPU runs through, on the CPU with tiny sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_every_part_runs_on_the_cpu(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, "benchmarks/gpu_session.py", "--cpu", "--out", str(out)]
    parts = ["matmul", "upscaling", "profile", "tests"]
    for part in parts:
        command += ["--part", part]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=300)
    found = json.loads(out.read_text())
    for part in parts:
        assert "error" not in found[part], found[part]
    for row in found["upscaling"].values():
        ways = [way for name, way in row.items() if name != "tflop"]
        assert len(ways) == 4
        assert all(way["tflop_per_s"] > 0 for way in ways)
    assert found["tests"]["code"] == 0
