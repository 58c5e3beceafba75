"""A training small enough for tests: images, settings, and a listener that remembers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from realesr_cli.train.checkpoint import find_checkpoint
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.distributed import ALONE, World
from realesr_cli.train.events import Event, Notice, StepDone, Validated
from realesr_cli.train.loop import TrainResult, train
from realesr_cli.train.machine import Machine
from realesr_cli.train.recipes import load_config
from realesr_cli.train.session import Resume, open_session

CPU = Machine(torch.device("cpu"))

SETS = (
    "generator.blocks=1", "generator.features=8", "generator.growth=4", "data.patch=8",
    "discriminator.features=2", "perceptual.weight=0", "data.batch=2", "iterations=4",
    "validation.every=4", "checkpoints.every=2", "validation.side=64", "runtime.log_every=1",
    "degradation.preset=light", "degradation.usm=true", "runtime.tensorboard=false",
    # The same arithmetic on every processor.
    "runtime.precision=fp32", "runtime.channels_last=false",
)  # fmt: skip


def make_images(folder: Path, count: int = 6, height: int = 72, width: int = 88) -> Path:
    """A folder of small smooth images."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


def tiny_config(data: Path, *sets: str, recipe: str = "realesrgan-x4") -> TrainConfig:
    """Two stages of four steps, or another recipe with the same sizes."""
    return load_config(recipe, [*SETS, f"data.gt=['{data}']", *sets])


@dataclass
class Memory:
    """A listener that keeps every event, and asks to stop after so many steps."""

    stop_after: int = 10**9
    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Keep an event."""
        self.events.append(event)

    def stop(self) -> bool:
        """Whether to stop now."""
        return len(self.steps) >= self.stop_after

    @property
    def steps(self) -> list[StepDone]:
        """Updates, in order."""
        return [e for e in self.events if isinstance(e, StepDone)]

    @property
    def scores(self) -> list[Validated]:
        """Validations, in order."""
        return [e for e in self.events if isinstance(e, Validated)]

    @property
    def notices(self) -> list[str]:
        """The texts of all notices."""
        return [e.text for e in self.events if isinstance(e, Notice)]


def run(
    config: TrainConfig,
    out: Path,
    memory: Memory | None = None,
    *,
    resume: bool = False,
    after_step: Callable[[], None] | None = None,
    world: World = ALONE,
) -> TrainResult:
    """Train on the CPU; `after_step` is called after each step."""
    memory = memory or Memory()
    start = Resume(find_checkpoint(out)) if resume else None

    def listen(event: Event) -> None:
        memory(event)
        if after_step is not None and isinstance(event, StepDone):
            after_step()

    session = open_session(config, out, CPU, world=world, resume=start)
    return train(session, listener=listen, stop_requested=memory.stop)
