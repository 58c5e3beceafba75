"""One training step: gradients of both networks first, then both updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from realesr_cli.degrade.pairs import Pair
from realesr_cli.nets.discriminators import hold_spectral_norms
from realesr_cli.train.adversarial import discriminator_gan_loss
from realesr_cli.train.config import StageConfig, TrainConfig
from realesr_cli.train.distributed import ALONE, World, sync_gradients
from realesr_cli.train.losses import LossInputs, active_losses
from realesr_cli.train.machine import Machine, Stopwatch
from realesr_cli.train.state import TrainState, set_learning_rates, undo_on_error, update_ema

MIN_SCALE = 1.0
"""Loss scale below which infinite fp16 gradients are not for the scaler to handle."""

MAX_OUTPUT = 1e4
"""Mean magnitude of outputs, for images in [0, 1], above which the weights have exploded."""


@dataclass(frozen=True)
class StageSetup:
    """What stays the same during a stage: settings, machine, and the networks as they are called.

    `generator` and `discriminator` are the state's networks, wrapped where several processes train
    together. `loss_networks` are those of the generator's losses by name, the plain discriminator
    being that of `gan`.
    """

    stage: StageConfig
    machine: Machine
    world: World
    generator: nn.Module
    discriminator: nn.Module | None
    loss_networks: Mapping[str, nn.Module]
    ema_decay: float


def make_setup(
    config: TrainConfig,
    machine: Machine,
    state: TrainState,
    *,
    networks: Mapping[str, nn.Module],
    world: World = ALONE,
) -> StageSetup:
    """Return the setup of the stage that a state is in.

    `networks` are the frozen ones of its losses by name, on the device.
    """
    own = {"gan": state.discriminator} if state.discriminator is not None else {}
    return StageSetup(
        stage=config.stages[state.progress.stage],
        machine=machine,
        world=world,
        generator=machine.wrap(world.wrap(state.generator, machine.device)),
        discriminator=(
            world.wrap(state.discriminator, machine.device) if state.discriminator else None
        ),
        loss_networks={**networks, **own},
        ema_decay=config.ema.decay,
    )


@dataclass(frozen=True)
class Gradients:
    """Result of the backward passes of one network, whose gradients are in its parameters.

    `losses` are weighted means over all passes and processes; `finite` says whether an update
    makes sense, the same in every process.
    """

    losses: dict[str, float]
    stats: dict[str, float]
    finite: bool
    fakes: tuple[Tensor, ...] = ()
    """Generated images of each pass, before the update."""


@dataclass(frozen=True)
class StepGradients:
    """The gradients of a step; None for a network that it does not train."""

    generator: Gradients | None
    discriminator: Gradients | None


@dataclass(frozen=True)
class StepResult:
    """Losses and statistics of a step by name, and whether an update was skipped."""

    losses: dict[str, float] = field(default_factory=dict)
    stats: dict[str, float] = field(default_factory=dict)
    skipped: bool = False


def train_step(
    state: TrainState, setup: StageSetup, pairs: Sequence[Pair], watch: Stopwatch
) -> StepResult:
    """Run one step of the generator and, in an adversarial stage, of the discriminator."""
    with undo_on_error(state):
        gradients = compute_gradients(state, setup, pairs, watch)
    return apply_gradients(state, setup, gradients)


def compute_gradients(
    state: TrainState, setup: StageSetup, pairs: Sequence[Pair], watch: Stopwatch
) -> StepGradients:
    """Compute the gradients of a step; whatever can fail, other processes included, fails here.

    The two do not depend on each other's update, as the discriminator sees images generated before
    it. Without finite gradients of the generator, those of the discriminator are not computed.
    """
    stage = setup.stage
    with setup.machine.tuned():
        pairs = _add_teacher(setup, pairs, watch)
        if stage.adversarial and state.progress.step < stage.gan.warmup:
            generator, fakes = None, generate(setup, pairs)
        else:
            generator = generator_gradients(state, setup, pairs)
            fakes = generator.fakes
        watch.mark("generator")
        discriminator = None
        if stage.adversarial and (generator is None or generator.finite):
            discriminator = discriminator_gradients(state, setup, pairs, fakes)
            watch.mark("discriminator")
    return StepGradients(generator, discriminator)


def _add_teacher(setup: StageSetup, pairs: Sequence[Pair], watch: Stopwatch) -> Sequence[Pair]:
    """Add the teacher's images, which also replace ground truths that are missing."""
    teacher = setup.loss_networks.get("distill")
    if teacher is None:
        return pairs
    taught = []
    for pair in pairs:
        image = teacher(pair.lq)
        if pair.without_gt is not None:
            missing = pair.without_gt.view(-1, 1, 1, 1)
            gt, gt_usm = (torch.where(missing, image, gt) for gt in (pair.gt, pair.gt_usm))
            pair = Pair(pair.lq, gt, gt_usm)
        taught.append(replace(pair, teacher=image))
    watch.mark("teacher")
    return taught


def apply_gradients(state: TrainState, setup: StageSetup, gradients: StepGradients) -> StepResult:
    """Update both networks and the average; a network without finite gradients is left as it is."""
    stats = set_learning_rates(state, setup.stage)
    state.consistent = False
    if gradients.generator is not None:
        _update(state.optimizer, state.scaler, finite=gradients.generator.finite)
        if gradients.generator.finite and state.ema is not None:
            update_ema(state.ema, state.generator, setup.ema_decay)
    if gradients.discriminator is not None and state.d_optimizer is not None:
        _update(state.d_optimizer, state.d_scaler, finite=gradients.discriminator.finite)
    state.consistent = True
    losses: dict[str, float] = {}
    parts = [part for part in (gradients.generator, gradients.discriminator) if part is not None]
    for part in parts:
        losses |= part.losses
        stats |= part.stats
    return StepResult(losses, stats, skipped=not all(part.finite for part in parts))


def generator_gradients(state: TrainState, setup: StageSetup, pairs: Sequence[Pair]) -> Gradients:
    """Compute the generator's gradient of the mean loss over all pairs, as of one large batch."""
    found: list[dict[str, Tensor]] = []
    fakes: list[Tensor] = []
    if state.discriminator is not None:
        state.discriminator.requires_grad_(False)
    # Spectral norms move once per step, as in the reference's single forward pass.
    with hold_spectral_norms(state.discriminator):
        for number, pair in enumerate(pairs, 1):
            with sync_gradients(setup.generator, enabled=number == len(pairs)):
                with setup.machine.autocast():
                    fake = setup.generator(pair.lq)
                terms = generator_losses(setup, fake, pair)
                loss = torch.stack(list(terms.values())).sum()
                _backward(loss / len(pairs), state.scaler)
            found.append(terms | {"generator": loss})
            fakes.append(fake.detach().float())
    losses, norm, finite = _finish(found, state.generator, state.optimizer, state.scaler, setup)
    stats = {"generator": losses.pop("generator"), "norm": norm}
    return Gradients(losses, stats, finite, tuple(fakes))


def generator_losses(setup: StageSetup, fake: Tensor, pair: Pair) -> dict[str, Tensor]:
    """Compute the weighted terms of the generator's loss by name."""
    inputs = LossInputs(fake, pair, setup.loss_networks)
    terms = {}
    for name, spec, config in active_losses(setup.stage):
        if spec.autocast:
            with setup.machine.autocast():
                loss = spec.compute(config, inputs)
        else:
            loss = spec.compute(config, inputs)
        terms[name] = config.weight * loss
    return terms


def discriminator_gradients(
    state: TrainState, setup: StageSetup, pairs: Sequence[Pair], fakes: Sequence[Tensor]
) -> Gradients:
    """Compute the discriminator's gradient on real images and on generated ones; not weighted."""
    net, wrapped, optimizer = state.discriminator, setup.discriminator, state.d_optimizer
    if net is None or wrapped is None or optimizer is None:
        raise ValueError("this stage has no discriminator")
    config = setup.stage.gan
    net.requires_grad_(True)
    found: list[dict[str, Tensor]] = []
    # Once for the real and once for the generated images.
    with hold_spectral_norms(net, iterations=2):
        for number, (pair, fake) in enumerate(zip(pairs, fakes, strict=True), 1):
            real = LossInputs(fake, pair).target(config)
            with sync_gradients(wrapped, enabled=number == len(pairs)):
                with setup.machine.autocast():
                    loss, real_logits, fake_logits = discriminator_gan_loss(
                        config.kind, wrapped, fake, real
                    )
                _backward(loss / len(pairs), state.d_scaler)
            logits = {"d_real": real_logits.float().mean(), "d_fake": fake_logits.float().mean()}
            found.append({"discriminator": loss, **logits})
    means, norm, finite = _finish(found, net, optimizer, state.d_scaler, setup)
    losses = {"discriminator": means.pop("discriminator")}
    return Gradients(losses, means | {"d_norm": norm}, finite)


@torch.no_grad()
def is_healthy(state: TrainState, setup: StageSetup, pair: Pair) -> bool:
    """Return whether training can continue from these weights: all finite, outputs in range.

    An update can leave finite weights that overflow in the very next step.
    """
    with setup.machine.autocast():
        output = state.generator(pair.lq[:1])
    checks = [output.float().abs().mean() < MAX_OUTPUT]
    nets = [net for net in (state.generator, state.discriminator) if net is not None]
    checks += [torch.isfinite(p).all() for net in nets for p in net.parameters()]
    return bool(torch.stack(checks).all())


@torch.no_grad()
def generate(setup: StageSetup, pairs: Sequence[Pair]) -> tuple[Tensor, ...]:
    """Return generated images of each pair, for steps that train the discriminator alone."""
    with setup.machine.autocast():
        fakes = [setup.generator(pair.lq) for pair in pairs]
    return tuple(fake.float() for fake in fakes)


def _backward(loss: Tensor, scaler: GradScaler | None) -> None:
    backward: Callable[[], None] = (scaler.scale(loss) if scaler is not None else loss).backward
    backward()


def _finish(
    parts: Sequence[dict[str, Tensor]],
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: GradScaler | None,
    setup: StageSetup,
) -> tuple[dict[str, float], float, bool]:
    """Unscale and clip the gradients; return mean losses, the norm before clipping, all finite.

    Losses and norm are read from the device in one transfer: each one makes it wait.
    """
    if scaler is not None:
        scaler.unscale_(optimizer)
    parameters = [p for p in net.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if setup.stage.optimizer.clip:
        torch.nn.utils.clip_grads_with_norm_(parameters, setup.stage.optimizer.clip, norm)
    names = list(parts[0])
    rows = [torch.stack([part[name].detach().float() for name in names]) for part in parts]
    means = setup.world.mean(torch.stack(rows).mean(0))
    *values, norm_value = torch.cat([means, norm.detach().float().reshape(1)]).tolist()
    losses = dict(zip(names, values, strict=True))
    finite = all(math.isfinite(value) for value in values)
    if not math.isfinite(norm_value):
        # A scaler handles infinite gradients by itself, by a smaller scale; that is no failure
        # unless the scale is so small already that the gradients themselves are infinite.
        finite = finite and scaler is not None and scaler.get_scale() >= MIN_SCALE
    return losses, norm_value, finite


def _update(optimizer: torch.optim.Optimizer, scaler: GradScaler | None, *, finite: bool) -> None:
    """Step if the gradients are finite, and clear them."""
    if finite and scaler is not None:
        scaler.step(optimizer)
    elif finite:
        optimizer.step()
    if scaler is not None:
        scaler.update()
    optimizer.zero_grad(set_to_none=True)
