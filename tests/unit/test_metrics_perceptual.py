"""The perceptual distance by its definition, on random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from realesr_cli.errors import CheckpointFormatError
from realesr_cli.metrics.perceptual import LAYERS, PerceptualDistance
from realesr_cli.nets.features import SqueezeNetFeatures


def random_state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return SqueezeNetFeatures(LAYERS).state_dict()


@pytest.fixture(scope="module")
def distance() -> PerceptualDistance:
    return PerceptualDistance(random_state())


def images(count: int = 1, height: int = 64, width: int = 80) -> Tensor:
    smooth = torch.rand(count, 3, 9, 11, generator=torch.Generator().manual_seed(2))
    return F.interpolate(smooth, (height, width), mode="bicubic").clamp(0, 1)


def by_loops(a: np.ndarray, b: np.ndarray) -> float:
    """The distance of two feature maps (C, H, W), position by position."""
    total = 0.0
    for y, x in np.ndindex(a.shape[1:]):
        u, v = (np.maximum(m[:, y, x], 0) for m in (a, b))
        u, v = (w / max(float(np.sqrt((w**2).sum())), 1e-10) for w in (u, v))
        total += float(((u - v) ** 2).sum())
    return total / (a.shape[1] * a.shape[2])


def test_it_is_the_mean_over_layers_of_the_definition(distance: PerceptualDistance) -> None:
    a = images()
    b = (a + 0.1 * torch.randn(a.shape, generator=torch.Generator().manual_seed(3))).clamp(0, 1)
    net = SqueezeNetFeatures(LAYERS)
    net.load(random_state())
    maps = [(net(a)[name][0].numpy(), net(b)[name][0].numpy()) for name in LAYERS]
    expected = np.mean([by_loops(one.astype(float), two.astype(float)) for one, two in maps])
    assert float(distance(a, b)) == pytest.approx(expected, rel=1e-5)
    assert expected > 0


def test_equal_images_have_no_distance_and_order_does_not_matter(
    distance: PerceptualDistance,
) -> None:
    a, b = images(), 1 - images()
    assert float(distance(a, a)) == 0
    assert float(distance(a, b)) == pytest.approx(float(distance(b, a)))


def test_images_of_a_batch_are_independent(distance: PerceptualDistance) -> None:
    a, b = images(2), images(2).flip(0)
    together = distance(a, b)
    assert together.shape == (2,)
    alone = [float(distance(a[i : i + 1], b[i : i + 1])) for i in range(2)]
    assert together.tolist() == pytest.approx(alone, rel=1e-5)


def test_the_crop_leaves_out_the_border(distance: PerceptualDistance) -> None:
    a = images()
    b = a.clone()
    b[..., :4, :], b[..., -4:] = 0, 1
    assert float(distance(a, b, crop=4)) == 0
    assert float(distance(a, b)) > 0


def test_gradients_are_finite_even_where_nothing_is_active(distance: PerceptualDistance) -> None:
    a = torch.zeros(1, 3, 40, 40, requires_grad=True)
    distance(a, torch.ones(1, 3, 40, 40)).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    assert all(not parameter.requires_grad for parameter in distance.parameters())


def test_what_cannot_be_compared_is_refused(distance: PerceptualDistance) -> None:
    with pytest.raises(ValueError, match="different shapes"):
        distance(images(), images(height=65))
    with pytest.raises(ValueError, match=r"32x32 .* 39x48 .* crop of 4"):
        distance(images(height=48, width=39), images(height=48, width=39), crop=4)
    with pytest.raises(CheckpointFormatError, match="features"):
        PerceptualDistance({})
