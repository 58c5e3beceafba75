"""What a run will be, before it is: network, images, steps, and what they need on disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from realesr_cli.train.config import StageConfig, TrainConfig
from realesr_cli.train.files import TrainingImages
from realesr_cli.train.machine import Machine
from realesr_cli.train.state import new_discriminator

FLOAT = 4
"""Bytes of a number in a checkpoint."""

SHEET_BYTES = 600_000
"""About what a row of a sample sheet takes as PNG."""


@dataclass(frozen=True)
class TrainingPlan:
    """The size of a run; sizes in bytes."""

    network: str
    parameters: int
    discriminator: str
    discriminator_parameters: int
    images: int
    megapixels: float
    held_out: int
    batch: int
    """Samples per step in one process."""
    steps: int
    checkpoint: int
    disk: int
    free: int


def make_plan(config: TrainConfig, images: TrainingImages, out: Path) -> TrainingPlan:
    """The plan of a run in a folder; nothing is computed and nothing written."""
    parameters = config.architecture.count_parameters()
    adversarial = [n for n, stage in enumerate(config.stages) if stage.adversarial]
    judge = 0
    if adversarial:
        with torch.device("meta"):
            net = new_discriminator(config, adversarial[0])
        judge = sum(p.numel() for p in net.parameters())
    steps = sum(stage.iterations for stage in config.stages)
    checkpoint = checkpoint_bytes(config, parameters, judge)
    return TrainingPlan(
        network=config.architecture.describe(),
        parameters=parameters,
        discriminator=config.discriminator.kind if adversarial else "",
        discriminator_parameters=judge,
        images=len(images.train),
        megapixels=sum(p.height * p.width for p in images.train) / 1e6,
        held_out=len(images.validation),
        batch=config.data.batch * config.data.accumulate,
        steps=steps,
        checkpoint=checkpoint,
        disk=disk_bytes(config, parameters, checkpoint, scenes=len(images.validation)),
        free=shutil.disk_usage(_existing(out)).free,
    )


def checkpoint_bytes(config: TrainConfig, parameters: int, judge: int) -> int:
    """Size of a checkpoint: weights, their average, two moments of Adam each, and the pool."""
    side, scale = config.data.patch, config.scale
    pair = 3 * side**2 * (1 + 2 * scale**2)
    return FLOAT * (4 * parameters + 3 * judge + config.degradation.pool * pair)


def disk_bytes(config: TrainConfig, parameters: int, checkpoint: int, *, scenes: int) -> int:
    """What a run takes at its largest: checkpoints kept and one being written, model, sheets."""
    kept = config.checkpoints.keep + 2
    every = config.validation.every
    sheets = sum(1 + stage.iterations // every for stage in config.stages) if every else 0
    rows = min(scenes, config.validation.sheet)
    model = FLOAT * parameters * (3 if config.checkpoints.pth else 1)
    return kept * checkpoint + model + sheets * rows * SHEET_BYTES


def stage_text(stage: StageConfig) -> str:
    """A stage in one line: steps, losses, learning rate."""
    losses = []
    for name in ("pixel", "structure", "perceptual", "gan"):
        part = getattr(stage, name)
        if part.weight:
            kind = {
                "pixel": "L1",
                "structure": "SSIM",
                "perceptual": f"perceptual ({stage.perceptual.backbone})",
                "gan": f"{stage.gan.kind} GAN",
            }
            losses.append(f"{kind[name]} x {part.weight:g}")
    rate = f"lr {stage.optimizer.lr:g}, {stage.schedule.kind}"
    return f"{stage.iterations:,} steps, {' + '.join(losses)}, {rate}"


def machine_text(machine: Machine) -> str:
    """Where it runs, in a few words."""
    name = str(machine.device)
    if machine.device.type == "cuda":
        name += f" ({torch.cuda.get_device_name(machine.device)})"
    return f"{name}, {machine.precision}"


def _existing(path: Path) -> Path:
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path
