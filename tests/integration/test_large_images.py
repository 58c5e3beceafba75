"""Large images in processes of their own: bounded memory, kill -9, random windows (slow)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_large.py"

pytestmark = pytest.mark.slow


def command(source: Path, target: Path, *options: str) -> list[str]:
    """`realesr upscale` with a network that repeats pixels."""
    start = [sys.executable, str(SCRIPT), "--child", "--input", str(source)]
    return [*start, "--output", str(target), *options]


def run(source: Path, target: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(command(source, target, *options), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def make_input(path: Path, width: int, height: int) -> np.ndarray[Any, Any]:
    ys, xs = np.mgrid[:height, :width]
    image = np.stack([ys // 3 + xs // 5, ys // 7, xs // 11], -1).astype(np.uint8)
    Pillow.fromarray(image).save(path, compress_level=1)
    return image


@pytest.mark.parametrize("size", [(5_000, 4_000), (2_500, 8_000), (60_000, 8)])
@pytest.mark.parametrize("name", ["out.png", "out.tif"])
def test_memory_stays_within_the_limit(tmp_path: Path, name: str, size: tuple[int, int]):
    image = make_input(tmp_path / "in.png", *size)
    found = run(tmp_path / "in.png", tmp_path / name, "--memory", "1G", "--big")
    assert found["code"] == 0
    assert found["peak_mib"] <= 1024
    if name == "out.tif":
        whole = tifffile.imread(tmp_path / name)
    else:
        Pillow.MAX_IMAGE_PIXELS = None
        whole = np.asarray(Pillow.open(tmp_path / name))
    assert whole.shape == (4 * size[1], 4 * size[0], 3)
    rng = np.random.default_rng(0)
    for _ in range(200):
        top, left = (int(rng.integers(0, side - 24)) for side in whole.shape[:2])
        rows, columns = (np.arange(start, start + 24) // 4 for start in (top, left))
        assert np.array_equal(whole[top : top + 24, left : left + 24], image[rows][:, columns])


def test_a_killed_run_leaves_no_result(tmp_path: Path):
    make_input(tmp_path / "in.png", 2_000, 2_000)
    target = tmp_path / "out.png"
    options = ("--seconds", "0.3", "--memory", "1G")
    with subprocess.Popen(command(tmp_path / "in.png", target, *options)) as process:
        deadline = time.monotonic() + 60
        while not any(part.stat().st_size > 1000 for part in tmp_path.glob(".*part")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    assert not target.exists()
    assert run(tmp_path / "in.png", target)["code"] == 0
    assert list(tmp_path.glob(".*part")) == []
    with Pillow.open(target) as image:
        assert image.size == (8_000, 8_000)
