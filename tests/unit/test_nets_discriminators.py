"""Discriminators: names and counts of the published files, spectral norm, what cannot be loaded."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from realesr_cli.errors import CheckpointFormatError
from realesr_cli.nets.discriminators import (
    SpectralConv2d,
    UNetDiscriminator,
    VGGDiscriminator,
    hold_spectral_norms,
    load_discriminator,
    rename_spectral_norms,
)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_unet_has_the_published_names_and_counts() -> None:
    net = UNetDiscriminator()
    state = net.state_dict()
    assert parameters(net) == 4_376_897
    assert len(state) == 28
    assert sum(b.numel() for b in net.buffers()) == 17_856
    plain = {f"conv{i}.{k}" for i in (0, 9) for k in ("weight", "bias")}
    kinds = ("weight_orig", "weight_u", "weight_v")
    assert set(state) == plain | {f"conv{i}.{k}" for i in range(1, 9) for k in kinds}
    lengths = [state[f"conv{i}.weight_v"].numel() for i in range(1, 9)]
    assert lengths == [1024, 2048, 4096, 4608, 2304, 1152, 576, 576]


def test_vgg_style_has_the_published_counts() -> None:
    with torch.device("meta"):
        assert parameters(VGGDiscriminator()) == 14_499_401
        assert parameters(VGGDiscriminator(size=256)) == 21_055_049
        names = set(VGGDiscriminator().state_dict())
    assert {"conv0_0.bias", "bn0_1.weight", "conv4_1.weight", "bn4_1.running_var"} < names
    assert "conv1_0.bias" not in names
    assert "bn0_0.weight" not in names


def test_unet_scores_every_pixel_of_sides_divisible_by_eight() -> None:
    net = UNetDiscriminator(features=4)
    assert net(torch.rand(2, 3, 16, 24)).shape == (2, 1, 16, 24)
    with pytest.raises(ValueError, match="multiples of 8"):
        net(torch.rand(1, 3, 16, 20))


def test_vgg_style_scores_images_of_its_size_only() -> None:
    net = VGGDiscriminator(features=2)
    assert net(torch.rand(2, 3, 128, 128)).shape == (2, 1)
    with pytest.raises(ValueError, match="128x128"):
        net(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match="128 or 256"):
        VGGDiscriminator(size=64)


def test_training_brings_the_largest_singular_value_to_one() -> None:
    torch.manual_seed(1)
    conv = SpectralConv2d(6, 8, kernel=3, stride=1)
    for _ in range(500):
        weight = conv.normalized_weight()
    assert float(torch.linalg.matrix_norm(weight.detach().flatten(1), 2)) == pytest.approx(
        1, abs=1e-4
    )


def test_evaluation_leaves_the_power_iteration_alone_and_training_moves_it() -> None:
    conv = SpectralConv2d(4, 4, kernel=3, stride=1).eval()
    before = conv.weight_u.clone()
    conv(torch.rand(1, 4, 8, 8))
    assert torch.equal(conv.weight_u, before)
    conv.train()(torch.rand(1, 4, 8, 8))
    assert not torch.equal(conv.weight_u, before)


def test_the_power_iteration_moves_as_often_as_asked_and_then_holds_still() -> None:
    one, two = UNetDiscriminator(features=2), UNetDiscriminator(features=2)
    two.load_state_dict(one.state_dict())
    x = torch.rand(1, 3, 8, 8)
    one(x), one(x)
    with hold_spectral_norms(two, iterations=2), hold_spectral_norms(None):
        two(x), two(x), two(x)
    assert torch.equal(one.conv1.weight_u, two.conv1.weight_u)
    assert torch.equal(one.conv8.weight_v, two.conv8.weight_v)
    two(x)
    assert not torch.equal(one.conv1.weight_u, two.conv1.weight_u)
    before = two.conv1.weight_u.clone()
    with hold_spectral_norms(two.eval()):
        assert torch.equal(two.conv1.weight_u, before)


def test_two_forwards_before_one_backward_are_differentiable() -> None:
    conv = SpectralConv2d(4, 4, kernel=3, stride=1)
    x = torch.rand(1, 4, 8, 8)
    (conv(x).mean() + conv(1 - x).mean()).backward()
    assert conv.weight_orig.grad is not None
    assert torch.isfinite(conv.weight_orig.grad).all()


def test_gradient_equals_that_of_torch() -> None:
    """Independent source: torch's own spectral norm, started from the same vectors."""
    torch.manual_seed(2)
    ours = SpectralConv2d(3, 5, kernel=3, stride=2)
    theirs = spectral_norm(nn.Conv2d(3, 5, 3, 2, 1, bias=False))
    state = {
        "parametrizations.weight.original": ours.weight_orig.detach(),
        "parametrizations.weight.0._u": ours.weight_u,
        "parametrizations.weight.0._v": ours.weight_v,
    }
    theirs.load_state_dict(state)
    # In evaluation, as torch moves the two vectors in the other order.
    ours.eval(), theirs.eval()
    x = torch.rand(2, 3, 9, 9)
    a, b = ours(x), theirs(x)
    torch.testing.assert_close(a, b)
    a.square().mean().backward()
    b.square().mean().backward()
    torch.testing.assert_close(ours.weight_orig.grad, theirs.parametrizations.weight.original.grad)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_both_key_styles_load(prefix: str) -> None:
    net = UNetDiscriminator(features=4)
    names = {"weight_orig": "original", "weight_u": "0._u", "weight_v": "0._v"}
    state = {}
    for key, tensor in net.state_dict().items():
        stem, _, last = key.partition(".")
        renamed = f"{stem}.parametrizations.weight.{names[last]}" if last in names else key
        state[prefix + renamed] = tensor
    other = UNetDiscriminator(features=4)
    load_discriminator(other, state)
    for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert set(rename_spectral_norms(state)) == set(net.state_dict())


def test_a_foreign_file_is_named_with_what_does_not_fit() -> None:
    net = UNetDiscriminator(features=4)
    state = dict(net.state_dict())
    with pytest.raises(CheckpointFormatError, match=r"'conv0\.bias'"):
        load_discriminator(net, {k: v for k, v in state.items() if k != "conv0.bias"})
    with pytest.raises(CheckpointFormatError, match="'extra'"):
        load_discriminator(net, state | {"extra": torch.zeros(1)})
    with pytest.raises(CheckpointFormatError, match="expected"):
        load_discriminator(UNetDiscriminator(features=8), state)
