"""Measure the parts of a training step: python benchmarks/bench_train_step.py --batch 1.

Real steps of a recipe's last stage on generated images: cropping, degradation, generator,
discriminator. The perceptual network has random weights, which cost as much as the real ones. The
first steps are not counted; the losses of the first and the last counted step are recorded, too.
JSON: benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path

import numpy as np
import torch
from machine import describe_processor
from PIL import Image

from realesr_cli.train.config import TrainConfig
from realesr_cli.train.cropping import Crops
from realesr_cli.train.data import Batches
from realesr_cli.train.files import find_training_images
from realesr_cli.train.losses import active_losses
from realesr_cli.train.machine import Machine, Stopwatch, choose_machine
from realesr_cli.train.recipes import load_config
from realesr_cli.train.state import new_generator, new_stage
from realesr_cli.train.step import make_setup, train_step

RESULTS = Path(__file__).parent / "results"

Rows = list[dict[str, float]]


def write_images(folder: Path, count: int, side: int = 1024) -> None:
    """Write large smooth images with noise, as JPEG."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (side // 32, side // 32, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        noise = rng.normal(0, 4, (side, side, 1))
        pixels = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=95)


def measure(config: TrainConfig, machine: Machine, steps: int, warmup: int) -> tuple[Rows, Rows]:
    """Return seconds by part and losses, of each counted step of the last stage."""
    number = len(config.stages) - 1
    images = find_training_images(config.data, config.validation, scale=config.scale)
    crops = Crops(images.train, config.data, scale=config.scale, seed=config.seed)
    state = new_stage(config, machine, stage=number, generator=new_generator(config))
    networks = {
        name: spec.build(loss).to(machine.device)
        for name, spec, loss in active_losses(config.stages[number])
        if spec.build is not None
    }
    setup = make_setup(config, machine, state, networks=networks)
    times: Rows = []
    losses: Rows = []
    span = range(warmup + steps)
    with Batches(crops, config, machine, pool=state.pool, steps=span, streams=(0,)) as batches:
        for step in span:
            watch = Stopwatch(machine)
            result = train_step(state, setup, batches.take(step, watch), watch)
            if step >= warmup:
                times.append(watch.seconds)
                losses.append(result.losses)
    crops.close()
    return times, losses


def summary(times: Rows, losses: Rows, config: TrainConfig, machine: Machine) -> dict[str, object]:
    """Return medians, shares and memory."""
    parts = {part: float(np.median([row[part] for row in times])) for part in times[0]}
    step = sum(parts.values())
    fed = parts["data"] + parts["degradation"]
    return {
        "recipe": config.recipe,
        "network": config.architecture.describe(),
        "batch": config.data.batch,
        "patch": config.data.patch,
        "machine": machine.describe(),
        "processor": describe_processor(),
        "threads": torch.get_num_threads(),
        "steps": len(times),
        "seconds_per_step": round(step, 4),
        "steps_per_second": round(1 / step, 4),
        "seconds": {part: round(spent, 4) for part, spent in parts.items()},
        "share_of_data_and_degradation": round(fed / step, 4),
        "peak_accelerator_bytes": machine.peak_memory(),
        "peak_process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def main() -> None:
    """Measure one recipe and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="realesrgan-x4")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--name", default="", help="file name of the result, without .json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), args.images)
        sets = [f"data.gt=['{folder}']", f"data.batch={args.batch}", "validation.split=0"]
        config = load_config(args.recipe, [*sets, *args.sets])
        machine = choose_machine(config.runtime)
        times, losses = measure(config, machine, args.steps, args.warmup)
    found = summary(times, losses, config, machine)
    print(json.dumps(found, indent=2))
    RESULTS.mkdir(exist_ok=True)
    name = args.name or f"train_step_{args.recipe}_{machine.device.type}_b{args.batch}"
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
