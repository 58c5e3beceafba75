"""Videos under kill -9, in several processes, at length, and by released models."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from upscale_cli import save_tiny
from video_samples import Clip, make_clip, moving, nearest, packets, run

from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.image.types import Image
from realesr_cli.video.settings import VideoSettings
from realesr_cli.video.upscale_video import upscale_video
from realesr_cli.weights.load import load_model

pytestmark = pytest.mark.slow

KILLS = 14
PATIENCE = 300


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny.pth", scale=2)


def command(source: Path, target: Path, model: Path, *more: str) -> list[str]:
    own = [sys.executable, "-m", "realesr_cli", "video", str(source), "-o", str(target)]
    own += ["-m", str(model), "--device", "cpu", "--threads", "1", "--precision", "fp32"]
    return [*own, "--chunk-seconds", "0.4", "--preset", "medium", "--codec", "x264", *more]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_film_survives_kill_9(tmp_path: Path, model: Path, workers: str) -> None:
    """Killed at random moments and in the final write, it ends with the same packets."""
    source = make_clip(tmp_path / "a.mkv", moving(240, 160, 120), Clip(aac=150))
    env = dict(os.environ, OMP_NUM_THREADS="1")
    subprocess.run(command(source, tmp_path / "whole.mkv", model), check=True, env=env)
    target = tmp_path / "b.mkv"
    job = tmp_path / "b.mkv.realesr-job"
    rng, kills, done = random.Random(5), 0, [0]
    while True:
        final = kills % 3 == 2
        with subprocess.Popen(
            command(source, target, model, "--workers", workers), env=env
        ) as process:
            deadline = time.monotonic() + PATIENCE
            mark = len(list(job.glob("*.chunk"))) + (kills < 10)
            while process.poll() is None and time.monotonic() < deadline:
                writing = list(tmp_path.glob(".realesr-*.part"))
                if kills >= KILLS:
                    continue
                if final and writing:
                    break
                if not final and len(list(job.glob("*.chunk"))) >= min(mark, 20):
                    time.sleep(rng.random() * 0.15)
                    break
                time.sleep(0.002)
            if process.poll() is not None:
                assert process.returncode == 0
                break
            process.kill()
            process.wait()
            kills += 1
            done.append(len(list(job.glob("*.chunk"))))
    assert kills >= 10
    assert done[1:] == sorted(done[1:])
    assert packets(target) == packets(tmp_path / "whole.mkv")
    assert packets(target, 1) == packets(source, 1)
    assert not job.exists()
    report = json.loads((tmp_path / "b.mkv.report.json").read_text())
    # What was begun and not finished when a kill came; nothing else is done twice.
    assert report["chunks_recomputed"] <= kills * int(workers)


def test_the_number_of_workers_changes_nothing(tmp_path: Path, model: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", moving(90))
    found = []
    for count in (1, 2, 3):
        target = tmp_path / f"{count}.mp4"
        report = upscale_video(
            source, target, model=model, engine=EngineSettings("cpu", "fp32"),
            settings=VideoSettings(workers=count, chunk_seconds=0.4),
        )  # fmt: skip
        assert report.frames_out == 90
        found.append(packets(target))
    assert found[0] == found[1] == found[2]


def resident() -> float:
    """Memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_memory_stays_flat(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", moving(600))
    held: list[float] = []
    upscale_video(
        source, tmp_path / "b.mkv", model=nearest(),
        settings=VideoSettings(chunk_seconds=2, tile_cache=1, preset="ultrafast"),
        progress=lambda done, total: held.append(resident()),
    )  # fmt: skip
    late = np.array(held[200:])
    slope = np.polyfit(np.arange(len(late)), late, 1)[0] * 100
    sys.stderr.write(f"{slope:.3f} MB per 100 frames, at most {max(held):.0f} MB\n")
    assert slope < 1


def test_chunks_cost_little_size(tmp_path: Path) -> None:
    """30 seconds in chunks of 10 against one piece."""
    frames = [np.roll(f, (i // 5, i * 2), (0, 1)) for i, f in enumerate(moving(450, 160, 96))]
    source = make_clip(tmp_path / "a.mkv", frames, Clip(rate=15, options=(("g", "450"),)))
    sizes = {}
    for seconds in (10.0, 100.0):
        report = run(source, tmp_path / f"{seconds:g}.mkv", chunk_seconds=seconds)
        sizes[report.chunks] = report.bytes
    assert sorted(sizes) == [1, 3]
    sys.stderr.write(
        f"one piece {sizes[1]}, three chunks {sizes[3]}: {sizes[3] / sizes[1] - 1:+.2%}\n"
    )
    assert sizes[3] <= 1.02 * sizes[1]


# Hold ratio and shift error as measured for the released weights; 10 % more is a regression.
STABILITY = {
    "realesr-animevideov3.pth": (2.368, 0.0),
    "realesr-general-x4v3.fp16.pth": (1.714, 0.0),
    "photo": (3.348, 0.0),
}


@pytest.mark.parametrize("name", STABILITY)
def test_models_are_as_stable_as_before(shared: Path, name: str) -> None:
    """Hold ratio: change of the output over that of a cubic resize where the input held still.

    Shift error: the output of a shifted input against the shifted output, inside, in 8-bit levels.
    """
    path = shared / "data" / "weights" / name
    net = load_model(path if path.exists() else name)
    upscaler = Upscaler(net, EngineSettings("cpu", "fp32", tile=0))
    scale = upscaler.scale
    rng = np.random.default_rng(1)
    still = moving(1, 176, 144)[0].astype(int)
    clip = [np.clip(still + rng.integers(-1, 2, still.shape), 0, 255) for _ in range(12)]

    def enlarge(pixels: NDArray[Any], strength: float = 1.0) -> NDArray[Any]:
        image = Image(np.ascontiguousarray(pixels.astype(np.uint8)))
        return upscaler(image, UpscaleSettings(strength=strength)).pixels.astype(float)

    outputs, cubic = ([enlarge(f, s) for f in clip] for s in (1.0, 0.0))
    hold = np.mean([np.abs(b - a).mean() for a, b in itertools.pairwise(outputs)])
    base = np.mean([np.abs(b - a).mean() for a, b in itertools.pairwise(cubic)])
    shifted = enlarge(np.roll(still, (4, 8), (0, 1)))
    inside = (slice(48 * scale, -48 * scale), slice(48 * scale, -48 * scale))
    expected = np.roll(enlarge(still), (4 * scale, 8 * scale), (0, 1))
    shift = float(np.abs(shifted - expected)[inside].max())
    sys.stderr.write(f"{name}: hold ratio {hold / base:.3f}, shift error {shift:.3f} levels\n")
    assert hold / base <= 1.1 * STABILITY[name][0]
    assert shift <= max(1.0, 1.1 * STABILITY[name][1])


_ENCODE = """
import hashlib, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from video_samples import moving, packets
from realesr_cli.video.encoder import SegmentWriter, choose_encoder
from realesr_cli.video.settings import VideoSettings
from realesr_cli.video.streams import open_film
film = open_film(Path(sys.argv[2]), VideoSettings())
spec = choose_encoder(film, (240, 320), "matroska", VideoSettings(codec=sys.argv[4]))
part = Path(sys.argv[3])
writer = SegmentWriter(part, spec, film.index.pts[:12])
for pixels in moving(12, 320, 240):
    writer.add(pixels, None)
writer.finish()
print(hashlib.sha256(repr(packets(part)).encode()).hexdigest())
"""


@pytest.mark.parametrize("codec", ["x264", "x265", "av1"])
def test_encoders_depend_on_nothing_but_their_frames(tmp_path: Path, codec: str) -> None:
    """Not on what memory held before: glibc fills it with another byte in each run."""
    source = make_clip(tmp_path / "a.mkv", moving(12))
    here = str(Path(__file__).resolve().parent.parent)
    found = set()
    for fill in ("1", "85", "170"):
        done = subprocess.run(
            [sys.executable, "-c", _ENCODE, here, str(source), str(tmp_path / fill), codec],
            env=dict(os.environ, MALLOC_PERTURB_=fill, OMP_NUM_THREADS="1"),
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        found.add(done.stdout)
    assert len(found) == 1


def test_threads_of_torch_change_no_packet(tmp_path: Path, model: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", moving(20))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            engine = EngineSettings("cpu", "fp32", threads=threads)
            upscale_video(source, tmp_path / f"{threads}.mkv", model=model, engine=engine)
            found.append(packets(tmp_path / f"{threads}.mkv"))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]
