"""How steady upscaling is beside other programs: python benchmarks/bench_busy.py.

One image is upscaled idle and beside busy processes, by ours and by the plain module with torch's
OpenMP threads. A fair share of two cores beside two busy processes is twice the idle time; what is
lost beyond that is waiting. The last rows run more workers than there are cores, idle, which shows
what they cost themselves. Each measurement is a process of its own; the median of
its runs counts. The JSON goes to benchmarks/results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from bench_upscale import NETWORKS, make_image, upscale_plainly
from machine import describe_processor

from realesr_cli.engine.policy import usable_cores
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.image.read import from_array

RESULTS = Path(__file__).parent / "results"


@contextlib.contextmanager
def neighbors(count: int) -> Iterator[None]:
    """Keep so many processes busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def work(args: argparse.Namespace) -> list[float]:
    """Return the seconds of each run, in this process."""
    torch.manual_seed(0)
    network = NETWORKS[args.network].build().eval()
    pixels = make_image(args.height, args.width)
    upscaler = Upscaler(network, EngineSettings("cpu", args.precision, threads=args.threads))
    image = from_array(pixels)
    seconds = []
    for _ in range(args.runs + 1):
        began = time.perf_counter()
        if args.way == "ours":
            upscaler(image)
        else:
            upscale_plainly(network, pixels, "cpu")
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def measure(way: str, threads: int, busy: int, args: argparse.Namespace) -> float:
    """Return the median seconds of a way beside `busy` processes."""
    command = [
        sys.executable, __file__, "--worker", "--way", way, "--threads", str(threads),
        "--network", args.network, "--precision", args.precision, "--runs", str(args.runs),
        "--height", str(args.height), "--width", str(args.width),
    ]  # fmt: skip
    with neighbors(busy):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return statistics.median(json.loads(done.stdout))


def main() -> None:
    """Measure, print and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=list(NETWORKS), default="compact32-x4")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--height", type=int, default=448)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "busy.json")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(work(args)))
        return
    cores = usable_cores()
    cases = [(way, cores, busy) for way in ("ours", "plain") for busy in (0, 1, cores, 4 * cores)]
    cases += [("ours", cores * factor, 0) for factor in (4, 8)]
    rows: list[dict[str, Any]] = []
    for way, threads, busy in cases:
        seconds = measure(way, threads, busy, args)
        idle = next((row["seconds"] for row in rows if row["way"] == way), seconds)
        row = {"way": way, "threads": threads, "busy": busy, "seconds": round(seconds, 4)}
        rows.append({**row, "times_idle": round(seconds / idle, 2)})
        print(json.dumps(rows[-1]), flush=True)
    report = {
        "processor": describe_processor(),
        "cores": cores,
        "network": args.network,
        "precision": args.precision,
        "size": [args.height, args.width],
        "torch": torch.__version__,
        "rows": rows,
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
