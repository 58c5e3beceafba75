"""Everything that changes during a stage: networks, average, optimizers, progress."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from realesr_cli.degrade.pairs import Pool
from realesr_cli.nets.compact import Compact
from realesr_cli.nets.discriminators import UNetDiscriminator, VGGDiscriminator
from realesr_cli.train.config import StageConfig, TrainConfig
from realesr_cli.train.machine import Machine
from realesr_cli.train.settings import OptimizerConfig, ScheduleConfig

SEED_STRIDE = 2**31
"""Distance between the seeds of a run's networks."""

PRELU_START = 0.25
"""Initial slope of every PReLU."""


@dataclass(frozen=True)
class TrainProgress:
    """Position and history of a run: plain numbers, saved with every checkpoint."""

    stage: int = 0
    step: int = 0
    """Steps done in this stage."""
    skipped: int = 0
    """Steps in a row that were skipped because the loss was not finite."""
    worse: int = 0
    """Validations in a row below the start of the stage."""
    stage_start: dict[str, float] = field(default_factory=dict)
    """Scores of the weights the stage started from."""
    run_start: dict[str, float] = field(default_factory=dict)
    """Scores of the weights the run started from."""
    best: dict[str, float] = field(default_factory=dict)
    """Scores of the best validation of this stage."""
    best_step: int = 0
    logits: dict[str, float] = field(default_factory=dict)
    """Running means of the discriminator's logits, which the monitors look at."""

    def plain(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass
class TrainState:
    """The networks of one stage and what belongs to them.

    `ema` has the averaged parameters of the generator, or is None without averaging. The
    discriminator, its optimizer and its scaler are None in a stage without an adversarial loss;
    scalers are None without fp16.
    """

    progress: TrainProgress
    generator: nn.Module
    ema: nn.Module | None
    optimizer: torch.optim.Optimizer
    scaler: GradScaler | None
    discriminator: nn.Module | None = None
    d_optimizer: torch.optim.Optimizer | None = None
    d_scaler: GradScaler | None = None
    pool: Pool | None = None
    consistent: bool = True
    """False while an update is applied: after an error then, the state must not be saved."""

    @property
    def averaged(self) -> nn.Module:
        """The generator to validate and to save: the average, or the generator without one."""
        return self.ema if self.ema is not None else self.generator


@contextlib.contextmanager
def undo_on_error(state: TrainState) -> Iterator[None]:
    """Restore the state if an error ends the block, which must not apply an update.

    Computing gradients moves the discriminator's buffers and exchanges pairs with the pool; with
    these undone, the state is again exactly that after the last step.
    """
    net, pool = state.discriminator, state.pool
    buffers = [] if net is None else list(net.buffers())
    copies = [buffer.clone() for buffer in buffers]
    pairs = None if pool is None else pool.pairs
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for buffer, copy_ in zip(buffers, copies, strict=True):
                buffer.copy_(copy_)
        if pool is not None and pairs is not None:
            pool.pairs = pairs
        for optimizer in (state.optimizer, state.d_optimizer):
            if optimizer is not None:
                optimizer.zero_grad(set_to_none=True)
        raise


def new_generator(config: TrainConfig) -> nn.Module:
    """Build the generator with random weights that depend on the run's seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = config.architecture.build()
        if isinstance(net, Compact):
            init_compact(net)
        return net


@torch.no_grad()
def init_compact(net: Compact) -> None:
    """Initialize a plain stack of convolutions so that the signal reaches its end.

    PyTorch's default shrinks the signal by more than half in each of 16 layers, and training then
    stalls for thousands of steps. He et al. 2015, equation 15, with the PReLU's slope; the last
    layer is scaled by 0.01, so that the network starts as its nearest-neighbor skip.
    """
    convs = [layer for layer in net.body if isinstance(layer, nn.Conv2d)]
    for conv in convs:
        nn.init.kaiming_normal_(conv.weight, a=PRELU_START)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    convs[-1].weight.mul_(0.01)


def new_discriminator(config: TrainConfig, stage: int) -> nn.Module:
    """Build the discriminator with random weights that depend on the run's seed and the stage."""
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
    """Return the state at the start of a stage.

    A stage with an adversarial loss gets a random discriminator where none is given.
    """
    settings = config.stages[stage]
    generator = machine.place(generator).train().requires_grad_(True)
    state = TrainState(
        TrainProgress(stage),
        generator,
        ema=(copy.deepcopy(generator).eval().requires_grad_(False) if config.ema.decay else None),
        optimizer=new_optimizer(generator, settings.optimizer, settings.optimizer.lr),
        scaler=machine.scaler(),
        pool=Pool(config.degradation.pool) if config.degradation.pool else None,
    )
    if settings.adversarial:
        net = machine.place(discriminator or new_discriminator(config, stage)).train()
        lr = settings.optimizer.discriminator_lr or settings.optimizer.lr
        state.discriminator = net
        state.d_optimizer = new_optimizer(net, settings.optimizer, lr)
        state.d_scaler = machine.scaler()
    return state


def new_optimizer(net: nn.Module, config: OptimizerConfig, lr: float) -> torch.optim.Optimizer:
    """Return an optimizer of all parameters of a network; a fused one on CUDA."""
    parameters = list(net.parameters())
    kind = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    # One kernel instead of hundreds. Not on a CPU, where it gains little and rounds differently.
    fused = parameters[0].device.type == "cuda"
    return kind(
        parameters, lr=lr, betas=config.betas, weight_decay=config.weight_decay, fused=fused or None
    )


@torch.no_grad()
def update_ema(ema: nn.Module, net: nn.Module, decay: float) -> None:
    """Update averaged parameters: ema = decay * ema + (1 - decay) * net.

    Parameters only, after every step, as in the reference training.
    """
    averaged: list[Tensor] = list(ema.parameters())
    current: list[Tensor] = list(net.parameters())
    torch._foreach_lerp_(averaged, current, 1 - decay)


def learning_rate(schedule: ScheduleConfig, base: float, *, step: int, iterations: int) -> float:
    """Return the learning rate of the update after `step` updates of a stage of `iterations`.

    A milestone m multiplies by gamma every update after the m-th. A cosine falls from `base` to
    `min_lr` over its period and starts again (Loshchilov & Hutter 2017, equation 5). Warm-up
    multiplies by (step + 1) / warmup.
    """
    rate = base
    if schedule.kind == "multistep":
        rate *= schedule.gamma ** sum(step >= milestone for milestone in schedule.milestones)
    elif schedule.kind == "cosine":
        period = schedule.period or max(1, iterations)
        phase = math.cos(math.pi * (step % period) / period)
        rate = schedule.min_lr + (base - schedule.min_lr) * (1 + phase) / 2
    return rate * min(1.0, (step + 1) / schedule.warmup) if schedule.warmup else rate


def set_learning_rates(state: TrainState, stage: StageConfig) -> dict[str, float]:
    """Set the learning rates of both optimizers for the next step and return them."""
    base, rates = stage.optimizer, {}
    optimizers = {"lr": (state.optimizer, base.lr)}
    if state.d_optimizer is not None:
        optimizers["d_lr"] = (state.d_optimizer, base.discriminator_lr or base.lr)
    for name, (optimizer, lr) in optimizers.items():
        rates[name] = learning_rate(
            stage.schedule, lr, step=state.progress.step, iterations=stage.iterations
        )
        for group in optimizer.param_groups:
            group["lr"] = rates[name]
    return rates
