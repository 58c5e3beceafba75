"""Generators against outputs of the original implementation (every fifth pixel of them).

Weights: for the sorted state-dict keys, RandomState(seed).standard_normal(shape) * 0.05; input:
RandomState(100 + seed).rand(1, 3, h, w).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from realesr_cli.engine.backends.onednn import fuse
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import standard_architecture

DATA = np.load(Path(__file__).parent / "data" / "networks.npz")
CASES = [name for name in DATA.files if not name.endswith("_range")]


def architecture(name: str):
    kind, *rest = name.split("_")
    numbers = {m[1]: int(m[2]) for m in (re.fullmatch(r"([a-z]+)(\d+)", r) for r in rest) if m}
    if kind == "compact":
        return CompactArchitecture(numbers["s"], numbers["c"])
    return standard_architecture(
        numbers["s"],
        blocks=numbers["nb"],
        features=numbers.get("nf", 64),
        growth=numbers.get("gc", 32),
    )


def made_network(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    seed = int(name.rsplit("seed", 1)[1])
    net = architecture(name).build().eval()
    random = np.random.RandomState(seed)
    state = net.state_dict()
    for key in sorted(state):
        values = random.standard_normal(tuple(state[key].shape)) * 0.05
        state[key] = torch.from_numpy(values.astype(np.float32))
    net.load_state_dict(state)
    height, width = (16, 20) if seed == 9 else (24, 32)
    x = np.random.RandomState(100 + seed).rand(1, 3, height, width).astype(np.float32)
    return net, torch.from_numpy(x)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("way", ["module", "fused"])
def test_outputs_of_the_original(name, way):
    net, x = made_network(name)
    forward = net if way == "module" else fuse(net, torch.float32, 2)
    with torch.inference_mode():
        y = forward(x)[0].numpy()
    low, high = DATA[name + "_range"]
    assert np.abs(y[:, ::5, ::5] - DATA[name]).max() < 2e-4 * (high - low)
    np.testing.assert_allclose([y.min(), y.max()], [low, high], atol=2e-4 * (high - low))
