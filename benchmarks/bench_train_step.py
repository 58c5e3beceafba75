"""Where the time of a training step goes: python benchmarks/bench_train_step.py --batch 1.

Real steps of a recipe's last stage on images written for the purpose: reading and cutting crops,
degrading them, updating the generator, updating the discriminator. The perceptual network has
random weights, which cost as much as the real ones. The first steps are not counted; the loss of
the first and the last counted step are given too. JSON: benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path

import numpy as np
import torch
from machine import processor
from PIL import Image

from realesr_cli.train.config import TrainConfig
from realesr_cli.train.cost import random_perceptual
from realesr_cli.train.data import Crops
from realesr_cli.train.distributed import ALONE
from realesr_cli.train.files import gather
from realesr_cli.train.machine import Machine, Stopwatch, choose_machine
from realesr_cli.train.plan import machine_text
from realesr_cli.train.prefetch import Prefetcher, step_keys
from realesr_cli.train.recipes import load_config
from realesr_cli.train.session import RunContext, Session
from realesr_cli.train.state import new_generator, new_stage, set_rates
from realesr_cli.train.step import Setup, update_discriminator, update_generator

RESULTS = Path(__file__).parent / "results"

Rows = list[dict[str, float]]


def write_images(folder: Path, count: int, side: int = 1024) -> None:
    """Large smooth images with grain, as JPEG."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (side // 32, side // 32, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        grain = rng.normal(0, 4, (side, side, 1))
        pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=95)


def measure(config: TrainConfig, machine: Machine, steps: int, warmup: int) -> tuple[Rows, Rows]:
    """Seconds by part and losses, of each counted step of the last stage."""
    number = len(config.stages) - 1
    stage = config.stages[number]
    images = gather(config.data, config.validation, scale=config.scale)
    crops = Crops(images.train, config.data, scale=config.scale, seed=config.seed)
    net = new_generator(config)
    session = Session(
        config, Path(), machine, RunContext(), images, crops, (), net, {}, resumed=None
    )
    state = new_stage(config, machine, stage=number, generator=net)
    perceptual = random_perceptual(stage.perceptual, machine)
    setup = Setup(
        stage, machine, ALONE, state.generator, state.discriminator, perceptual, config.ema.decay
    )
    times: Rows = []
    losses: Rows = []
    keys = step_keys(0, warmup + steps, (0,))
    with Prefetcher(crops.batch, keys, config.data.prefetch) as prefetcher:
        for step in range(warmup + steps):
            set_rates(state, stage, step)
            watch = Stopwatch(machine)
            cut = prefetcher.take(step, 0)
            watch.mark("data")
            pair = session.pair(state, cut)
            watch.mark("degradation")
            outcome = update_generator(state, setup, [pair])
            watch.mark("generator")
            if stage.adversarial:
                judged = update_discriminator(state, setup, [pair], outcome.fakes)
                outcome.losses.update(judged.losses)
                watch.mark("discriminator")
            if step >= warmup:
                times.append(watch.seconds)
                losses.append(outcome.losses)
    crops.close()
    return times, losses


def summary(times: Rows, losses: Rows, config: TrainConfig, machine: Machine) -> dict[str, object]:
    """Medians, shares and memory."""
    parts = {part: float(np.median([row[part] for row in times])) for part in times[0]}
    step = sum(parts.values())
    fed = parts["data"] + parts["degradation"]
    return {
        "recipe": config.recipe,
        "network": config.architecture.describe(),
        "batch": config.data.batch,
        "patch": config.data.patch,
        "machine": machine_text(machine),
        "processor": processor(),
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
