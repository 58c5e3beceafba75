"""Everything that changes while a stage is trained: networks, average, optimizers, progress."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from realesr_cli.degrade.pairs import Pool
from realesr_cli.nets.compact import Compact
from realesr_cli.nets.discriminators import UNetDiscriminator, VGGDiscriminator
from realesr_cli.train.config import OptimizerConfig, StageConfig, TrainConfig
from realesr_cli.train.machine import Machine
from realesr_cli.train.schedule import learning_rate

SEED_STRIDE = 2**31
"""Seed distance between the random starts of a run's networks."""

PRELU_START = 0.25
"""Slope that every PReLU starts with."""


@dataclass
class TrainProgress:
    """How far a run is and how it has gone; plain numbers, saved with every checkpoint."""

    stage: int = 0
    step: int = 0
    """Updates done in this stage."""
    skipped: int = 0
    """Steps in a row whose loss was not finite."""
    worse: int = 0
    """Validations in a row that scored below the start of the stage."""
    baseline: dict[str, float] = field(default_factory=dict)
    """Scores of the weights the stage started from."""
    origin: dict[str, float] = field(default_factory=dict)
    """Scores of the weights the run started from, before its first stage."""
    best: dict[str, float] = field(default_factory=dict)
    """Scores of the best validation of this stage."""
    best_step: int = 0
    loss: dict[str, float] = field(default_factory=dict)
    """Running means that the guards look at."""

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass
class TrainState:
    """The networks of one stage and what belongs to them.

    `ema` has the generator's averaged parameters; the discriminator, its optimizer and scaler are
    None in a stage without an adversarial loss, scalers also without fp16.
    """

    progress: TrainProgress
    generator: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: GradScaler | None
    discriminator: nn.Module | None = None
    d_optimizer: torch.optim.Optimizer | None = None
    d_scaler: GradScaler | None = None
    pool: Pool | None = None


def new_generator(config: TrainConfig) -> nn.Module:
    """The generator with random weights that depend on the run's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = config.architecture.build()
        if isinstance(net, Compact):
            init_compact(net)
        return net


@torch.no_grad()
def init_compact(net: Compact) -> None:
    """Start a plain stack of convolutions so that the signal reaches its end.

    torch's usual start shrinks it by more than half in each of the 16 layers, and training then
    stands still for thousands of steps. He et al. 2015, equation 15, with the PReLU's slope; the
    last layer at a hundredth, so that the network starts as its nearest-neighbor skip.
    """
    convs = [layer for layer in net.body if isinstance(layer, nn.Conv2d)]
    for conv in convs:
        nn.init.kaiming_normal_(conv.weight, a=PRELU_START)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    convs[-1].weight.mul_(0.01)


def new_discriminator(config: TrainConfig, stage: int) -> nn.Module:
    """The discriminator with random weights that depend on the run's seed and the stage."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + SEED_STRIDE * (stage + 1))
        if config.discriminator.kind == "unet":
            return UNetDiscriminator(features=config.discriminator.features)
        size = config.data.patch * config.scale
        return VGGDiscriminator(features=config.discriminator.features, size=size)


def new_stage(
    config: TrainConfig,
    machine: Machine,
    *,
    stage: int,
    generator: nn.Module,
    discriminator: nn.Module | None = None,
) -> TrainState:
    """The state at the start of a stage, with a generator (and discriminator) to start from.

    A stage with an adversarial loss gets a random discriminator where none is given.
    """
    settings = config.stages[stage]
    generator = machine.place(generator).train().requires_grad_(True)
    state = TrainState(
        TrainProgress(stage),
        generator,
        ema=copy.deepcopy(generator).eval().requires_grad_(False),
        optimizer=new_optimizer(generator, settings.optimizer, settings.optimizer.lr),
        scaler=machine.scaler(),
        pool=Pool(config.degradation.pool) if config.degradation.pool else None,
    )
    if settings.adversarial:
        judge = machine.place(discriminator or new_discriminator(config, stage)).train()
        rate = settings.optimizer.discriminator_lr or settings.optimizer.lr
        state.discriminator = judge
        state.d_optimizer = new_optimizer(judge, settings.optimizer, rate)
        state.d_scaler = machine.scaler()
    return state


def new_optimizer(net: nn.Module, config: OptimizerConfig, rate: float) -> torch.optim.Adam:
    """Adam over all parameters of a network."""
    return torch.optim.Adam(
        net.parameters(), lr=rate, betas=config.betas, weight_decay=config.weight_decay
    )


@torch.no_grad()
def update_ema(ema: nn.Module, net: nn.Module, decay: float) -> None:
    """Move averaged parameters toward the network's: ema = decay * ema + (1 - decay) * net.

    Parameters only, after every update, as in the reference training.
    """
    averaged: list[Tensor] = list(ema.parameters())
    current: list[Tensor] = list(net.parameters())
    torch._foreach_lerp_(averaged, current, 1 - decay)


def set_rates(state: TrainState, stage: StageConfig, step: int) -> dict[str, float]:
    """Give both optimizers their learning rates for the update after `step`, and return them."""
    base, rates = stage.optimizer, {}
    wanted = {"lr": (state.optimizer, base.lr)}
    if state.d_optimizer is not None:
        wanted["d_lr"] = (state.d_optimizer, base.discriminator_lr or base.lr)
    for name, (optimizer, rate) in wanted.items():
        rates[name] = learning_rate(stage.schedule, rate, step=step, iterations=stage.iterations)
        for group in optimizer.param_groups:
            group["lr"] = rates[name]
    return rates
