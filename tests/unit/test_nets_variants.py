"""Every variant of ESRGAN and Compact in circulation is recognized, loads and enlarges images."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from key_layouts import to_mid, to_old
from torch import Tensor

from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import ConfigError, RealesrWarning, UnknownArchitectureError
from realesr_cli.image.read import from_array
from realesr_cli.nets.architecture import LUMA, adapt_to_rgb, shapes_of
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.detection import FOREIGN_SHARE, architecture_from_plain, detect, match
from realesr_cli.nets.rrdbnet import RRDBArchitecture, standard_architecture
from realesr_cli.nets.srresnet import SRResNetArchitecture
from realesr_cli.weights import model_files
from realesr_cli.weights.load import open_model

CHANNELS = [(1, 1), (1, 3), (3, 1), (3, 3), (4, 4), (4, 3), (3, 4), (5, 5), (1, 4)]
# From 4 channels to 1 is what a gray network with pixel-unshuffle 2 looks like.


def esrgan(scale: int, inputs: int, outputs: int, unshuffle: int = 1) -> RRDBArchitecture:
    return RRDBArchitecture(scale, 1, 8, 4, unshuffle, in_channels=inputs, out_channels=outputs)


LAYOUTS = {"new": lambda name, a: name, "mid": lambda name, a: to_mid(name)} | {
    "old": lambda name, a: to_old(name, a.blocks, len(a.up_factors))
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scale", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("channels", CHANNELS, ids=str)
def test_esrgan_of_any_scale_and_channels(
    layout: str, scale: int, channels: tuple[int, int]
) -> None:
    architecture = esrgan(scale, *channels)
    shapes = {LAYOUTS[layout](n, architecture): s for n, s in architecture.shapes().items()}
    found = detect(shapes)
    assert found.architecture == architecture
    assert set(found.names) == set(architecture.shapes())
    assert set(found.names.values()) == set(shapes)
    assert architecture_from_plain(architecture.to_plain()) == architecture


@pytest.mark.parametrize("scale", range(1, 17))
@pytest.mark.parametrize("channels", [(1, 1), (1, 3), (3, 3), (4, 4), (5, 5)], ids=str)
def test_compact_of_any_scale_and_channels(scale: int, channels: tuple[int, int]) -> None:
    architecture = CompactArchitecture(scale, 1, 8, "prelu", *channels)
    found = detect(architecture.shapes()).architecture
    # One channel to s^2 values is also what an s/k network to k^2 channels has.
    assert isinstance(found, CompactArchitecture)
    assert found.out_channels * found.scale**2 == channels[1] * scale**2
    if channels != (1, 3):
        assert found == architecture


def test_gray_to_color_compact_networks_are_distinguished_from_gray_ones() -> None:
    for scale in (1, 2, 4):
        architecture = CompactArchitecture(scale, 1, 8, "prelu", 1, 3)
        assert detect(architecture.shapes()).architecture == architecture


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("scale", "unshuffle"), [(2, 2), (1, 4), (1, 2), (4, 2), (2, 4)])
def test_pixel_unshuffle_of_any_channels(scale: int, unshuffle: int, channels: int) -> None:
    architecture = esrgan(scale, channels, channels, unshuffle)
    assert detect(architecture.shapes()).architecture == architecture


@pytest.mark.parametrize(
    ("architecture", "channels"),
    [
        *((esrgan(2, *pair), pair) for pair in CHANNELS if 5 not in pair),
        *(
            (CompactArchitecture(2, 1, 4, "prelu", *pair), pair)
            for pair in [(1, 1), (1, 3), (4, 4)]
        ),
    ],
    ids=lambda item: item.describe() if hasattr(item, "describe") else "",
)
def test_any_channels_enlarge_an_image(
    architecture: RRDBArchitecture | CompactArchitecture,
    channels: tuple[int, int],
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    torch.save(architecture.build().state_dict(), tmp_path / "m.pth")
    upscaler = Upscaler(open_model(tmp_path / "m.pth").net, EngineSettings("cpu", tile=16))
    pixels = np.random.default_rng(0).integers(0, 256, (21, 30, 3), np.uint8)
    result = np.asarray(upscaler(from_array(pixels)))
    assert result.shape == (42, 60, 3)
    assert (result[..., 0] == result[..., 1]).all() == (channels[0] != 1 and channels[1] == 1)


def test_five_channels_are_loaded_but_not_applied_to_images(tmp_path: Path) -> None:
    torch.save(esrgan(2, 5, 5).build().state_dict(), tmp_path / "m.pth")
    net = open_model(tmp_path / "m.pth").net
    assert net(torch.rand(1, 5, 4, 3)).shape == (1, 5, 8, 6)
    with pytest.raises(UnknownArchitectureError, match="5 to 5"):
        Upscaler(net, EngineSettings("cpu"))


# --- channels -----------------------------------------------------------------------------------


class Record:
    """Stands for an architecture of these channels."""

    def __init__(self, inputs: int, outputs: int, scale: int = 2) -> None:
        self.in_channels, self.out_channels, self.scale = inputs, outputs, scale

    def describe(self) -> str:
        return "a network"


def enlarge(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


IMAGE = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(1))


def test_rgb_networks_are_left_alone() -> None:
    assert adapt_to_rgb(enlarge, Record(3, 3)) is enlarge


def test_gray_networks_get_the_luma_and_leave_gray_gray() -> None:
    seen = []

    def forward(x: Tensor) -> Tensor:
        seen.append(x)
        return enlarge(x) * 0.5

    result = adapt_to_rgb(forward, Record(1, 1))(IMAGE)
    expected = sum(LUMA[c] * IMAGE[:, c] for c in range(3))
    torch.testing.assert_close(seen[0][:, 0], expected)
    luma = sum(LUMA[c] * result[:, c] for c in range(3))
    # Resizing is linear and the differences from the luma have no luma: only the network's is left.
    torch.testing.assert_close(luma, enlarge(expected[:, None])[:, 0] * 0.5, atol=1e-6, rtol=0)
    gray = IMAGE[:, :1].repeat(1, 3, 1, 1)
    result = adapt_to_rgb(forward, Record(1, 1))(gray)
    torch.testing.assert_close(result, enlarge(gray) * 0.5, atol=1e-6, rtol=0)


def test_gray_networks_keep_constant_colors() -> None:
    color = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    result = adapt_to_rgb(enlarge, Record(1, 1))(color)
    torch.testing.assert_close(result, color[..., :1, :1].expand(1, 3, 8, 8))


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 4), (4, 3), (3, 4), (1, 3), (1, 4), (3, 1)])
def test_other_channels_are_filled_in_and_dropped(inputs: int, outputs: int) -> None:
    seen = []

    def forward(x: Tensor) -> Tensor:
        seen.append(x)
        first = enlarge(x)
        return torch.cat([first[:, :1] * (i + 1) for i in range(outputs)], 1)

    result = adapt_to_rgb(forward, Record(inputs, outputs))(IMAGE)
    assert seen[0].shape[1] == inputs
    if inputs == 4:
        assert (seen[0][:, 3] == 1).all()
    assert result.shape == (2, 3, 12, 10)
    expected = [1, 1, 1] if outputs == 1 else [1, 2, 3]
    for channel, factor in enumerate(expected):
        torch.testing.assert_close(result[:, channel], enlarge(seen[0][:, :1])[:, 0] * factor)


def test_tiles_of_a_gray_network_equal_the_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = CompactArchitecture(2, 1, 4, "prelu", 1, 1).build()
    pixels = np.random.default_rng(0).integers(0, 65536, (40, 50, 3), np.uint16)
    exact = EngineSettings("cpu", precision="fp32")
    whole = np.asarray(Upscaler(net, EngineSettings("cpu", precision="fp32", tile=0))(
        from_array(pixels)
    ))  # fmt: skip
    assert exact.tile == "auto"
    tiled = Upscaler(net, EngineSettings("cpu", precision="fp32", tile=16))(from_array(pixels))
    assert np.abs(whole.astype(int) - np.asarray(tiled).astype(int)).max() <= 1


# --- what tensors cannot tell -------------------------------------------------------------------


def old_names(architecture: RRDBArchitecture) -> dict[str, Tensor]:
    state = architecture.build().state_dict()
    ups = len(architecture.up_factors)
    return {to_old(name, architecture.blocks, ups): tensor for name, tensor in state.items()}


def test_an_old_x2_network_may_be_x3() -> None:
    three = RRDBArchitecture(3, 1, 8, 4)
    found = detect(shapes_of(old_names(three)))
    assert found.architecture == RRDBArchitecture(2, 1, 8, 4)
    assert found.alternatives == (three,)
    assert detect(three.shapes()).alternatives == ()  # the new layout has no x3
    x = torch.rand(1, 3, 4, 5)
    net = three.build()
    assert net(x).shape == (1, 3, 12, 15)


def test_x3_enlarges_by_a_single_nearest_step() -> None:
    net = RRDBArchitecture(3, 1, 8, 4).build()
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    for conv in (net.conv_first, net.conv_up1, net.conv_hr, net.conv_last):
        for channel in range(3):
            conv.weight.data[channel, channel, 1, 1] = 1
    x = torch.rand(1, 3, 3, 4)
    torch.testing.assert_close(net(x), x.repeat_interleave(3, 2).repeat_interleave(3, 3))


@pytest.mark.parametrize("wanted", ["relu", "leakyrelu"])
def test_the_unknown_activation_is_warned_of_until_it_is_stated(
    tmp_path: Path, wanted: str
) -> None:
    architecture = CompactArchitecture(2, 1, 4, wanted)
    state = architecture.build().state_dict()
    torch.save(state, tmp_path / "m.pth")
    with pytest.warns(RealesrWarning, match="leakyrelu") as caught:
        assert open_model(tmp_path / "m.pth").architecture.activation == "relu"
    assert caught[0].message.advice == "ambiguous-model"
    model_files.save_pth(
        tmp_path / "n.pth", {"params": state}, model_files.model_metadata(architecture)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_model(tmp_path / "n.pth").architecture == architecture


def test_published_networks_are_never_ambiguous() -> None:
    for a in (
        standard_architecture(4, blocks=2), standard_architecture(2, blocks=2),
        standard_architecture(1, blocks=1), RRDBArchitecture(scale=2, blocks=2),
        CompactArchitecture(), SRResNetArchitecture(),
    ):  # fmt: skip
        assert detect(a.shapes()).alternatives == ()
    for ups in (0, 2, 3, 4):
        shapes = shapes_of(old_names(RRDBArchitecture(2**ups, 1, 8, 4)))
        assert detect(shapes).alternatives == ()


# --- tensors that do not belong -----------------------------------------------------------------

BASE = CompactArchitecture(4, 2, 16)


@pytest.mark.parametrize("name", [".version", "step", "total_ops", "mean", "n_averaged"])
def test_a_few_foreign_numbers_are_ignored_with_a_note(tmp_path: Path, name: str) -> None:
    state = BASE.build().state_dict()
    torch.save({**state, name: torch.zeros(3)}, tmp_path / "m.pth")
    with pytest.warns(RealesrWarning, match=name):
        assert open_model(tmp_path / "m.pth").architecture == BASE
    scalar = {**shapes_of(state), name: ()}
    assert detect(scalar).foreign == (name,)
    assert match(scalar, BASE).foreign == (name,)


def test_foreign_layers_are_refused() -> None:
    shapes = dict(BASE.shapes())
    numbers = sum(int(np.prod(shape)) for shape in shapes.values())
    allowed = max(16, int(FOREIGN_SHARE * numbers))
    assert detect({**shapes, "extra": (allowed,)}).foreign == ("extra",)
    for foreign in ({"extra": (allowed + 1,)}, {"att.0.weight": (16, 16, 1, 1)}):
        with pytest.raises(UnknownArchitectureError, match="does not belong"):
            detect({**shapes, **foreign})
    with pytest.raises(UnknownArchitectureError, match=r"body\.scale"):
        detect({**shapes, "body.scale": (1,)})


def test_two_names_of_one_tensor_are_refused() -> None:
    shapes = dict(RRDBArchitecture(4, 1, 8, 4).shapes())
    shapes["trunk_conv.weight"] = shapes["conv_body.weight"]
    with pytest.raises(UnknownArchitectureError, match="same place"):
        detect(shapes)


# --- numbers out of bounds ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("rrdb", {"blocks": 10**9}), ("rrdb", {"features": 2**40}), ("rrdb", {"growth": 10**7}),
        ("rrdb", {"in_channels": 10**6}), ("compact", {"convs": 10**9}),
        ("compact", {"features": 2**40}), ("compact", {"scale": 17}),
        ("compact", {"in_channels": 4, "out_channels": 3}), ("srresnet", {"blocks": 10**9}),
        ("srresnet", {"features": 2**40}), ("rrdb", {"scale": float("inf")}),
    ],
)  # fmt: skip
def test_records_are_bounded(kind: str, fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        architecture_from_plain({"kind": kind, **fields})


@pytest.mark.parametrize("data", [None, 7, [], "rrdb", {}, {"kind": ["rrdb"]}, {"kind": None}])
def test_records_are_tables_of_a_known_kind(data: object) -> None:
    with pytest.raises(ConfigError):
        architecture_from_plain(data)


@pytest.mark.parametrize(
    "name",
    [
        f"body.{'9' * 5000}.weight", f"body.{'9' * 5000}.rdb1.conv1.weight",
        f"model.{'9' * 5000}.weight", f"conv_up{'9' * 5000}.weight", "body..weight",
        "RRDB_trunk.-1.RDB1.conv1.weight", "", ".", "body.0.conv1.weight",
    ],
)  # fmt: skip
def test_odd_names_are_no_network(name: str) -> None:
    for base in ({}, BASE.shapes(), RRDBArchitecture(4, 1, 8, 4).shapes()):
        with pytest.raises(UnknownArchitectureError):
            detect({**base, name: (8, 8, 3, 3)})


@pytest.mark.parametrize("sides", list(itertools.product([(), (0,), (3,), (3, 3)], [0, 1])))
def test_odd_shapes_are_no_network(sides: tuple[tuple[int, ...], int]) -> None:
    shape, which = sides
    for base in (BASE, RRDBArchitecture(4, 1, 8, 4), SRResNetArchitecture(4, 1, 4)):
        names = list(base.shapes())
        name = names[0] if which == 0 else names[-2]
        with pytest.raises(UnknownArchitectureError):
            detect({**base.shapes(), name: shape})
