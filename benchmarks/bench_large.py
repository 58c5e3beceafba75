"""Large images with bounded memory: python benchmarks/bench_large.py [--model NAME].

Each format is one process: `realesr upscale --memory 1.5G` on 7,500x5,000 pixels. Unless a
model is given, its network is replaced by one that repeats pixels, so that time and memory are
those of everything else. Random windows of the results are read back with Pillow and tifffile and
compared. `--linear` times 1 to 64 megapixels instead, `--tail` how much longer one image takes than
its network. The JSON goes to benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_processor
from PIL import Image as Pillow
from torch import nn

RESULTS = Path(__file__).parent / "results"
SCALE = 4
WINDOWS = 200


class Repeat:
    """A Forward that repeats pixels, or enlarges in `seconds` per megapixel of its output."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.spent = seconds, 0.0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        began = time.perf_counter()
        if self.seconds:  # Timed: its result should be as hard to compress as that of a network.
            y = nn.functional.interpolate(x, scale_factor=SCALE, mode="bilinear")
        else:
            y = x.repeat_interleave(SCALE, -1).repeat_interleave(SCALE, -2)
        pause = self.seconds * y.shape[-1] * y.shape[-2] / 1e6
        time.sleep(max(0.0, pause - (time.perf_counter() - began)))
        self.spent += time.perf_counter() - began
        return y


def make_image(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return smooth gradients with some noise."""
    rng = np.random.default_rng(0)
    ys, xs = np.arange(height)[:, None], np.arange(width)[None]
    planes = [127 + 80 * np.sin(xs / (90 + 7 * i)) * np.cos(ys / (70 + 11 * i)) for i in range(3)]
    image = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, 256):
        rows = slice(top, top + 256)
        part = np.stack([plane[rows] for plane in planes], -1)
        image[rows] = np.clip(part + rng.normal(0, 2, part.shape), 0, 255)
    return image


def run_child(args: argparse.Namespace) -> None:
    """Upscale one image in this process and print what it took."""
    from realesr_cli.cli.main import run
    from realesr_cli.engine.upscaler import Upscaler
    from realesr_cli.image import writers

    repeat = Repeat(args.seconds)
    if args.model is None:
        Upscaler._forward = lambda self, settings: repeat  # type: ignore[method-assign,assignment]
    if args.big:
        writers.CLASSIC_TIFF_BYTES = 0
    model = args.model or str(save_small_network(Path(args.output).parent))
    command = ["upscale", args.input, "-o", args.output, "-m", model, "-q", "--overwrite"]
    command += ["--device", "cpu", *([] if args.memory is None else ["--memory", args.memory])]
    command += ["--precision", "fp32"] if args.model is None else []
    began = time.perf_counter()
    try:
        run(command)
    except SystemExit as end:
        code = end.code
    found = {
        "code": code,
        "seconds": round(time.perf_counter() - began, 2),
        "network_seconds": round(repeat.spent, 2),
        "peak_mib": read_peak() // 2**20,
        "bytes": Path(args.output).stat().st_size if code == 0 else 0,
    }
    print(json.dumps(found))


def read_peak() -> int:
    """Return the peak memory of this process; unlike ru_maxrss without that of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def save_small_network(folder: Path) -> Path:
    """Write a network of factor 4 whose architecture costs nothing; it is not run."""
    from realesr_cli.nets.compact import CompactArchitecture
    from realesr_cli.weights.model_files import model_metadata, save_safetensors

    torch.manual_seed(0)
    net = CompactArchitecture(SCALE, 1, 8).build()
    path = folder / "repeat.safetensors"
    save_safetensors(path, net.state_dict(), model_metadata(net.architecture))
    return path


def call(source: Path, target: Path, *options: str) -> dict[str, Any]:
    """Run a child and return what it printed."""
    command = [sys.executable, __file__, "--child", "--input", str(source), "--output"]
    done = subprocess.run([*command, str(target), *options], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def read_windows(path: Path) -> Iterator[tuple[int, int, np.ndarray[Any, Any]]]:
    """Yield top, left and pixels of random windows, as another library reads them."""
    Pillow.MAX_IMAGE_PIXELS = None
    if path.suffix == ".tif":
        import tifffile

        whole = tifffile.imread(path)
    else:
        whole = np.asarray(Pillow.open(path))
    rng = np.random.default_rng(1)
    for _ in range(WINDOWS):
        top, left = rng.integers(0, whole.shape[0] - 64), rng.integers(0, whole.shape[1] - 64)
        yield int(top), int(left), whole[top : top + 64, left : left + 64]


def check_windows(path: Path, image: np.ndarray[Any, Any]) -> float:
    """Return the largest mean difference of a window from the repeated input."""
    worst = 0.0
    for top, left, found in read_windows(path):
        rows, columns = (np.arange(s, s + 64) // SCALE for s in (top, left))
        expected = image[rows][:, columns]
        worst = max(worst, float(np.abs(found.astype(int) - expected).mean()))
    return worst


def measure_formats(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Upscale one large image to every format."""
    width, height = map(int, args.size.split("x"))
    image = make_image(height, width)
    source = folder / f"in.{args.source}"
    Pillow.fromarray(image).save(source, compress_level=1)
    rows = []
    for name, more in (("out.png", []), ("out.tif", ["--big"]), ("out.jpg", [])):
        options = [*more, "--memory", args.memory or "1.5G"]
        options += ["--model", args.model] if args.model else []
        found = call(source, folder / name, *options)
        worst = None if args.model else check_windows(folder / name, image)
        (folder / name).unlink()
        rows.append({"file": name, "input": args.size, **found, "worst_window": worst})
        print(rows[-1], flush=True)
    return rows


def measure_linear(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Time outputs of 1 to 64 megapixels, less what a tiny one takes."""
    rows = []
    for megapixels in (0.01, 1, 4, 16, 64):
        side = round((megapixels * 1e6) ** 0.5 / SCALE)
        Pillow.fromarray(make_image(side, side)).save(folder / "in.png")
        runs = [
            call(folder / "in.png", folder / "out.png", "--seconds", str(args.seconds))
            for _ in range(3)
        ]
        best = min(runs, key=lambda run: run["seconds"])
        rows.append({"megapixels": megapixels, "side": side * SCALE, **best})
        print(rows[-1], flush=True)
    return rows


def measure_tail(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Compare the time of one image of 16 megapixels with that of its network, as fast as a GPU.

    `extra_seconds` is the difference, less what an image of 64x64 pixels takes in all.
    """
    Pillow.fromarray(make_image(1000, 1000)).save(folder / "in.png")
    Pillow.fromarray(make_image(16, 16)).save(folder / "tiny.png")
    pause = ["--seconds", str(args.seconds or 1 / 30)]
    rows = []
    for name in ("out.png", "out.tif", "out.jpg"):
        start = min(call(folder / "tiny.png", folder / name)["seconds"] for _ in range(3))
        runs = [call(folder / "in.png", folder / name, *pause) for _ in range(5)]
        best = min(runs, key=lambda run: run["seconds"] - run["network_seconds"])
        extra = best["seconds"] - best["network_seconds"] - start
        rows.append({"file": name, **best, "extra_seconds": round(extra, 2)})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("--child", "--big", "--linear", "--tail"):
        parser.add_argument(flag, action="store_true")
    for name in ("--input", "--output", "--model", "--memory"):
        parser.add_argument(name)
    parser.add_argument("--size", default="7500x5000")
    parser.add_argument("--source", default="png")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--label", default="large")
    args = parser.parse_args()
    if args.child:
        run_child(args)
        return
    measure = measure_linear if args.linear else measure_tail if args.tail else measure_formats
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args, Path(folder))
    result = {"processor": describe_processor(), "rows": rows}
    (RESULTS / f"{args.label}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
