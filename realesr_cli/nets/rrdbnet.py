"""RRDBNet, the generator of ESRGAN and Real-ESRGAN, and how to recognize one from its tensors.

Source: Wang et al., "ESRGAN" (2018), section 3.1 and fig. 4; "Real-ESRGAN" (2021), section 3.3
for the pixel-unshuffle in front of the x2 and x1 networks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realesr_cli.errors import ConfigError
from realesr_cli.nets.architecture import Architecture, Generator, Shapes
from realesr_cli.settings import check, option

SLOPE = 0.2
"""Negative slope of every LeakyReLU of the network."""

RESIDUAL_SCALE = 0.2
"""Factor on each residual branch, of the dense blocks and of the whole RRDB."""


@dataclass(frozen=True)
class RRDBArchitecture(Architecture):
    """What an RRDBNet is made of; `scale` is output size over input size."""

    kind: ClassVar[str] = "rrdb"

    scale: int = option(4, help="Output size over input size.", choices=(1, 2, 3, 4, 8, 16))
    blocks: int = option(23, help="Residual-in-residual dense blocks.", low=1, high=200)
    features: int = option(64, help="Channels between the blocks.", low=1, high=2048)
    growth: int = option(32, help="Channels that each dense convolution adds.", low=1, high=2048)
    unshuffle: int = option(1, help="Pixel-unshuffle factor at the input.", choices=(1, 2, 4))
    plus: bool = option(False, help="The 1x1 shortcuts of ESRGAN+ inside the dense blocks.")
    in_channels: int = option(3, help="Channels of the input image.", low=1, high=64)
    out_channels: int = option(3, help="Channels of the output image.", low=1, high=64)

    def __post_init__(self) -> None:
        check(self)

    @property
    def up_factors(self) -> tuple[int, ...]:
        """Factor of each nearest-neighbor step after the blocks: all 2, or a single 3."""
        factor = self.scale * self.unshuffle
        return (2,) * (factor.bit_length() - 1) if factor & (factor - 1) == 0 else (factor,)

    @property
    def multiple(self) -> int:
        """The pixel-unshuffle factor, whose phase every tile must keep."""
        return self.unshuffle

    @property
    def receptive_radius(self) -> int:
        """Input pixels on each side that one output pixel depends on (verified by gradient).

        15 per block (three dense blocks of five 3x3 convolutions), and 4 for conv_first, conv_body
        and what the convolutions after the up steps reach in input pixels, rounded up.
        """
        return (15 * self.blocks + 4) * self.unshuffle

    @property
    def values_per_pixel(self) -> int:
        """The larger of two places.

        The stack of a dense block with its copy, or three maps at output size after the up steps.
        """
        dense = 2 * (self.features + 4 * self.growth)
        high = 3 * self.features * (self.scale * self.unshuffle) ** 2
        return max(dense, high) // self.unshuffle**2

    @property
    def card(self) -> tuple[str, tuple[str, ...]]:
        """`esrgan` or `esrgan+`, features and blocks."""
        return "esrgan" + "+" * self.plus, (f"{self.features}nf", f"{self.blocks}nb")

    def build(self) -> RRDBNet:
        """Return an untrained network of this architecture."""
        return RRDBNet(self)

    def describe(self) -> str:
        """Return one line for people."""
        channels = (self.in_channels, self.out_channels)
        return (
            f"RRDBNet{'+' * self.plus} x{self.scale}, {self.blocks} blocks, "
            f"{self.features} features, growth {self.growth}"
            + (f", pixel-unshuffle {self.unshuffle}" if self.unshuffle > 1 else "")
            + (f", {channels[0]} to {channels[1]} channels" if channels != (3, 3) else "")
        )

    @classmethod
    def detect(cls, shapes: Shapes) -> tuple[Self, ...]:
        """Return the architectures of these tensors: two for an old x2 network, which may be x3.

        Both have one up step in the old layout; later layouts belong to trainers without x3.
        """
        old_layout = "model.0.weight" in shapes
        shapes = {new: shapes[old] for old, new in cls.canonical_names(shapes).items()}
        needed = ("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight")
        if any(len(shapes.get(name, ())) != 4 for name in needed):
            return ()
        features, inputs = shapes["conv_first.weight"][:2]
        outputs = shapes["conv_last.weight"][0]
        # Four or sixteen times the output's channels can only come from a pixel-unshuffle, except
        # for a network from 4 channels (RGBA) to 1, which is assumed not to exist.
        unshuffle = {4 * outputs: 2, 16 * outputs: 4}.get(inputs, 1)
        steps = sum(re.fullmatch(r"conv_up\d\.weight", name) is not None for name in shapes)
        scale, rest = divmod(2**steps, unshuffle)
        if rest or not scale:
            return ()
        found = cls(
            scale=scale,
            # The number of blocks, not the highest index: a file may name any index.
            blocks=len({m[1] for name in shapes if (m := re.match(r"body\.(\d+)\.", name))}),
            features=features,
            growth=shapes["body.0.rdb1.conv1.weight"][0],
            unshuffle=unshuffle,
            plus="body.0.rdb1.conv1x1.weight" in shapes,
            in_channels=inputs // unshuffle**2,
            out_channels=outputs,
        )
        may_be_3 = old_layout and found.scale == 2 and found.unshuffle == 1
        return (found, replace(found, scale=3)) if may_be_3 else (found,)

    @classmethod
    def canonical_names(cls, names: Iterable[str]) -> dict[str, str]:
        """Return the name in this module's layout of every name of the new, mid or old layout."""
        names = list(names)
        old = [int(found[1]) for found in map(_OLD_PLAIN.match, names) if found]
        return {name: _canonical_name(name, max(old, default=-1)) for name in names}


def standard_architecture(
    scale: int, *, blocks: int = 23, features: int = 64, growth: int = 32
) -> RRDBArchitecture:
    """Return the Real-ESRGAN generator for x4, x2 or x1: two up steps, unshuffle 1, 2 or 4.

    Raises ConfigError for x3: nothing in such a file would tell other programs that it is not x2.
    """
    if scale == 3:
        raise ConfigError("scale = 3: must be 1, 2, 4, 8 or 16 for an RRDBNet")
    unshuffle = {4: 1, 2: 2, 1: 4}.get(scale, 1)
    return RRDBArchitecture(scale, blocks, features, growth, unshuffle)


def init_convolution(conv: nn.Conv2d) -> None:
    """Set Kaiming-normal weights (fan-in) x 0.1 and a zero bias, so that deep stacks start stable.

    Does nothing to a network without memory (meta): there is nothing to fill, and torch would load
    its compiler for that, which takes a second or more of every start.
    """
    if conv.weight.is_meta:
        return
    nn.init.kaiming_normal_(conv.weight, a=0, mode="fan_in")
    with torch.no_grad():
        conv.weight.mul_(0.1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class DenseBlock(nn.Module):
    """Residual dense block (RDB): five convolutions, each seeing all features before it."""

    def __init__(self, features: int, growth: int, plus: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, growth, 3, 1, 1)
        self.conv2 = nn.Conv2d(features + growth, growth, 3, 1, 1)
        self.conv3 = nn.Conv2d(features + 2 * growth, growth, 3, 1, 1)
        self.conv4 = nn.Conv2d(features + 3 * growth, growth, 3, 1, 1)
        self.conv5 = nn.Conv2d(features + 4 * growth, features, 3, 1, 1)
        self.conv1x1 = nn.Conv2d(features, growth, 1, bias=False) if plus else None
        for conv in self.children():
            assert isinstance(conv, nn.Conv2d)
            init_convolution(conv)

    def forward(self, x: Tensor) -> Tensor:
        """(B, features, H, W) to the same shape."""
        x1 = F.leaky_relu(self.conv1(x), SLOPE)
        x2 = F.leaky_relu(self.conv2(torch.cat((x, x1), 1)), SLOPE)
        if self.conv1x1 is not None:
            x2 = x2 + self.conv1x1(x)
        x3 = F.leaky_relu(self.conv3(torch.cat((x, x1, x2), 1)), SLOPE)
        x4 = F.leaky_relu(self.conv4(torch.cat((x, x1, x2, x3), 1)), SLOPE)
        if self.conv1x1 is not None:
            x4 = x4 + x2
        x5 = self.conv5(torch.cat((x, x1, x2, x3, x4), 1))
        return torch.add(x, x5, alpha=RESIDUAL_SCALE)


class RRDB(nn.Module):
    """Residual in residual dense block: three dense blocks and an outer shortcut."""

    def __init__(self, features: int, growth: int, plus: bool = False) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(features, growth, plus)
        self.rdb2 = DenseBlock(features, growth, plus)
        self.rdb3 = DenseBlock(features, growth, plus)

    def forward(self, x: Tensor) -> Tensor:
        """(B, features, H, W) to the same shape."""
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=RESIDUAL_SCALE)


class RRDBNet(Generator):
    """The generator: (B, 3, H, W) RGB in [0, 1] to (B, 3, H * scale, W * scale), not clamped.

    Any H, W >= 1: with pixel-unshuffle the image is extended to a multiple of the factor at the
    right and bottom, and the result cut back.
    """

    architecture: RRDBArchitecture

    def __init__(self, architecture: RRDBArchitecture = RRDBArchitecture()) -> None:
        super().__init__(architecture)
        a = architecture
        self.conv_first = nn.Conv2d(a.in_channels * a.unshuffle**2, a.features, 3, 1, 1)
        self.body = nn.Sequential(*(RRDB(a.features, a.growth, a.plus) for _ in range(a.blocks)))
        self.conv_body = nn.Conv2d(a.features, a.features, 3, 1, 1)
        self.up_names = tuple(f"conv_up{i}" for i in range(1, len(a.up_factors) + 1))
        for name in self.up_names:
            self.add_module(name, nn.Conv2d(a.features, a.features, 3, 1, 1))
        self.conv_hr = nn.Conv2d(a.features, a.features, 3, 1, 1)
        self.conv_last = nn.Conv2d(a.features, a.out_channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H * scale, W * scale)."""
        a = self.architecture
        y = self.conv_first(unshuffle_any_size(x, a.unshuffle))
        y = y + self.conv_body(self.body(y))
        for name, factor in zip(self.up_names, a.up_factors, strict=True):
            y = F.interpolate(y, scale_factor=factor, mode="nearest")
            y = F.leaky_relu(self.get_submodule(name)(y), SLOPE)
        y = self.conv_last(F.leaky_relu(self.conv_hr(y), SLOPE))
        return crop_to_scale(y, x, a.scale)


def unshuffle_any_size(x: Tensor, factor: int) -> Tensor:
    """Pixel-unshuffle an image of any size: (B, C, H, W) to (B, C f^2, ceil(H/f), ceil(W/f)).

    The missing rows and columns are mirrored where the image is large enough, else repeated.
    """
    if factor == 1:
        return x
    bottom, right = -x.shape[-2] % factor, -x.shape[-1] % factor
    if right:
        x = F.pad(x, (0, right, 0, 0), mode="reflect" if x.shape[-1] > right else "replicate")
    if bottom:
        x = F.pad(x, (0, 0, 0, bottom), mode="reflect" if x.shape[-2] > bottom else "replicate")
    return F.pixel_unshuffle(x, factor)


def crop_to_scale(y: Tensor, x: Tensor, scale: int) -> Tensor:
    """Cut the output `y` to `scale` times the height and width of the input `x`."""
    return y[..., : x.shape[-2] * scale, : x.shape[-1] * scale]


# --- older names of the same tensors ------------------------------------------------------------

_MID = {"trunk_conv": "conv_body", "HRconv": "conv_hr"} | {
    f"upconv{step}": f"conv_up{step}" for step in range(1, 5)
}
_BLOCK, _ROW = r"(\d{1,6})", r"\.RDB([123])"
_MID_BLOCK = re.compile(rf"RRDB_trunk\.{_BLOCK}{_ROW}\.(conv[1-5]|conv1x1)\.(weight|bias)")
_OLD_BLOCK = re.compile(
    rf"model\.1\.sub\.{_BLOCK}{_ROW}\.(?:(conv[1-5])\.0|(conv1x1))\.(weight|bias)"
)
_OLD_PLAIN = re.compile(r"model\.(\d{1,6})\.(weight|bias)$")
_OLD_BODY = re.compile(rf"model\.1\.sub\.{_BLOCK}\.(weight|bias)")


def _canonical_name(name: str, last_index: int) -> str:
    """Return this module's name of a tensor of the new, mid or old layout; unknown ones as is.

    `last_index` is the highest N of the `model.N.` names of an old layout, from which the number
    of up steps S follows: the i-th is model.(3i), conv_hr model.(3S+2) and conv_last model.(3S+4).
    """
    if match := _MID_BLOCK.fullmatch(name):
        return f"body.{match[1]}.rdb{match[2]}.{match[3]}.{match[4]}"
    if match := _OLD_BLOCK.fullmatch(name):
        return f"body.{match[1]}.rdb{match[2]}.{match[3] or match[4]}.{match[5]}"
    if match := _OLD_BODY.fullmatch(name):
        return f"conv_body.{match[2]}"
    if match := _OLD_PLAIN.fullmatch(name):
        index = int(match[1])
        places = {0: "conv_first", last_index: "conv_last", last_index - 2: "conv_hr"}
        if index in places:
            return f"{places[index]}.{match[2]}"
        return f"conv_up{index // 3}.{match[2]}" if index % 3 == 0 else name
    stem, _, suffix = name.rpartition(".")
    return f"{_MID.get(stem, stem)}.{suffix}" if stem else name
