"""A deeper Compact network that starts as the very function of a shallower one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from realesr_cli.nets.compact import Compact
from realesr_cli.nets.grain import MIXES, has_grain


@torch.no_grad()
def deepen(net: Compact, convs: int) -> Compact:
    """A network of `convs` inner convolutions whose added layers hand on what they are given.

    A new layer is the identity with slope 1, so that nothing changes until it is trained (Chen et
    al. 2016, Net2DeeperNet); they are spread evenly behind the others, in a network with grain
    behind those that make its fields. ValueError where the network is deeper already, or has
    LeakyReLU, which changes what it is given.
    """
    a = net.architecture
    added = convs - a.convs
    if added < 0 or a.activation == "leakyrelu":
        raise ValueError("a deeper Compact network starts from a shallower one without LeakyReLU")
    start = MIXES + 1 if has_grain(net) else 0
    behind = [start + number * (a.convs - start) // max(1, added) for number in range(added)]
    given = list(net.body)
    layers: list[nn.Module] = []
    deeper = Compact(replace(a, convs=convs))
    for layer in range(a.convs + 1):
        layers += given[2 * layer : 2 * layer + 2]
        for _ in range(behind.count(layer)):
            layers += _identity(a.features, a.activation)
    layers.append(given[-1])
    deeper.load_state_dict(nn.ModuleDict({"body": nn.Sequential(*layers)}).state_dict())
    return deeper


def _identity(features: int, activation: str) -> list[nn.Module]:
    conv = nn.Conv2d(features, features, 3, 1, 1)
    nn.init.dirac_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    # What a ReLU gives is never below 0, so that a second one changes nothing.
    return [conv, nn.PReLU(features, init=1.0) if activation == "prelu" else nn.ReLU()]
