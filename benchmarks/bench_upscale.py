"""Our CPU and GPU path against the plain way: python benchmarks/bench_upscale.py.

Both compute the same network with the same weights on the same image with the same threads. The
plain way is the PyTorch module in fp32, NCHW, the whole image at once. On Linux both are measured
twice, with glibc's allocator as it is and tuned to keep freed memory (machine.TUNED_MALLOC): as it
is, the plain way spends up to half of its time in page faults, so the honest ratio is the one to
the tuned plain way.

Every measurement is a process of its own; the processes alternate, so that other load on the
machine hits all of them, and the best time counts. The ceiling is that of 3x3 convolutions, the
same that the networks consist of, measured in the same processes. The JSON goes to
benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import TUNED_MALLOC, describe_processor
from torch import nn

from realesr_cli.engine.policy import machine_info
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.engine.workers import get_workers
from realesr_cli.image.read import from_array
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import standard_architecture

RESULTS = Path(__file__).parent / "results"

NETWORKS = {
    "rrdb23-x4": standard_architecture(4),
    "rrdb6-x4": standard_architecture(4, blocks=6),
    "compact32-x4": CompactArchitecture(4, 32),
    "compact16-x4": CompactArchitecture(4, 16),
}
"""The released sizes."""

WAYS = [("ours", False), ("plain", False), ("ours", True), ("plain", True)]
"""What is measured: which way, and whether glibc's allocator is tuned."""


def make_image(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a smooth image with some noise, always the same."""
    rng = np.random.default_rng(0)
    ys, xs = np.mgrid[0:height, 0:width]
    base = 127 + 80 * np.sin(xs / 17)[..., None] * np.cos(
        ys / np.array([23, 31, 41])[:, None, None]
    ).transpose(1, 2, 0)
    return np.clip(base + rng.normal(0, 8, base.shape), 0, 255).astype(np.uint8)


def count_flops(network: nn.Module, height: int, width: int) -> int:
    """Return the floating-point operations of the convolutions for one image."""
    total = 0

    def add(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += 2 * module.weight.numel() * output.shape[-2] * output.shape[-1]

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    with torch.no_grad():
        network.to("meta")(torch.empty(1, 3, height, width, device="meta"))
    return total


def upscale_plainly(network: nn.Module, pixels: Any, device: str) -> Any:
    """Compute fp32, NCHW, the whole image, rounded to 8 bits."""
    with torch.no_grad():
        x = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float().div(255).to(device)
        y = network(x).clamp(0, 1).mul(255).round().byte()
        return y[0].permute(1, 2, 0).cpu().numpy()


def measure_ceiling(dtype: torch.dtype, threads: int) -> float:
    """Return the GFLOP/s of 3x3 convolutions 64 to 64, channels-last, 192x192, on the CPU.

    Each of so many workers computes its own, which is faster than sharing each convolution.
    """
    conv = nn.Conv2d(64, 64, 3, padding=1).to(dtype).to(memory_format=torch.channels_last)
    conv.requires_grad_(False)
    images = [torch.rand(1, 64, 192, 192).to(dtype) for _ in range(threads)]
    images = [image.contiguous(memory_format=torch.channels_last) for image in images]
    repeats, best, workers = 10, float("inf"), get_workers(threads)

    def compute(image: torch.Tensor) -> None:
        for _ in range(repeats):
            conv(image)

    for _ in range(6):
        began = time.perf_counter()
        workers.each(compute, images)
        best = min(best, time.perf_counter() - began)
    return 2 * 64 * 64 * 9 * 192 * 192 * repeats * threads / best / 1e9


def work(args: argparse.Namespace) -> dict[str, Any]:
    """Measure one way, in this process: seconds of the best run, page faults, what was chosen."""
    torch.manual_seed(0)
    network = NETWORKS[args.network[0]].build().eval()
    pixels = make_image(args.height, args.width)
    engine = EngineSettings(args.device, args.precision, args.tile)
    upscaler = Upscaler(network, engine)
    device, image = upscaler.policy.device, from_array(pixels)
    network = network.to(device)

    def run() -> Any:
        if args.way == "ours":
            return upscaler(image).pixels
        return upscale_plainly(network, pixels, device)

    run()  # memory and kernels are set up by the first one
    seconds, faults = [], []
    for _ in range(args.runs):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        began = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - began)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    policy = upscaler.policy
    if args.save is not None:
        np.save(args.save, result)
    return {
        "seconds": min(seconds),
        "faults": min(faults),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "ceiling": measure_ceiling(
            policy.dtype if args.way == "ours" else torch.float32, policy.threads
        ),
        "chosen": {
            "device": device,
            "precision": policy.precision,
            "backend": policy.backend,
            "tile": policy.tile,
            "overlap": policy.overlap,
            "threads": torch.get_num_threads(),
        },
    }


def start(name: str, way: str, tuned: bool, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one way in a process of its own."""
    command = [
        sys.executable, __file__, "--worker", "--way", way, "--network", name,
        "--height", str(args.height), "--width", str(args.width), "--device", args.device,
        "--precision", args.precision, "--tile", str(args.tile), "--runs", str(args.runs),
        "--save", str(args.out.with_suffix(f".{way}.npy")),
    ]  # fmt: skip
    environment = {**os.environ, **(TUNED_MALLOC if tuned else {})}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measure all ways in turn, several times; return the best of each and their ratios."""
    ways = WAYS if sys.platform == "linux" else WAYS[:2]
    found: dict[tuple[str, bool], list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(args.rounds):
        for way, tuned in ways:
            found[way, tuned].append(start(name, way, tuned, args))
    seconds = {way: min(run["seconds"] for run in runs) for way, runs in found.items()}
    flops = count_flops(NETWORKS[name].build(), args.height, args.width)
    rate = flops / seconds["ours", False] / 1e9
    megapixels = args.height * args.width * NETWORKS[name].scale ** 2 / 1e6
    ceiling = max(run["ceiling"] for run in found["ours", False])
    row = {"network": name, "height": args.height, "width": args.width}
    for way, tuned in ways:
        key = f"{way}_tuned" if tuned else way
        row[f"{key}_s"] = round(seconds[way, tuned], 4)
        row[f"{key}_faults"] = min(run["faults"] for run in found[way, tuned])
        row[f"{key}_peak_mib"] = max(run["peak_mib"] for run in found[way, tuned])
    row["ratio_to_plain"] = round(seconds["plain", False] / seconds["ours", False], 2)
    if len(ways) > 2:
        row["ratio_to_tuned_plain"] = round(seconds["plain", True] / seconds["ours", False], 2)
    row |= {
        "gflop_per_s": round(rate, 1),
        "share_of_ceiling": round(rate / ceiling, 3),
        "megapixels_out_per_s": round(megapixels / seconds["ours", False], 3),
        "psnr_db": compare(args.out),
        **found["ours", False][0]["chosen"],
    }
    return row


def compare(out: Path) -> float | None:
    """Return the PSNR between what both ways gave, and remove their files."""
    paths = [out.with_suffix(f".{way}.npy") for way in ("ours", "plain")]
    ours, plain = (np.load(path).astype(float) for path in paths)
    for path in paths:
        path.unlink()
    mse = float(((ours - plain) ** 2).mean())
    return round(10 * np.log10(255**2 / mse), 2) if mse else None


def main() -> None:
    """Measure, print and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append", choices=list(NETWORKS))
    parser.add_argument("--height", type=int, default=448)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--tile", type=lambda t: t if t == "auto" else int(t), default="auto")
    parser.add_argument("--runs", type=int, default=2, help="images per process")
    parser.add_argument("--rounds", type=int, default=3, help="processes per way")
    parser.add_argument("--out", type=Path, default=RESULTS / "upscale.json")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--save", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(work(args)))
        return
    args.out.parent.mkdir(exist_ok=True)
    rows = []
    for name in args.network or NETWORKS:
        rows.append(measure(name, args))
        print(json.dumps(rows[-1]), flush=True)
    found = machine_info()
    report = {
        "processor": describe_processor(),
        "flags": sorted(found.cpu_flags),
        "gpus": [gpu.name for gpu in found.gpus],
        "torch": torch.__version__,
        "rows": rows,
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
