"""The networks against forms written from their descriptions, on the same tensors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from key_layouts import to_old
from torch import Tensor

from realesr_cli.nets.architecture import Architecture, shapes_of
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.detection import ARCHITECTURES, detect
from realesr_cli.nets.rrdbnet import RRDBArchitecture
from realesr_cli.nets.srresnet import SRResNetArchitecture
from realesr_cli.weights.model_files import build_network

State = dict[str, Tensor]


def lrelu(x: Tensor, slope: float = 0.2) -> Tensor:
    return torch.where(x >= 0, x, slope * x)


def conv(state: State, name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def nearest(x: Tensor, factor: int) -> Tensor:
    return x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def esrgan_of_2018(state: State, x: Tensor, steps: tuple[int, ...]) -> Tensor:
    """The first release's network, a flat list `model.N`, from tensors under its own names."""
    blocks = 1 + max(
        int(n.split(".")[3]) for n in state if n.startswith("model.1.sub") and "RDB" in n
    )
    first = y = conv(state, "model.0", x)
    for block in range(blocks):
        start = y
        for row in "123":
            name = f"model.1.sub.{block}.RDB{row}"
            shortcut = f"{name}.conv1x1.weight" in state
            seen = [y]
            for number in range(1, 5):
                z = lrelu(conv(state, f"{name}.conv{number}.0", torch.cat(seen, 1)))
                if shortcut and number == 2:
                    z = z + conv(state, f"{name}.conv1x1", y)
                if shortcut and number == 4:
                    z = z + seen[2]
                seen.append(z)
            y = y + 0.2 * conv(state, f"{name}.conv5.0", torch.cat(seen, 1))
        y = start + 0.2 * y
    y = first + conv(state, f"model.1.sub.{blocks}", y)
    for number, factor in enumerate(steps, 1):
        y = lrelu(conv(state, f"model.{3 * number}", nearest(y, factor)))
    y = lrelu(conv(state, f"model.{3 * len(steps) + 2}", y))
    return conv(state, f"model.{3 * len(steps) + 4}", y)


def unshuffle(x: Tensor, factor: int) -> Tensor:
    """Channel c r^2 + i r + j holds row i, column j of each cell of channel c."""
    parts = [x[:, :, i::factor, j::factor] for i in range(factor) for j in range(factor)]
    return torch.stack(parts, 2).flatten(1, 2)


def randomized(architecture: Architecture, seed: int) -> State:
    torch.manual_seed(seed)
    state = architecture.build().double().state_dict()
    return {name: torch.rand_like(tensor) * 0.4 - 0.2 for name, tensor in state.items()}


rrdb = st.builds(
    RRDBArchitecture,
    scale=st.sampled_from([1, 2, 3, 4, 8]),
    blocks=st.integers(1, 2),
    features=st.integers(1, 5),
    growth=st.integers(1, 4),
    plus=st.booleans(),
    in_channels=st.integers(1, 4),
    out_channels=st.integers(2, 4),
)


@given(rrdb, st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=20)
def test_old_esrgan_files_compute_what_they_did(
    architecture: RRDBArchitecture, height: int, width: int, seed: int
) -> None:
    steps = {1: (), 2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}[architecture.scale]
    state = randomized(architecture, seed)
    old = {to_old(name, architecture.blocks, len(steps)): t for name, t in state.items()}
    found = detect(shapes_of(old))
    candidates = (found.architecture, *found.alternatives)
    # 4 or 16 times the channels look like pixel-unshuffle; see `RRDBArchitecture.detect`.
    assert architecture in candidates or architecture.in_channels == 4 * architecture.out_channels
    x = torch.rand(2, architecture.in_channels, height, width, dtype=torch.float64)
    net = build_network(found.canonical(old), architecture)
    torch.testing.assert_close(net(x), esrgan_of_2018(old, x, steps))


@pytest.mark.parametrize(("scale", "factor"), [(2, 2), (1, 4)])
@pytest.mark.parametrize("size", [(4, 8), (5, 7), (9, 6)])
def test_pixel_unshuffle_in_front(scale: int, factor: int, size: tuple[int, int]) -> None:
    architecture = RRDBArchitecture(scale, 1, 4, 2, factor)
    state = randomized(architecture, 3)
    old = {to_old(name, 1, 2): tensor for name, tensor in state.items()}
    x = torch.rand(1, 3, *size, dtype=torch.float64)
    bottom, right = -size[0] % factor, -size[1] % factor
    rows = [*range(size[0]), *(size[0] - 2 - i for i in range(bottom))]
    columns = [*range(size[1]), *(size[1] - 2 - i for i in range(right))]
    mirrored = x[:, :, rows][:, :, :, columns]
    expected = esrgan_of_2018(old, unshuffle(mirrored, factor), (2, 2))
    expected = expected[..., : size[0] * scale, : size[1] * scale]
    torch.testing.assert_close(build_network(state, architecture)(x), expected)


def shuffle(x: Tensor, factor: int) -> Tensor:
    """Channel c s^2 + i s + j goes to row i, column j of each cell of channel c."""
    batch, channels, height, width = x.shape
    result = x.new_zeros(batch, channels // factor**2, height * factor, width * factor)
    for i in range(factor):
        for j in range(factor):
            result[:, :, i::factor, j::factor] = x[:, i * factor + j :: factor**2]
    return result


@given(
    st.integers(1, 5),
    st.integers(0, 3),
    st.sampled_from(["prelu", "relu", "leakyrelu"]),
    st.sampled_from([(1, 1), (1, 3), (3, 3), (4, 4)]),
    st.integers(0, 99),
)
@settings(max_examples=40)
def test_compact_by_its_description(
    scale: int, convs: int, activation: str, channels: tuple[int, int], seed: int
) -> None:
    architecture = CompactArchitecture(scale, convs, 4, activation, *channels)
    state = randomized(architecture, seed)
    x = torch.rand(2, channels[0], 4, 3, dtype=torch.float64)
    y = x
    for number in range(convs + 1):
        y = conv(state, f"body.{2 * number}", y)
        if activation == "prelu":
            slope = state[f"body.{2 * number + 1}.weight"].view(1, -1, 1, 1)
            y = torch.where(y >= 0, y, slope * y)
        else:
            y = lrelu(y, 0.0 if activation == "relu" else 0.1)
    y = shuffle(conv(state, f"body.{2 * convs + 2}", y), scale) + nearest(x, scale)
    torch.testing.assert_close(build_network(state, architecture)(x), y)


@pytest.mark.parametrize("scale", [2, 4])
def test_srresnet_by_its_description(scale: int) -> None:
    architecture = SRResNetArchitecture(scale, 2, 4)
    state = randomized(architecture, 5)
    x = torch.rand(1, 3, 5, 4, dtype=torch.float64)
    y = lrelu(conv(state, "conv_first", x), 0.1)
    for block in range(2):
        y = y + conv(
            state, f"body.{block}.conv2", conv(state, f"body.{block}.conv1", y).clamp(min=0)
        )
    for name in ("upconv1", "upconv2")[: scale // 2]:
        y = lrelu(shuffle(conv(state, name, y), 2), 0.1)
    y = conv(state, "conv_last", lrelu(conv(state, "conv_hr", y), 0.1))
    # Bilinear, sample centers at half pixels, edges repeated.
    base = x
    for dim in (2, 3):
        size = base.shape[dim]
        at = ((torch.arange(size * scale, dtype=torch.float64) + 0.5) / scale - 0.5).clamp(
            0, size - 1
        )
        low = at.floor().long()
        share = (at - low).view(-1, 1) if dim == 2 else at - low
        high = (low + 1).clamp(max=size - 1)
        base = base.index_select(dim, low) * (1 - share) + base.index_select(dim, high) * share
    torch.testing.assert_close(build_network(state, architecture)(x), y + base)


@pytest.mark.parametrize(
    "architecture",
    [
        RRDBArchitecture(1, 1, 2, 1), RRDBArchitecture(3, 1, 2, 1), RRDBArchitecture(8, 1, 2, 1),
        RRDBArchitecture(2, 1, 2, 1, plus=True), RRDBArchitecture(2, 1, 2, 1, 2),
        CompactArchitecture(3, 2, 2), SRResNetArchitecture(2, 2, 2), SRResNetArchitecture(4, 1, 2),
    ],
    ids=lambda a: a.describe(),
)  # fmt: skip
def test_no_output_pixel_depends_on_more_than_the_radius(architecture: Architecture) -> None:
    net = architecture.build().double()
    for parameter in net.parameters():
        parameter.data.uniform_(0.01, 0.1)
    radius, multiple = architecture.receptive_radius, architecture.multiple
    center = -(-(radius + 6) // multiple) * multiple
    x = torch.rand(1, 3, 1, 2 * center + multiple, dtype=torch.float64, requires_grad=True)
    farthest = 0
    for phase in range(architecture.scale * multiple):
        x.grad = None
        net(x)[..., center * architecture.scale + phase].sum().backward()
        assert x.grad is not None
        hit = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
        at = center + phase // architecture.scale
        farthest = max(farthest, at - int(hit[0]), int(hit[-1]) - at)
    assert farthest <= radius
    assert farthest >= radius - 2 * multiple - 1  # the bound is not idle


def test_every_record_answers_for_its_network() -> None:
    for known in ARCHITECTURES:
        architecture = known()
        net = architecture.build()
        assert net.architecture is architecture
        assert net.scale == architecture.scale
        name, size = architecture.card
        assert name.isascii()
        assert f"{architecture.features}nf" in size
        assert architecture.values_per_pixel >= architecture.features
        assert architecture.multiple == 1
        assert architecture.describe() == str(architecture.describe())
        parameters = sum(p.numel() for p in net.parameters() if p.requires_grad)
        assert architecture.count_parameters() == parameters
