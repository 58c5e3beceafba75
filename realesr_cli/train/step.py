"""One update of the generator, and one of the discriminator, from batches to changed weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from realesr_cli.degrade.pairs import Pair
from realesr_cli.nets.discriminators import norms_moved
from realesr_cli.train.config import StageConfig
from realesr_cli.train.distributed import World, synced_only
from realesr_cli.train.losses import (
    PerceptualLoss,
    discriminator_gan_loss,
    generator_gan_loss,
    pixel_loss,
    ssim_loss,
)
from realesr_cli.train.machine import Machine
from realesr_cli.train.state import TrainState, update_ema


@dataclass(frozen=True)
class Setup:
    """What stays the same during a stage: its settings, the frozen features, where it runs.

    `generator` and `discriminator` are what is called in training: the state's networks, wrapped
    where several processes train together.
    """

    stage: StageConfig
    machine: Machine
    world: World
    generator: nn.Module
    discriminator: nn.Module | None
    perceptual: PerceptualLoss | None
    ema_decay: float


@dataclass(frozen=True)
class Outcome:
    """What an update did: mean losses by name, and whether the weights were left as they were."""

    losses: dict[str, float] = field(default_factory=dict)
    skipped: bool = False
    fakes: tuple[Tensor, ...] = ()
    """Generated images of each batch, made before the update."""


def update_generator(state: TrainState, setup: Setup, batches: Sequence[Pair]) -> Outcome:
    """One step of the generator and its average over the batches together.

    The gradient is that of the mean over all batches, as of one large batch. Where the loss or
    the gradient is not finite, nothing is changed and the outcome says so.
    """
    found: list[dict[str, Tensor]] = []
    fakes: list[Tensor] = []
    if state.discriminator is not None:
        state.discriminator.requires_grad_(False)
    # As often as the reference's single forward pass would.
    with norms_moved(state.discriminator):
        for number, pair in enumerate(batches, 1):
            with synced_only(setup.generator, sync=number == len(batches)):
                with setup.machine.autocast():
                    fake = setup.generator(pair.lq)
                terms = generator_terms(setup, state.discriminator, fake, pair)
                loss = torch.stack(list(terms.values())).sum()
                _backward(loss / len(batches), state.scaler)
            found.append(terms | {"generator": loss})
            fakes.append(fake.detach().float())
    losses = _means(found, setup)
    done = _apply(state.generator, state.optimizer, state.scaler, setup, losses, "norm")
    if done:
        update_ema(state.ema, state.generator, setup.ema_decay)
    return Outcome(losses, not done, tuple(fakes))


def generator_terms(
    setup: Setup, judge: nn.Module | None, fake: Tensor, pair: Pair
) -> dict[str, Tensor]:
    """The weighted terms of the generator's loss by name."""
    stage = setup.stage
    terms = {}
    if stage.pixel.weight:
        real = _target(pair, sharpened=stage.pixel.sharpened)
        terms["pixel"] = stage.pixel.weight * pixel_loss(fake.float(), real)
    if stage.structure.weight:
        real = _target(pair, sharpened=stage.structure.sharpened)
        terms["structure"] = stage.structure.weight * ssim_loss(fake, real)
    if setup.perceptual is not None:
        real = _target(pair, sharpened=stage.perceptual.sharpened)
        with setup.machine.autocast():
            distance = setup.perceptual(fake, real)
        terms["perceptual"] = stage.perceptual.weight * distance
    if judge is not None:
        real = _target(pair, sharpened=stage.gan.sharpened)
        with setup.machine.autocast():
            loss = generator_gan_loss(stage.gan.kind, judge, fake, real)
        terms["gan"] = stage.gan.weight * loss
    return terms


def update_discriminator(
    state: TrainState, setup: Setup, batches: Sequence[Pair], fakes: Sequence[Tensor]
) -> Outcome:
    """One step of the discriminator on real images and on those made before the last update.

    Its loss is not weighted. Skips like `update_generator`.
    """
    net, judge, optimizer = state.discriminator, setup.discriminator, state.d_optimizer
    if net is None or judge is None or optimizer is None:
        raise ValueError("this stage has no discriminator")
    net.requires_grad_(True)
    parts: list[dict[str, Tensor]] = []
    # Once for the real and once for the generated images.
    with norms_moved(net, times=2):
        for number, (pair, fake) in enumerate(zip(batches, fakes, strict=True), 1):
            real = _target(pair, sharpened=setup.stage.gan.sharpened)
            with synced_only(judge, sync=number == len(batches)):
                with setup.machine.autocast():
                    found = discriminator_gan_loss(setup.stage.gan.kind, judge, fake, real)
                loss, reals, fooled = found
                _backward(loss / len(batches), state.d_scaler)
            scores = {"d_real": reals.float().mean(), "d_fake": fooled.float().mean()}
            parts.append({"discriminator": loss, **scores})
    losses = _means(parts, setup)
    done = _apply(net, optimizer, state.d_scaler, setup, losses, "d_norm")
    return Outcome(losses, not done)


@torch.no_grad()
def generate(setup: Setup, batches: Sequence[Pair]) -> tuple[Tensor, ...]:
    """Generated images of each batch, for steps that train the discriminator alone."""
    with setup.machine.autocast():
        made = [setup.generator(pair.lq) for pair in batches]
    return tuple(fake.float() for fake in made)


def _target(pair: Pair, *, sharpened: bool) -> Tensor:
    return pair.gt_usm if sharpened else pair.gt


def _backward(loss: Tensor, scaler: GradScaler | None) -> None:
    backward: Callable[[], None] = (scaler.scale(loss) if scaler is not None else loss).backward
    backward()


def _means(parts: Sequence[dict[str, Tensor]], setup: Setup) -> dict[str, float]:
    """Mean of each term over the batches and processes; one transfer from the device."""
    names = list(parts[0])
    rows = [torch.stack([part[name].detach().float() for name in names]) for part in parts]
    values = setup.world.mean(torch.stack(rows).mean(0))
    return dict(zip(names, values.tolist(), strict=True))


def _apply(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: GradScaler | None,
    setup: Setup,
    losses: dict[str, float],
    name: str,
) -> bool:
    """Clip and step if all is finite; forget the gradients. Whether the weights were changed.

    The gradient's norm before clipping goes into `losses` under `name`.
    The decision is the same in every process: losses and gradients are averaged over all.
    """
    if scaler is not None:
        scaler.unscale_(optimizer)
    clip = setup.stage.optimizer.clip
    norm = float(torch.nn.utils.clip_grad_norm_(net.parameters(), clip or math.inf))
    finite = all(math.isfinite(value) for value in losses.values())
    losses[name] = norm
    # A scaler meets infinite gradients by itself, by a smaller scale; that is no failure.
    done = finite and (scaler is not None or math.isfinite(norm))
    if done and scaler is not None:
        scaler.step(optimizer)
    elif done:
        optimizer.step()
    if scaler is not None:
        scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return done
