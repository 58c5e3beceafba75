"""Losses have the values worked out by hand, and gradients go where they should."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from realesr_cli.nets.features import VGG19Features
from realesr_cli.train.adversarial import KINDS, discriminator_gan_loss, generator_gan_loss
from realesr_cli.train.losses import PerceptualLoss, pixel_loss

REAL, FAKE = torch.ones(2, 1), torch.zeros(2, 1)
LN2 = math.log(2)


def discriminator_as(real: float, fake: float) -> object:
    """A discriminator that gives images of ones the first logit and of zeros the second."""
    return lambda x: x * real + (1 - x) * fake


def both(kind: str, real: float, fake: float) -> tuple[float, float]:
    net = discriminator_as(real, fake)
    d = discriminator_gan_loss(kind, net, FAKE, REAL)[0]
    return float(d), float(generator_gan_loss(kind, net, FAKE, REAL))


@pytest.mark.parametrize(
    ("kind", "real", "fake", "d", "g"),
    [
        ("vanilla", 0, 0, 2 * LN2, LN2),
        ("lsgan", 0, 0, 1, 1),
        ("hinge", 0, 0, 2, 0),
        ("hinge", 2, -3, 0, 3),
        ("wgan", 2, 5, 3, -5),
        ("wgan-softplus", 0, 0, 2 * LN2, LN2),
        ("ragan", 0, 0, 2 * LN2, 2 * LN2),
        ("ragan", 7, 7, 2 * LN2, 2 * LN2),
        ("ragan", 1, 0, 0.6265234, 2.6265234),
        ("ragan-halved", 0, 0, LN2, LN2),
        ("ragan-halved", 1, 0, 0.3132617, 1.3132617),
    ],
)
def test_values_by_hand(kind: str, real: float, fake: float, d: float, g: float) -> None:
    assert both(kind, real, fake) == pytest.approx((d, g), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_gets_a_gradient_that_makes_fakes_look_real(kind: str) -> None:
    fake = torch.zeros(2, 1, requires_grad=True)
    generator_gan_loss(kind, lambda x: x, fake, REAL).backward()
    assert fake.grad is not None
    assert (fake.grad < 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_discriminator_learns_to_tell_them_apart(kind: str) -> None:
    weight = torch.zeros(1, requires_grad=True)
    loss, reals, fakes = discriminator_gan_loss(kind, lambda x: x * weight, FAKE, REAL)
    loss.backward()
    assert weight.grad is not None
    assert float(weight.grad) < 0
    assert not reals.requires_grad
    assert not fakes.requires_grad


def test_only_the_paper_form_lets_gradients_through_the_other_sides_mean() -> None:
    grads = {}
    for kind in ("ragan", "ragan-halved"):
        shift = torch.zeros(1, requires_grad=True)
        # A shift of the real logits alone: in the paper's form it also acts through their mean.
        discriminator_gan_loss(kind, lambda x, s=shift: x * s, FAKE, REAL)[0].backward()
        assert shift.grad is not None
        grads[kind] = float(shift.grad)
    assert grads["ragan"] == pytest.approx(-1.0)
    assert grads["ragan-halved"] == pytest.approx(-0.25)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown adversarial loss 'gan'"):
        generator_gan_loss("gan", lambda x: x, FAKE, REAL)


def test_half_precision_logits_do_not_overflow() -> None:
    logits = torch.full((2, 1), -200.0, dtype=torch.float16)
    for kind in ("vanilla", "lsgan"):
        assert torch.isfinite(generator_gan_loss(kind, lambda _: logits, FAKE, REAL))


def perceptual(weights: dict[str, float]) -> PerceptualLoss:
    torch.manual_seed(0)
    return PerceptualLoss(VGG19Features(list(weights)), weights)


def test_perceptual_loss_is_zero_for_equal_images_and_weighs_its_layers() -> None:
    a, b = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    loss = perceptual({"conv1_2": 0.1, "conv2_2": 1.0})
    assert float(loss(a, a)) == 0
    first = float(perceptual({"conv1_2": 1.0, "conv2_2": 0.0})(a, b))
    second = float(perceptual({"conv1_2": 0.0, "conv2_2": 1.0})(a, b))
    assert float(loss(a, b)) == pytest.approx(0.1 * first + second, rel=1e-5)


def test_perceptual_loss_is_the_mean_feature_difference() -> None:
    a, b = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    loss = perceptual({"conv1_1": 2.0})

    def features(x: Tensor) -> Tensor:
        found: Tensor = loss.features(x)["conv1_1"]
        return found

    wanted = 2 * (features(a) - features(b)).abs().mean()
    assert float(loss(a, b)) == pytest.approx(float(wanted))


def test_relative_distances_do_not_depend_on_the_size_of_the_features() -> None:
    a, b = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    loss = perceptual({"conv1_1": 2.0})
    size = float(loss.features(b)["conv1_1"].abs().mean())
    plain = float(loss(a, b))
    loss.relative = True
    found = float(loss(a, b))
    assert found == pytest.approx(plain / size, rel=1e-5)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.mul_(100)
    assert float(loss(a, b)) == pytest.approx(found, rel=1e-4)


def test_gradients_reach_the_generated_image_only() -> None:
    a = torch.rand(1, 3, 8, 8, requires_grad=True)
    b = torch.rand(1, 3, 8, 8, requires_grad=True)
    loss = perceptual({"conv1_1": 1.0})
    (loss(a, b) + pixel_loss(a, b.detach())).backward()
    assert a.grad is not None
    assert b.grad is None
    assert all(p.grad is None for p in loss.parameters())
