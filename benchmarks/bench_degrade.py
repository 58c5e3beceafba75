"""Compare our degradation with plain dense operations: python benchmarks/bench_degrade.py.

Both apply the same recipes to the same images with the same threads; choices are shared per batch
as in the reference. The plain version does what the published pipeline does: 51x51 and 21x21
convolutions, `unique` to count photons, 8x8x8x8 products for JPEG. The two alternate, so that
other load hits both. A third figure is for our own, per-image choices. `_cpu_ms` is processor time
of all threads, which depends least on other load. JSON: benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from machine import describe_processor
from torch import Tensor

from realesr_cli.degrade import noise
from realesr_cli.degrade.degradation import apply, sample_batch
from realesr_cli.degrade.kernels import build_kernel
from realesr_cli.degrade.presets import get_preset
from realesr_cli.degrade.recipe import (
    Compress,
    Filter,
    GaussianNoise,
    PoissonNoise,
    Recipe,
    Scale,
    Sharpen,
)
from realesr_cli.ops.color import rgb_to_ycbcr_jpeg, ycbcr_jpeg_to_rgb
from realesr_cli.ops.filters import auto_sigma, gaussian_taps
from realesr_cli.ops.jpeg import CHROMA_TABLE, LUMA_TABLE, quality_factor

RESULTS = Path(__file__).parent / "results"
PADDED = 21

Times = tuple[float, float]


def images(count: int, side: int) -> Tensor:
    """Return the same smooth images with edges and a little noise, (count, 3, side, side)."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((count, 3, side // 16, side // 16), dtype=np.float32))
    smooth = F.interpolate(coarse, size=(side, side), mode="bicubic")
    smooth[..., side // 3 : side // 2, :] = 1 - smooth[..., side // 3 : side // 2, :]
    grain = torch.from_numpy(rng.normal(0, 0.02, tuple(smooth.shape)).astype(np.float32))
    return ((smooth + grain).clamp(0, 1) * 255).round() / 255


def plain(recipes: Sequence[Recipe], batch: Tensor) -> Tensor:
    """Apply the recipes of one batch, whose choices are shared, with dense operations."""
    with torch.no_grad():
        for step in range(len(recipes[0].operations)):
            batch = _plain_step([recipe.operations[step] for recipe in recipes], batch)
    return batch


def _plain_step(operations: list, batch: Tensor) -> Tensor:
    first = operations[0]
    if isinstance(first, Sharpen):
        return _dense_sharpen(first, batch)
    if isinstance(first, Filter):
        kernels = np.stack([_padded(op.kernel) for op in operations])
        return _dense_filter(batch, torch.from_numpy(kernels).float())
    if isinstance(first, Scale):
        how = {} if first.mode == "area" else {"align_corners": False}
        if first.factor:
            return F.interpolate(batch, scale_factor=first.factor, mode=first.mode, **how)
        return F.interpolate(batch, size=(first.height, first.width), mode=first.mode, **how)
    if isinstance(first, GaussianNoise | PoissonNoise):
        return torch.stack([_noisy(op, x) for op, x in zip(operations, batch, strict=True)])
    if isinstance(first, Compress):
        return _dense_jpeg(batch, torch.tensor([op.quality for op in operations]))
    return (batch * 255).round().clamp(0, 255) / 255


def _padded(kernel) -> np.ndarray:
    taps = build_kernel(kernel)
    return np.pad(taps, (PADDED - taps.shape[0]) // 2)


def _dense_filter(batch: Tensor, kernels: Tensor) -> Tensor:
    count, channels, height, width = batch.shape
    size = kernels.shape[-1]
    padded = F.pad(batch, (size // 2,) * 4, mode="reflect")
    if kernels.shape[0] == 1:
        planes = padded.view(count * channels, 1, *padded.shape[-2:])
        return F.conv2d(planes, kernels[:, None]).view(count, channels, height, width)
    planes = padded.view(1, count * channels, *padded.shape[-2:])
    weights = kernels[:, None].repeat(1, channels, 1, 1).view(count * channels, 1, size, size)
    result = F.conv2d(planes, weights, groups=count * channels)
    return result.view(count, channels, height, width)


def _dense_sharpen(sharpen: Sharpen, batch: Tensor) -> Tensor:
    size = sharpen.radius + 1 - sharpen.radius % 2
    taps = gaussian_taps(size, auto_sigma(size))
    kernel = torch.outer(taps, taps).float()[None]
    residual = batch - _dense_filter(batch, kernel)
    mask = (residual.abs() * 255 > sharpen.threshold).float()
    soft = _dense_filter(mask, kernel)
    sharp = (batch + sharpen.weight * residual).clamp(0, 1)
    return soft * sharp + (1 - soft) * batch


def _noisy(operation: GaussianNoise | PoissonNoise, image: Tensor) -> Tensor:
    source = noise.make_generator(operation.seed, torch.device("cpu"))
    if isinstance(operation, GaussianNoise):
        made = noise.add_gaussian_noise(image, operation.sigma, gray=operation.gray, source=source)
        return made.clamp(0, 1)
    base = image
    if operation.gray:
        weights = torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)
        base = (image * weights).sum(0, keepdim=True)
    base = (base * 255).round().clamp(0, 255) / 255
    photons = 2 ** math.ceil(math.log2(torch.unique(base).numel()))
    drawn = torch.poisson(base * photons, generator=source) / photons - base
    return (image + drawn * operation.scale).clamp(0, 1)


def _dense_jpeg(batch: Tensor, quality: Tensor) -> Tensor:
    height, width = batch.shape[-2:]
    pad = (0, -width % 16, 0, -height % 16)
    ycbcr = rgb_to_ycbcr_jpeg(F.pad(batch.clamp(0, 1), pad)) * 255
    factor = quality_factor(quality)
    small = F.avg_pool2d(ycbcr[:, 1:], 2)
    luma = _dense_blocks(ycbcr[:, :1], torch.tensor(LUMA_TABLE).t(), factor)
    chroma = _dense_blocks(small, torch.tensor(CHROMA_TABLE), factor)
    chroma = chroma.repeat_interleave(2, -1).repeat_interleave(2, -2)
    rgb = ycbcr_jpeg_to_rgb(torch.cat((luma, chroma), 1) / 255)
    return rgb[..., :height, :width].clamp(0, 1)


def _dense_blocks(planes: Tensor, table: Tensor, factor: Tensor) -> Tensor:
    count, channels, height, width = planes.shape
    blocks = planes.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    place = (torch.arange(8).view(8, 1) * 2 + 1) * torch.arange(8) * math.pi / 16
    cosines = torch.cos(place)
    cosines[:, 0] /= math.sqrt(2)
    basis = torch.einsum("xu,yv->xyuv", cosines, cosines) / 4
    steps = table * factor.view(-1, 1, 1, 1, 1, 1)
    spectrum = torch.tensordot(blocks - 128, basis, 2) / steps
    back = torch.tensordot(spectrum.round() * steps, basis.permute(2, 3, 0, 1), 2) + 128
    return back.transpose(3, 4).reshape(count, channels, height, width)


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Measure milliseconds per image of all versions, and the difference between two of them."""
    shared = replace(get_preset(args.preset), compatible=True)
    own = get_preset(args.preset)
    gt = images(args.batch, args.side)
    size = (args.side, args.side)
    ways = ("plain", "ours", "ours_per_sample_choices")
    seconds: dict[str, list[Times]] = {name: [] for name in ways}
    apart, changed = [], []
    for number in range(args.batches + 1):
        rng = np.random.default_rng(number)
        recipes = sample_batch(shared, rng, args.batch, scale=4, size=size)
        expected, dense = timed(plain, recipes, gt)
        result, fast = timed(apply, recipes, gt)
        drawn = sample_batch(own, rng, args.batch, scale=4, size=size)
        _, full = timed(apply, drawn, gt)
        if number == 0:  # the first batch warms up
            continue
        for name, spent in zip(ways, (dense, fast, full), strict=True):
            seconds[name].append(spent)
        difference = (result - expected).abs() * 255
        apart.append(float(difference.mean()))
        changed.append(float((difference > 0.5).float().mean()))
    means = {}
    for name, found in seconds.items():
        wall, cpu = np.mean(found, axis=0) * 1000 / args.batch
        means |= {f"{name}_ms": round(wall, 2), f"{name}_cpu_ms": round(cpu, 2)}
    return {
        **means,
        "ratio": round(means["plain_ms"] / means["ours_ms"], 2),
        "mean_difference_levels": round(float(np.mean(apart)), 4),
        "share_of_levels_changed": round(float(np.mean(changed)), 5),
    }


def timed(function, recipes: Sequence[Recipe], gt: Tensor) -> tuple[Tensor, Times]:
    """Return the result of a version, its wall-clock seconds and its processor seconds."""
    began, spent = time.perf_counter(), time.process_time()
    result = function(recipes, gt)
    return result, (time.perf_counter() - began, time.process_time() - spent)


def main() -> None:
    """Measure, print and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="realesrgan", choices=["realesrgan"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--side", type=int, default=400)
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--out", type=Path, default=RESULTS / "degrade.json")
    args = parser.parse_args()
    rows = []
    for threads in args.threads or [1, torch.get_num_threads()]:
        torch.set_num_threads(threads)
        rows.append({"preset": args.preset, "side": args.side, "batch": args.batch})
        rows[-1] |= {"batches": args.batches, "threads": threads, **measure(args)}
        print(json.dumps(rows[-1]), flush=True)
    report = {"processor": describe_processor(), "torch": torch.__version__, "rows": rows}
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
