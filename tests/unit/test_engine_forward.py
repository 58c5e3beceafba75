"""The measured context is that of the network's effect, not of its theory."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from realesr_cli.engine.forward import CONTEXTS, measure_context, reference_pattern
from realesr_cli.nets.rrdbnet import standard_architecture


def box(radius: int, gain: float):
    """A network that adds `gain` times the mean over a window of that radius."""

    def forward(x):
        size = 2 * radius + 1
        return x * 0.5 + gain * F.avg_pool2d(x, size, 1, radius)

    return forward


def test_a_strong_reach_is_found():
    for radius, expected in ((5, 8), (10, 12), (20, 24), (40, 48)):
        assert measure_context(box(radius, 0.4), scale=1) == expected


def test_an_effect_below_half_a_level_is_none():
    assert measure_context(box(40, 0.001), scale=1) == CONTEXTS[0]


def test_a_reach_beyond_all_candidates_gives_the_largest():
    assert measure_context(box(90, 1.0), scale=1) == CONTEXTS[-1]


def test_unshuffle_keeps_its_phase():
    seen = []

    def forward(x):
        seen.append(x.shape[3])
        return x.clone()

    measure_context(forward, scale=1, multiple=4)
    assert seen[0] % 4 == 0
    assert all((seen[0] - n) % 4 == 0 for n in seen)


def test_a_deep_network_needs_far_less_than_its_radius():
    torch.manual_seed(0)
    net = standard_architecture(4, blocks=4, features=16, growth=8).build().eval()
    with torch.inference_mode():
        context = measure_context(net, net.scale)
    assert context <= 24 < net.architecture.receptive_radius


def test_the_pattern_is_always_the_same():
    assert torch.equal(reference_pattern(20, 30), reference_pattern(20, 30))
    assert reference_pattern(20, 30).std() > 0.1
