"""Generators: shapes, counts, identities, and recognition from tensors."""

from __future__ import annotations

import itertools

import pytest
import torch
from key_layouts import to_mid, to_old

from realesr_cli.errors import ConfigError, UnknownArchitectureError
from realesr_cli.nets.architecture import shapes_of
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.detection import architecture_from_plain, detect
from realesr_cli.nets.rrdbnet import (
    RRDB,
    DenseBlock,
    RRDBArchitecture,
    standard_architecture,
    unshuffle_any_size,
)

COUNTS = [
    (standard_architecture(4), 16_697_987, 702),
    (standard_architecture(2), 16_703_171, 702),
    (standard_architecture(1), 16_723_907, 702),
    (standard_architecture(4, blocks=6), 4_467_779, 192),
    (standard_architecture(4, blocks=16), 11_662_019, 492),
    (RRDBArchitecture(scale=2), 16_661_059, 700),
    (CompactArchitecture(1, 16), 595_459, 53),
    (CompactArchitecture(2, 16), 600_652, 53),
    (CompactArchitecture(3, 16), 609_307, 53),
    (CompactArchitecture(4, 16), 621_424, 53),
    (CompactArchitecture(4, 32), 1_213_296, 101),
]


@pytest.mark.parametrize(("architecture", "parameters", "keys"), COUNTS)
def test_published_counts(architecture, parameters, keys):
    assert architecture.count_parameters() == parameters
    assert len(architecture.shapes()) == keys


RRDB_GRID = [
    RRDBArchitecture(scale, blocks, features, growth, unshuffle, plus)
    for scale, blocks, features, growth, unshuffle, plus in itertools.product(
        (1, 2, 4, 8), (1, 2, 6), (32, 64), (16, 32), (1, 2, 4), (False, True)
    )
]
COMPACT_GRID = [
    CompactArchitecture(scale, convs, features, activation)
    for scale, convs, features, activation in itertools.product(
        (1, 2, 3, 4), (0, 3, 16, 32), (24, 64), ("prelu", "relu")
    )
]


@pytest.mark.parametrize("architecture", RRDB_GRID[::7] + COMPACT_GRID + [a for a, _, _ in COUNTS])
def test_detection_inverts_building(architecture):
    assert detect(architecture.shapes()).architecture == architecture
    assert architecture_from_plain(architecture.to_plain()) == architecture


def test_leaky_relu_leaves_no_trace():
    leaky = CompactArchitecture(activation="leakyrelu")
    found = detect(leaky.shapes())
    assert found.architecture.activation == "relu"
    assert found.alternatives == (leaky,)


@pytest.mark.parametrize(
    "architecture",
    [
        RRDBArchitecture(scale, blocks, 32, 16, unshuffle, plus)
        for scale, blocks, unshuffle, plus in [
            (1, 1, 1, False), (2, 3, 1, False), (4, 2, 1, True), (8, 1, 1, False),
            (2, 1, 2, False), (1, 1, 4, False),
        ]
    ],
)  # fmt: skip
def test_older_key_layouts(architecture):
    """mid and old names lead to the same architecture and the same tensors."""
    state = architecture.build().state_dict()
    ups = len(architecture.up_factors)
    mid = {to_mid(k): v for k, v in state.items()}
    old = {to_old(k, architecture.blocks, ups): v for k, v in state.items()}
    assert set(old) != set(state)
    for renamed in (mid, old):
        found = detect(shapes_of(renamed))
        assert found.architecture == architecture
        back = found.canonical(renamed)
        assert set(back) == set(state)
        assert all(back[name] is state[name] for name in state)


def test_old_layout_ends_where_it_should():
    """Highest index of the old layout: 3S + 4 for S up steps."""
    for scale, last in ((1, 4), (2, 7), (4, 10), (8, 13)):
        a = RRDBArchitecture(scale, 1, 8, 4)
        names = [to_old(k, 1, len(a.up_factors)) for k in a.shapes()]
        assert max(int(n.split(".")[1]) for n in names) == last


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 8), (3, 2)])
def test_any_size(scale, size):
    height, width = size
    net = standard_architecture(scale, blocks=1, features=8, growth=4).build()
    x = torch.rand(2, 3, height, width)
    assert net(x).shape == (2, 3, height * scale, width * scale)
    compact = CompactArchitecture(scale, 1, 8).build()
    assert compact(x).shape == (2, 3, height * scale, width * scale)


def test_unshuffle_order_and_inverse():
    x = torch.arange(2 * 3 * 4 * 4).float().view(2, 3, 4, 4)
    y = unshuffle_any_size(x, 2)
    assert y[0, :4, 0, 0].tolist() == [0, 1, 4, 5]
    assert y[0, 4, 0, 0] == 16
    assert torch.equal(torch.nn.functional.pixel_shuffle(y, 2), x)


def test_dense_blocks_carry_their_identity():
    """With the last convolutions zero, a dense block is the identity and an RRDB gives 1.2 x."""
    x = torch.rand(1, 16, 5, 6)
    dense = DenseBlock(16, 8)
    torch.nn.init.zeros_(dense.conv5.weight)
    assert torch.equal(dense(x), x)
    block = RRDB(16, 8)
    for rdb in (block.rdb1, block.rdb2, block.rdb3):
        torch.nn.init.zeros_(rdb.conv5.weight)
    torch.testing.assert_close(block(x), 1.2 * x)
    y = x
    for _ in range(23):
        y = block(y)
    torch.testing.assert_close(y, 66.2473727 * x, rtol=1e-5, atol=1e-5)


def test_zero_network_gives_the_last_bias():
    net = standard_architecture(4, blocks=1, features=8, growth=4).build()
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    net.conv_last.bias.data = torch.tensor([0.1, 0.2, 0.3])
    y = net(torch.rand(1, 3, 4, 4))
    torch.testing.assert_close(y, torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1).expand_as(y))


def test_compact_adds_to_the_nearest_neighbor():
    net = CompactArchitecture(3, 2, 8).build()
    torch.nn.init.zeros_(net.body[-1].weight)
    torch.nn.init.zeros_(net.body[-1].bias)
    x = torch.rand(1, 3, 4, 5)
    assert torch.equal(net(x), x.repeat_interleave(3, 2).repeat_interleave(3, 3))


def test_initial_weights():
    """Kaiming-normal (fan-in) x 0.1 in the dense blocks only."""
    torch.manual_seed(0)
    net = standard_architecture(4, blocks=2).build()
    expected = [0.0058926, 0.0048113, 0.0041667, 0.0037268, 0.0034021]
    for i, std in enumerate(expected):
        conv = net.get_submodule(f"body.1.rdb2.conv{i + 1}")
        assert float(conv.weight.detach().std()) == pytest.approx(std, rel=0.03)
        assert not conv.bias.any()
    bound = 1 / (3 * 9) ** 0.5
    assert float(net.conv_first.weight.detach().abs().max()) == pytest.approx(bound, rel=0.02)


def reach(net, center: int, scale: int, phase: int) -> tuple[int, int]:
    """Input pixels left and right of the center that output pixel center * scale + phase sees."""
    x = torch.rand(1, 3, 1, 2 * center + 1, dtype=torch.float64, requires_grad=True)
    net(x)[..., center * scale + phase].sum().backward()
    hit = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    return center - int(hit[0]), int(hit[-1]) - center


@pytest.mark.parametrize(
    "architecture", [RRDBArchitecture(4, 1, 4, 2), RRDBArchitecture(2, 2, 4, 2)]
)
def test_receptive_radius_by_gradient(architecture):
    net = architecture.build().double()
    for parameter in net.parameters():
        parameter.data.uniform_(0.01, 0.1)
    radius = architecture.receptive_radius
    reaches = [reach(net, radius + 6, architecture.scale, p) for p in range(architecture.scale)]
    assert max(max(pair) for pair in reaches) == radius


def test_receptive_radius_of_compact_and_the_released():
    net = CompactArchitecture(4, 3, 4).build().double()
    for parameter in net.parameters():
        parameter.data.uniform_(0.01, 0.1)
    assert reach(net, 12, 4, 0) == (5, 5)
    assert net.architecture.receptive_radius == 5
    radii = [standard_architecture(s).receptive_radius for s in (4, 2, 1)]
    assert radii == [349, 698, 1396]
    assert standard_architecture(4, blocks=6).receptive_radius == 94


FOREIGN = [
    ({}, "no tensors"),
    ({"conv9.weight": (1, 64, 3, 3)}, "discriminator"),
    ({"features.0.weight": (64, 3, 3, 3)}, "classifier"),
    ({"layers.0.attn.qkv.weight": (180, 60)}, "transformer"),
    ({"model.diffusion_model.x": (4,)}, "Stable Diffusion"),
    ({"body.0.weight": (64, 2, 3, 3), "body.2.weight": (7, 64, 3, 3)}, "2 tensors"),
]


@pytest.mark.parametrize(("shapes", "words"), FOREIGN)
def test_foreign_tensors_are_named(shapes, words):
    with pytest.raises(UnknownArchitectureError, match=words):
        detect(shapes)


def test_a_missing_or_misshapen_tensor_is_named():
    shapes = standard_architecture(4, blocks=2, features=8, growth=4).shapes()
    missing = {k: v for k, v in shapes.items() if k != "body.1.rdb2.conv3.bias"}
    with pytest.raises(UnknownArchitectureError, match=r"body\.1\.rdb2\.conv3\.bias.*missing"):
        detect(missing)
    with pytest.raises(UnknownArchitectureError, match=r"conv_hr\.weight.*8x8x5x5"):
        detect({**shapes, "conv_hr.weight": (8, 8, 5, 5)})
    many = {**shapes, "conv_first.weight": (8, 99, 3, 3)}
    with pytest.raises(UnknownArchitectureError, match=r"in_channels.*99"):
        detect(many)


def test_bad_records():
    with pytest.raises(ConfigError, match="did you mean 'compact'"):
        architecture_from_plain({"kind": "compakt"})
    with pytest.raises(ConfigError, match="scale"):
        RRDBArchitecture(scale=5)
    with pytest.raises(ConfigError, match="activation"):
        CompactArchitecture(activation="gelu")
