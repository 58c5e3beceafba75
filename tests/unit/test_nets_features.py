"""Feature networks and MSRResNet: layer names, counts, taps before the activation, loading."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from realesr_cli.errors import CheckpointFormatError, ConfigError
from realesr_cli.nets.architecture import shapes_of
from realesr_cli.nets.detection import architecture_from_plain, detect
from realesr_cli.nets.features import (
    MEAN,
    STD,
    VGG19_LAYERS,
    SqueezeNetFeatures,
    VGG19Features,
)
from realesr_cli.nets.srresnet import SRResNetArchitecture


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_vgg19_layers_have_torchvisions_indices() -> None:
    wanted = {"conv1_2": 2, "conv2_2": 7, "conv3_4": 16, "conv4_4": 25, "conv5_4": 34}
    assert {name: VGG19_LAYERS[name] for name in wanted} == wanted


def test_counts_are_the_published_ones() -> None:
    with torch.device("meta"):
        assert parameters(VGG19Features(["conv5_4"])) == 20_024_384
        assert parameters(SqueezeNetFeatures(["fire9"])) == 722_496
        assert parameters(SRResNetArchitecture().build()) == 1_517_571


def test_vgg19_features_have_the_published_shapes_and_are_frozen() -> None:
    layers = ["conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4"]
    with torch.device("meta"):
        net = VGG19Features(layers)
        found = net(torch.empty(1, 3, 256, 256))
    shapes = [tuple(found[name].shape[1:]) for name in layers]
    assert shapes == [
        (64, 256, 256),
        (128, 128, 128),
        (256, 64, 64),
        (512, 32, 32),
        (512, 16, 16),
    ]
    assert not any(p.requires_grad for p in net.parameters())


def test_features_are_taken_before_the_activation_of_normalized_input() -> None:
    torch.manual_seed(0)
    net = VGG19Features(["conv1_1", "conv1_2"])
    x = torch.rand(1, 3, 8, 8)
    found = net(x)
    first, second = net.features["0"], net.features["2"]
    normal = (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    one = F.conv2d(normal, first.weight, first.bias, padding=1)
    torch.testing.assert_close(found["conv1_1"], one)
    assert found["conv1_1"].min() < 0
    two = F.conv2d(F.relu(one), second.weight, second.bias, padding=1)
    torch.testing.assert_close(found["conv1_2"], two)


def test_only_the_layers_needed_are_built_and_loaded() -> None:
    with torch.device("meta"):
        net = VGG19Features(["conv2_1"])
    assert list(net.state_dict()) == [
        f"features.{i}.{k}" for i in (0, 2, 5) for k in ("weight", "bias")
    ]


def test_a_whole_torchvision_state_loads_and_a_foreign_one_does_not() -> None:
    torch.manual_seed(0)
    net, other = SqueezeNetFeatures(["fire3"]), SqueezeNetFeatures(["fire3"])
    state = dict(net.state_dict()) | {"classifier.1.weight": torch.zeros(2)}
    other.load(state)
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(net(x)["fire3"], other(x)["fire3"])
    with pytest.raises(CheckpointFormatError, match=r"features\.0\.weight"):
        other.load({"conv.weight": torch.zeros(1)})


def test_squeezenet_taps_are_untouched_by_the_activation() -> None:
    torch.manual_seed(0)
    found = SqueezeNetFeatures(["conv1", "fire2", "fire9"])(torch.rand(1, 3, 64, 64))
    assert found["fire9"].shape == (1, 512, 3, 3)
    assert all(feature.min() < 0 for feature in found.values())


def test_unknown_layers_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="conv5_4"):
        VGG19Features(["conv54"])
    with pytest.raises(ConfigError, match="at least one"):
        VGG19Features([])


@pytest.mark.parametrize("scale", [2, 4])
def test_srresnet_is_recognized_and_enlarges(scale: int) -> None:
    record = SRResNetArchitecture(scale, blocks=2, features=8)
    net = record.build()
    assert detect(shapes_of(net.state_dict())).architecture == record
    assert architecture_from_plain(record.to_plain()) == record
    assert net(torch.rand(1, 3, 5, 7)).shape == (1, 3, 5 * scale, 7 * scale)


def test_srresnet_starts_from_the_bilinear_image() -> None:
    net = SRResNetArchitecture(4, blocks=1, features=8).build()
    nn.init.zeros_(net.conv_last.weight)
    nn.init.zeros_(net.conv_last.bias)
    x = torch.rand(1, 3, 4, 4)
    base = F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)
    assert torch.equal(net(x), base)


def test_srresnet_depends_on_no_more_than_its_radius() -> None:
    record = SRResNetArchitecture(2, blocks=1, features=4)
    x = torch.rand(1, 3, 1, 41, requires_grad=True)
    record.build()(x)[0, :, :, 40:42].sum().backward()
    assert x.grad is not None
    reached = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert int(20 - reached.min()) <= record.receptive_radius
    assert int(reached.max() - 20) <= record.receptive_radius
