"""Deeper networks: the same function at first, grain and all, free to become another."""

from __future__ import annotations

import pytest
import torch

from realesr_cli.nets.compact import Compact, CompactArchitecture
from realesr_cli.nets.deepen import deepen
from realesr_cli.nets.grain import has_grain, parts, sow


def network(convs: int = 6, activation: str = "prelu") -> Compact:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CompactArchitecture(2, convs, 24, activation).build()


def picture() -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return (torch.rand(2, 3, 20, 17, generator=rng) * 255).round() / 255


@pytest.mark.parametrize("activation", ["prelu", "relu"])
@pytest.mark.parametrize(("convs", "deeper"), [(0, 3), (1, 2), (6, 6), (6, 7), (6, 16)])
@torch.no_grad()
def test_a_deeper_network_starts_as_the_same_function(
    convs: int, deeper: int, activation: str
) -> None:
    net = network(convs, activation)
    made = deepen(net, deeper)
    assert made.architecture == CompactArchitecture(2, deeper, 24, activation)
    assert torch.equal(made(picture()), net(picture()))


@torch.no_grad()
def test_grain_goes_on_through_new_layers() -> None:
    net = network()
    sow(net, 0.7)
    made = deepen(net, 11)
    assert has_grain(made)
    old, new = parts(net, picture()), parts(made, picture())
    assert torch.equal(new.picture, old.picture)
    assert torch.equal(new.strength, old.strength)
    assert (old.picture - old.clean).std() > 1e-3
    sow(made, 0.0)
    assert torch.allclose(made(picture()), new.clean, atol=1e-6)


def test_new_layers_learn() -> None:
    net = deepen(network(1), 3)
    (net(picture()) - 0.5).square().mean().backward()
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize(("activation", "convs"), [("prelu", 5), ("leakyrelu", 8)])
def test_what_cannot_be_deepened_is_refused(activation: str, convs: int) -> None:
    with pytest.raises(ValueError, match="shallower"):
        deepen(network(6, activation), convs)
