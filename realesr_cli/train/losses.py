"""Pixel, structure, perceptual and adversarial losses: images (or logits) to a scalar."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realesr_cli.nets.features import Features
from realesr_cli.ops.color import luma_studio
from realesr_cli.ops.filters import gaussian_taps

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
TINY = 1e-8
"""Keeps a quotient finite."""


def pixel_loss(fake: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference (L1) over all elements."""
    return F.l1_loss(fake, real)


def ssim_loss(fake: Tensor, real: Tensor) -> Tensor:
    """One less the mean structural similarity of the luma (Zhao et al. 2017, section III-B).

    Two batches (B, 3, H, W), RGB in [0, 1], at least 11 pixels a side, to a scalar: 0 where they
    are equal. Window, constants and luma are those of the score of the field's papers (Wang et al.
    2004), in fp32. Where it cannot know a detail's place, this loss keeps more of its contrast
    than L1 does.
    """
    x, y = luma_studio(fake.float()), luma_studio(real.float())
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variances = _window_mean(x * x) - mean_x**2 + _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    bottom = (mean_x**2 + mean_y**2 + SSIM_C1) * (variances + SSIM_C2)
    return 1 - (top / bottom).mean()


def _window_mean(x: Tensor) -> Tensor:
    """(B, 1, H, W) averaged under the Gaussian window, where it lies inside."""
    window = gaussian_taps(SSIM_WINDOW, SSIM_SIGMA).to(x)
    return F.conv2d(F.conv2d(x, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))


class PerceptualLoss(nn.Module):
    """Weighted L1 distance of features before the activation.

    sum over layers of weight * mean |f(fake) - f(real)|, the mean over all elements of a layer
    (Wang et al. 2018, section 3.3; weights per layer as in Wang et al. 2021). The network is
    frozen; no gradient reaches `real`. With `relative` each layer's distance is divided by the mean
    of |f(real)|, for networks whose features are of another size than VGG19's, for which the
    published weights are.
    """

    def __init__(
        self, features: Features, weights: Mapping[str, float], *, relative: bool = False
    ) -> None:
        super().__init__()
        self.features = features
        self.weights = dict(weights)
        self.relative = relative

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Two batches (B, 3, H, W), RGB in [0, 1], to a scalar."""
        with torch.no_grad():
            wanted = self.features(real)
        found = self.features(fake)
        terms = []
        for name, weight in self.weights.items():
            distance = F.l1_loss(found[name].float(), wanted[name].float())
            if self.relative:
                distance = distance / wanted[name].float().abs().mean().clamp_min(TINY)
            terms.append(weight * distance)
        return torch.stack(terms).sum()


Discriminator = Callable[[Tensor], Tensor]
"""A discriminator: images to logits."""


def _bce(logits: Tensor, target: float) -> Tensor:
    # Single precision: the logarithm of a half-precision sigmoid overflows early.
    return F.binary_cross_entropy_with_logits(
        logits.float(), torch.full_like(logits, target, dtype=torch.float32)
    )


def _plain_term(kind: str, logits: Tensor, *, real: bool, for_generator: bool) -> Tensor:
    """How far logits are from saying `real` (or not), for the losses that judge one side alone."""
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


RELATIVISTIC = ("ragan", "ragan-halved")
KINDS = ("vanilla", "lsgan", "hinge", "wgan", "wgan-softplus", *RELATIVISTIC)
"""Adversarial losses by name; the last two are relativistic average (Jolicoeur-Martineau 2018)."""


def generator_gan_loss(kind: str, judge: Discriminator, fake: Tensor, real: Tensor) -> Tensor:
    """What the generator minimizes, without its weight.

    `ragan` is ESRGAN's equation 2: both halves summed. `ragan-halved` is the mean of the halves,
    as the released training code has it. For both the logits of the real images carry no
    gradient. Raises ValueError for an unknown kind.
    """
    logits = judge(fake)
    if kind not in RELATIVISTIC:
        return _plain_term(kind, logits, real=True, for_generator=True)
    with torch.no_grad():
        reals = judge(real)
    fake_term = _bce(logits - reals.mean(), 1.0)
    real_term = _bce(reals - logits.mean(), 0.0)
    total = real_term + fake_term
    return total / 2 if kind == "ragan-halved" else total


def discriminator_gan_loss(
    kind: str, judge: Discriminator, fake: Tensor, real: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What the discriminator minimizes, and the logits of the real and the generated images.

    Both sides are summed, not averaged, but for `ragan-halved`, which also stops the gradient
    through each side's mean, as the released training code does. `fake` must be detached.
    """
    reals, fakes = judge(real), judge(fake)
    if kind not in RELATIVISTIC:
        loss = _plain_term(kind, reals, real=True, for_generator=False)
        loss = loss + _plain_term(kind, fakes, real=False, for_generator=False)
        return loss, reals.detach(), fakes.detach()
    mean_real, mean_fake = reals.mean(), fakes.mean()
    if kind == "ragan-halved":
        mean_real, mean_fake = mean_real.detach(), mean_fake.detach()
    loss = _bce(reals - mean_fake, 1.0) + _bce(fakes - mean_real, 0.0)
    loss = loss / 2 if kind == "ragan-halved" else loss
    return loss, reals.detach(), fakes.detach()
