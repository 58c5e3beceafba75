"""Everything that only a GPU can show, in ten minutes: python benchmarks/gpu_session.py.

Measures the fp16 rate of matrix products, upscaling over tiles and batches against the plain fp16
module in NCHW with the reference's tiling (400 pixels and 10 of padding), a profile of each, runs
`pytest -m gpu`, and splits a training step. Every part writes into the JSON as soon as it is done
and has a share of the time, so a part that fails or is late costs nothing of the others.

`--cpu` computes the same on the CPU with tiny sizes, to test this script.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_upscale import count_flops, make_image
from torch import nn

from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.image.read import from_array
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import standard_architecture

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results"

NETWORKS = {
    "rrdb23-x4": standard_architecture(4),
    "rrdb6-x4": standard_architecture(4, blocks=6),
    "compact32-x4": CompactArchitecture(4, 32),
    "compact16-x4": CompactArchitecture(4, 16),
}
TINY = {
    "rrdb1-x4": standard_architecture(4, blocks=1, features=8, growth=4),
    "compact1-x4": CompactArchitecture(4, 1, 8),
}
REFERENCE_TILE, REFERENCE_PAD = 400, 10


def wait(device: str) -> None:
    """Wait for the device: its work is asynchronous."""
    if device != "cpu":
        torch.cuda.synchronize()


def time_best(function: Callable[[], Any], device: str, *, seconds: float, runs: int = 10) -> float:
    """Return the seconds of the fastest run, after one that does not count."""
    function()
    wait(device)
    best, began = float("inf"), time.perf_counter()
    for _ in range(runs):
        start = time.perf_counter()
        function()
        wait(device)
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() - began > seconds:
            break
    return best


def measure_matmul(args: argparse.Namespace) -> dict[str, Any]:
    """TFLOP/s of matrix products and of the networks' convolutions, in fp16 (CPU: fp32)."""
    dtype = torch.float32 if args.cpu else torch.float16
    size, side = (256, 32) if args.cpu else (8192, 512)
    a = torch.rand(size, size, dtype=dtype, device=args.device)
    found = {"matmul": 2 * size**3 / time_best(lambda: a @ a, args.device, seconds=5) / 1e12}
    for name, layout in (("nchw", torch.contiguous_format), ("nhwc", torch.channels_last)):
        conv = nn.Conv2d(64, 64, 3, padding=1, device=args.device, dtype=dtype)
        conv = conv.to(memory_format=layout)  # type: ignore[call-overload]
        x = torch.rand(1, 64, side, side, device=args.device, dtype=dtype)
        x = x.contiguous(memory_format=layout)
        with torch.inference_mode():
            seconds = time_best(lambda c=conv, x=x: c(x), args.device, seconds=3)
        found[f"conv_{name}"] = 2 * 9 * 64 * 64 * side**2 / seconds / 1e12
    return found


@torch.inference_mode()
def run_reference(network: nn.Module, pixels: Any, device: str, dtype: torch.dtype) -> Any:
    """Enlarge as the reference does: whole image on the device, padded tiles one by one."""
    x = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].to(device, dtype) / 255
    height, width = x.shape[2:]
    y = torch.zeros(1, 3, height * 4, width * 4, device=device, dtype=dtype)
    for top in range(0, height, REFERENCE_TILE):
        for left in range(0, width, REFERENCE_TILE):
            low, near = max(0, top - REFERENCE_PAD), max(0, left - REFERENCE_PAD)
            bottom, right = min(height, top + REFERENCE_TILE), min(width, left + REFERENCE_TILE)
            part = network(x[:, :, low : bottom + REFERENCE_PAD, near : right + REFERENCE_PAD])
            part = part[..., (top - low) * 4 : (bottom - low) * 4, :]
            part = part[..., (left - near) * 4 : (right - near) * 4]
            y[..., top * 4 : bottom * 4, left * 4 : right * 4] = part
    result = y.clamp_(0, 1).mul_(255).round_().byte()[0].permute(1, 2, 0)
    return result.cpu().numpy()


def measure_upscaling(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds per image of ours for tiles and batches, of `auto`, and of the reference's way."""
    dtype = torch.float32 if args.cpu else torch.float16
    height, width = (48, 64) if args.cpu else (1080, 1920)
    pixels, found = make_image(height, width), {}
    tiles = [(16, 1), (16, 2)] if args.cpu else [(256, 4), (512, 1), (512, 4), (1024, 1), (0, 1)]
    networks = TINY if args.cpu else NETWORKS
    for name, architecture in networks.items():
        torch.manual_seed(0)
        network = architecture.build().eval()
        tera = count_flops(architecture.build(), height, width) / 1e12
        limit = args.seconds * 0.5 / len(networks) / (len(tiles) + 2)
        row: dict[str, Any] = {"tflop": tera}
        plain = architecture.build().eval().to(args.device, dtype)
        ways: dict[str, Callable[[], Any]] = {
            "reference": lambda n=plain: run_reference(n, pixels, args.device, dtype)
        }
        for tile, batch in [("auto", "auto"), *tiles]:
            engine = EngineSettings(args.device, "auto", tile, batch=batch, backend="torch")
            upscaler = Upscaler(network, engine)
            ways[f"tile {tile} batch {batch}"] = lambda u=upscaler: u(from_array(pixels))
        for way, run in ways.items():
            try:
                seconds = time_best(run, args.device, seconds=limit)
                row[way] = {"seconds": seconds, "tflop_per_s": tera / seconds}
            except Exception as error:
                row[way] = {"error": f"{type(error).__name__}: {error}"}
        found[name] = row
        save(args, {"upscaling": found})
    return found


def measure_training(args: argparse.Namespace) -> dict[str, Any]:
    """The split of one training step, by bench_train_step.py in a process of its own."""
    found: dict[str, Any] = {}
    for recipe in ("compact-x4", "realesrgan-x4"):
        command = [sys.executable, str(Path(__file__).with_name("bench_train_step.py"))]
        command += ["--recipe", recipe, "--name", f"gpu_session_{recipe}"]
        command += ["--steps", "1", "--warmup", "0"] if args.cpu else ["--batch", "12"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=args.seconds * 0.15, check=False
        )
        found[recipe] = {"code": done.returncode, "output": (done.stdout + done.stderr)[-4000:]}
    return found


def profile(args: argparse.Namespace) -> dict[str, Any]:
    """The operators that take the most time, for one image of each network."""
    from torch.profiler import ProfilerActivity

    height, width = (32, 48) if args.cpu else (512, 512)
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (not args.cpu)
    key = "self_cpu_time_total" if args.cpu else "self_device_time_total"
    found = {}
    for name, architecture in (TINY if args.cpu else NETWORKS).items():
        upscaler = Upscaler(architecture.build().eval(), EngineSettings(args.device))
        image = from_array(make_image(height, width))
        upscaler(image)
        with torch.profiler.profile(activities=kinds) as watched:
            upscaler(image)
            wait(args.device)
        found[name] = watched.key_averages().table(sort_by=key, row_limit=20).splitlines()
    return found


def run_tests(args: argparse.Namespace) -> dict[str, Any]:
    """`pytest -m gpu`; on the CPU only collected."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "-p", "no:randomly"]
    command += ["--collect-only"] if args.cpu else []
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=args.seconds * 0.25, check=False
    )
    return {"code": done.returncode, "output": done.stdout[-6000:] + done.stderr[-2000:]}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "matmul": measure_matmul,
    "upscaling": measure_upscaling,
    "profile": profile,
    "tests": run_tests,
    "training": measure_training,
}


def save(args: argparse.Namespace, parts: dict[str, Any]) -> None:
    """Add parts to the JSON."""
    report = json.loads(args.out.read_text()) if args.out.exists() else {}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report | parts, indent=1) + "\n")


def main() -> None:
    """Run all parts, each whatever became of the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on the CPU, to test this")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this part")
    parser.add_argument("--seconds", type=float, default=600, help="for everything")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    args = parser.parse_args()
    args.device = "cpu" if args.cpu else "cuda"
    args.out.unlink(missing_ok=True)
    name = "CPU" if args.cpu else torch.cuda.get_device_name()
    save(args, {"device": name, "torch": torch.__version__})
    began = time.perf_counter()
    for part in args.part or PARTS:
        start = time.perf_counter()
        if start - began > args.seconds * 0.9:
            save(args, {part: {"error": "no time left"}})
            continue
        try:
            found = PARTS[part](args)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            found = {"error": text, "trace": traceback.format_exc()[-2000:]}
        save(args, {part: found, f"{part}_seconds": round(time.perf_counter() - start, 1)})
        print(part, round(time.perf_counter() - start, 1), "s", found.get("error", "done"))


if __name__ == "__main__":
    main()
