"""Adversarial losses: logits of a discriminator to what each of the two networks minimizes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Discriminator = Callable[[Tensor], Tensor]
"""Images to logits of being real."""

RELATIVISTIC = ("ragan", "ragan-halved")
KINDS = ("vanilla", "lsgan", "hinge", "wgan", "wgan-softplus", *RELATIVISTIC)
"""Adversarial losses by name; the last two are relativistic average (Jolicoeur-Martineau 2018)."""


def generator_gan_loss(
    kind: str, discriminator: Discriminator, fake: Tensor, real: Tensor
) -> Tensor:
    """Compute what the generator minimizes, without its weight.

    `ragan` is ESRGAN's equation 2, the sum of both halves; `ragan-halved` is their mean, as in the
    released training code. For both, the logits of the real images carry no gradient. Raises
    ValueError for an unknown kind.
    """
    fake_logits = discriminator(fake)
    if kind not in RELATIVISTIC:
        return _one_sided_loss(kind, fake_logits, real=True, for_generator=True)
    with torch.no_grad():
        real_logits = discriminator(real)
    fake_term = _bce(fake_logits - real_logits.mean(), 1.0)
    real_term = _bce(real_logits - fake_logits.mean(), 0.0)
    total = real_term + fake_term
    return total / 2 if kind == "ragan-halved" else total


def discriminator_gan_loss(
    kind: str, discriminator: Discriminator, fake: Tensor, real: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute what the discriminator minimizes; return it with the logits of real and fake images.

    Both sides are summed, not averaged, except for `ragan-halved`, which also stops the gradient
    through the mean of each side, as the released training code does. `fake` must be detached.
    """
    real_logits, fake_logits = discriminator(real), discriminator(fake)
    if kind not in RELATIVISTIC:
        loss = _one_sided_loss(kind, real_logits, real=True, for_generator=False)
        loss = loss + _one_sided_loss(kind, fake_logits, real=False, for_generator=False)
        return loss, real_logits.detach(), fake_logits.detach()
    real_mean, fake_mean = real_logits.mean(), fake_logits.mean()
    if kind == "ragan-halved":
        real_mean, fake_mean = real_mean.detach(), fake_mean.detach()
    loss = _bce(real_logits - fake_mean, 1.0) + _bce(fake_logits - real_mean, 0.0)
    loss = loss / 2 if kind == "ragan-halved" else loss
    return loss, real_logits.detach(), fake_logits.detach()


def _bce(logits: Tensor, target: float) -> Tensor:
    # In fp32: the logarithm of a half-precision sigmoid overflows early.
    return F.binary_cross_entropy_with_logits(
        logits.float(), torch.full_like(logits, target, dtype=torch.float32)
    )


def _one_sided_loss(kind: str, logits: Tensor, *, real: bool, for_generator: bool) -> Tensor:
    """Compute the loss of logits that should say `real`, for kinds that are not relativistic."""
    if kind == "vanilla":
        return _bce(logits, float(real))
    if kind == "lsgan":
        return ((logits.float() - float(real)) ** 2).mean()
    sign = 1.0 if real else -1.0
    logits = logits.float()
    if kind == "hinge" and not for_generator:
        return F.relu(1 - sign * logits).mean()
    if kind in ("hinge", "wgan"):
        return -sign * logits.mean()
    if kind == "wgan-softplus":
        return F.softplus(-sign * logits).mean()
    raise ValueError(f"unknown adversarial loss {kind!r}")
