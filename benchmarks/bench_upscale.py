"""Our CPU path against the plain reference way, in one run: python benchmarks/bench_upscale.py.

Both compute the same network with the same weights on the same image with the same threads. The
reference way is the module in fp32, NCHW, the whole image at once. Times are the best of several
alternating runs, so that other load on the machine hits both; the JSON goes to benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import processor

from realesr_cli.engine.policy import machine_info
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.image.read import from_array
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import standard_architecture

RESULTS = Path(__file__).parent / "results"


def networks() -> dict[str, torch.nn.Module]:
    """The released sizes, with the weights that training starts from: speed is the same."""
    torch.manual_seed(0)
    return {
        "rrdb23-x4": standard_architecture(4).build(),
        "rrdb6-x4": standard_architecture(4, blocks=6).build(),
        "compact32-x4": CompactArchitecture(4, 32).build(),
        "compact16-x4": CompactArchitecture(4, 16).build(),
    }


def make_image(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A smooth image with some noise, always the same."""
    rng = np.random.default_rng(0)
    ys, xs = np.mgrid[0:height, 0:width]
    base = 127 + 80 * np.sin(xs / 17)[..., None] * np.cos(
        ys / np.array([23, 31, 41])[:, None, None]
    ).transpose(1, 2, 0)
    return np.clip(base + rng.normal(0, 8, base.shape), 0, 255).astype(np.uint8)


def reference(net: torch.nn.Module, pixels: Any, device: str) -> Any:
    """fp32, NCHW, whole image, rounded to 8 bits."""
    with torch.no_grad():
        x = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float().div(255).to(device)
        y = net(x).clamp(0, 1).mul(255).round().byte()
        return y[0].permute(1, 2, 0).cpu().numpy()


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Both ways in turn; seconds of the best run of each, their ratio and their agreement."""
    net = networks()[name].eval()
    pixels = make_image(args.height, args.width)
    engine = EngineSettings(device=args.device, precision=args.precision, tile=args.tile)
    upscaler = Upscaler(net, engine)
    image = from_array(pixels)
    plain_net = net.to(upscaler.policy.device)
    ours, theirs = [], []
    result, expected = None, None
    for _ in range(args.runs):
        began = time.perf_counter()
        result = upscaler(image).pixels
        ours.append(time.perf_counter() - began)
        if len(theirs) < args.plain_runs:
            began = time.perf_counter()
            expected = reference(plain_net, pixels, upscaler.policy.device)
            theirs.append(time.perf_counter() - began)
    assert result is not None
    assert expected is not None
    difference = result.astype(float) - expected
    mse = float((difference**2).mean())
    return {
        "network": name,
        "height": args.height,
        "width": args.width,
        "ours_s": round(min(ours), 4),
        "plain_s": round(min(theirs), 4),
        "ratio": round(min(theirs) / min(ours), 2),
        "megapixels_out_per_s": round(result.shape[0] * result.shape[1] / 1e6 / min(ours), 3),
        "psnr_db": round(10 * np.log10(255**2 / mse), 2) if mse else None,
        "device": upscaler.policy.device,
        "precision": upscaler.policy.precision,
        "backend": upscaler.policy.backend,
        "tile": upscaler.policy.tile,
        "overlap": upscaler.policy.overlap,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Measure, print and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append", choices=list(networks()))
    parser.add_argument("--height", type=int, default=448)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--tile", type=lambda t: t if t == "auto" else int(t), default="auto")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--plain-runs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "upscale.json")
    args = parser.parse_args()
    rows = []
    for name in args.network or networks():
        rows.append(measure(name, args))
        print(json.dumps(rows[-1]), flush=True)
    found = machine_info()
    report = {
        "processor": processor(),
        "flags": sorted(found.cpu_flags),
        "gpus": [gpu.name for gpu in found.gpus],
        "torch": torch.__version__,
        "rows": rows,
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
