"""Pixel, structure, perceptual and adversarial losses: pictures (or logits) to a scalar."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realesr_cli.nets.vgg import Features
from realesr_cli.ops.color import luma_studio
from realesr_cli.ops.detail import detail_energy, log_detail
from realesr_cli.ops.filters import gaussian_taps, separable_filter

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
GRAIN_WINDOW, GRAIN_SIGMA = 13, 2.0
"""Low-quality pixels over which the strength of detail is taken."""

GRAIN_FLOOR = 1.5 / 255
"""What a smooth surface has of detail; no grain is asked for where there is less."""

CONTRAST_DETAIL = 4.0
"""Pixels of the Gaussian below which form is contrast that grain would cover."""

CONTRAST_WINDOW, CONTRAST_SIGMA = 7, 1.0
"""Low-quality pixels over which that contrast is taken."""

CONTRAST_SHARE = 0.4
"""Of the contrast's energy, in place of which there is no grain."""

DETAIL_GAIN = 8.0
"""Detail of photographs deviates by a few hundredths; networks take inputs about one."""

FAINT = 1e-10
"""Energy that keeps the slope of its root finite; its root is far below a code."""

TINY = 1e-8
"""Keeps a quotient finite."""


def pixel_loss(fake: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference (L1) over all elements."""
    return F.l1_loss(fake, real)


def structure_loss(fake: Tensor, real: Tensor) -> Tensor:
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


def grid_loss(fake: Tensor, scale: int) -> Tensor:
    """How unlike the places within a low-quality pixel are, to a scalar: 0 without a grid.

    fake: (B, 3, H, W) with sides that are multiples of `scale`. Looked at are the luma and each
    colour. Along each axis the steps from one pixel to the next are averaged for each of the
    `scale` places they can have: in a picture without a grid those averages are equal. And what a
    Gaussian of one pixel takes out is averaged at each of the places: without a pattern that
    repeats, those are 0. The loss is the mean square of both, relative to the mean step. A network
    that adds to the plainly repeated input (Compact) must learn to undo the edges of the
    repetition; this asks for it where L1 hardly does, without asking for smoothness. At scale 1
    there is no grid.
    """
    planes = torch.cat([luma_studio(fake.float()), fake.float()], dim=1)
    terms, mean_steps = [], []
    for axis in (-1, -2):
        steps = planes.diff(dim=axis).abs().movedim(axis, -1)
        whole = F.pad(steps, (0, 1, 0, 0), mode="replicate").unflatten(-1, (-1, scale))
        by_place = whole[..., :-1, :].mean((2, 3))
        mean_steps.append(by_place.mean(-1).clamp_min(TINY))
        terms.append((by_place / mean_steps[-1][..., None] - 1).square().mean())
    fine = planes - separable_filter(planes, gaussian_taps(7, 1.0))
    pattern = fine.unflatten(-1, (-1, scale)).unflatten(-3, (-1, scale)).mean((2, 4))
    pattern = pattern - pattern.mean((2, 3), keepdim=True)
    mean_step = (mean_steps[0] + mean_steps[1])[..., None, None] / 2
    # A network could even out its steps by a pattern that has steps everywhere.
    pattern_share: Tensor = (pattern / mean_step).square().mean()
    return torch.stack(terms).mean() + pattern_share


def grain_loss(strength: Tensor, clean: Tensor, real: Tensor, *, unit: float) -> Tensor:
    """How far a grain's strength is from that of the fine detail there should be, to a scalar.

    strength: (B, 1, h, w), in `unit`; clean: (B, 3, h * scale, w * scale), the picture without
    grain, RGB in [0, 1], which gets no gradient; real: like it. The mean square difference of two
    logarithms. One is that of the deviation of the real picture's fine detail, averaged over a
    window as a logarithm: texture has detail everywhere, an edge in a smooth place is none. The
    other is that of the grain's energy and a share of the clean picture's contrast together: about
    edges and in lines, grain would cover what was restored, and what it adds is seen least. Detail
    below `GRAIN_FLOOR` asks for none. Detail that cannot be known can be as strong as it should be.
    """
    scale = real.shape[-1] // strength.shape[-1]
    wanted = separable_filter(log_detail(real, scale), gaussian_taps(GRAIN_WINDOW, GRAIN_SIGMA))
    near = gaussian_taps(CONTRAST_WINDOW, CONTRAST_SIGMA)
    contrast = separable_filter(detail_energy(clean.detach(), scale, CONTRAST_DETAIL), near)
    energy = (unit * strength.float().clamp_min(0)) ** 2 + CONTRAST_SHARE * contrast
    found = ((energy + FAINT).sqrt() + GRAIN_FLOOR).log()
    return (found - wanted.clamp_min(math.log(GRAIN_FLOOR))).square().mean()


def detail(pictures: Tensor, sigma: float) -> Tensor:
    """What a Gaussian of `sigma` pixels takes out of (B, C, H, W), enlarged about to [-1, 1].

    A discriminator that sees only this judges texture, and leaves colour and large forms to the
    other losses (Fritsche et al. 2019, section 3.2).
    """
    taps = gaussian_taps(2 * math.ceil(3 * sigma) + 1, sigma)
    return DETAIL_GAIN * (pictures - separable_filter(pictures, taps))


Judge = Callable[[Tensor], Tensor]
"""A discriminator: pictures to logits."""


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


def generator_gan_loss(kind: str, judge: Judge, fake: Tensor, real: Tensor) -> Tensor:
    """What the generator minimises, without its weight.

    `ragan` is ESRGAN's equation 2: both halves summed. `ragan-halved` is the mean of the halves,
    as the released training code has it. For both the logits of the real pictures carry no
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
    kind: str, judge: Judge, fake: Tensor, real: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What the discriminator minimises, and the logits of the real and the generated pictures.

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
