"""RRDBNet, the generator of ESRGAN and Real-ESRGAN, and how to tell one from its tensors.

Source: Wang et al., "ESRGAN" (2018), section 3.1 and fig. 4; "Real-ESRGAN" (2021), section 3.3
for the pixel-unshuffle in front of the x2 and x1 networks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realesr_cli.settings import check, option

SLOPE = 0.2
"""Negative slope of every LeakyReLU of the network."""

RESIDUAL_SCALE = 0.2
"""Factor on each residual branch, of the dense blocks and of the whole RRDB."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class RRDBArchitecture:
    """What an RRDBNet is made of; `scale` is output size over input size."""

    kind: ClassVar[str] = "rrdb"

    scale: int = option(4, help="Output size over input size.", choices=(1, 2, 4, 8))
    blocks: int = option(23, help="Residual-in-residual dense blocks.", low=1)
    features: int = option(64, help="Channels between the blocks.", low=1)
    growth: int = option(32, help="Channels that each dense convolution adds.", low=1)
    unshuffle: int = option(1, help="Pixel-unshuffle factor at the input.", choices=(1, 2, 4))
    plus: bool = option(False, help="The 1x1 shortcuts of ESRGAN+ inside the dense blocks.")

    def __post_init__(self) -> None:
        check(self)

    @property
    def up_steps(self) -> int:
        """Number of x2 steps after the blocks."""
        return (self.scale * self.unshuffle).bit_length() - 1

    @property
    def receptive_radius(self) -> int:
        """Input pixels on each side that one output pixel depends on (verified by gradient).

        15 per block (three dense blocks of five 3x3 convolutions), and 4 for conv_first, conv_body
        and what the convolutions after the up steps reach in input pixels, rounded up.
        """
        return (15 * self.blocks + 4) * self.unshuffle

    def build(self) -> RRDBNet:
        """An untrained network of this architecture."""
        return RRDBNet(self)

    def describe(self) -> str:
        """One line for people."""
        extra = f", pixel-unshuffle {self.unshuffle}" if self.unshuffle > 1 else ""
        plus = "+" if self.plus else ""
        return (
            f"RRDBNet{plus} x{self.scale}, {self.blocks} blocks, "
            f"{self.features} features, growth {self.growth}{extra}"
        )


def standard_architecture(
    scale: int, *, blocks: int = 23, features: int = 64, growth: int = 32
) -> RRDBArchitecture:
    """The Real-ESRGAN generator for x4, x2 or x1: always two up steps, unshuffle 1, 2 or 4."""
    unshuffle = {4: 1, 2: 2, 1: 4}.get(scale, 1)
    return RRDBArchitecture(scale, blocks, features, growth, unshuffle)


def init_dense_block(module: nn.Module) -> None:
    """Kaiming-normal weights (fan-in) x 0.1 and zero biases, so that deep stacks start stable."""
    for layer in module.modules():
        # A network without memory (meta) has nothing to fill, and torch would load its compiler
        # to draw no numbers: a second or more of every start.
        if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
            nn.init.kaiming_normal_(layer.weight, a=0, mode="fan_in")
            with torch.no_grad():
                layer.weight.mul_(0.1)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


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
        init_dense_block(self)

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


class RRDBNet(nn.Module):
    """The generator: (B, 3, H, W) RGB in [0, 1] to (B, 3, H * scale, W * scale), not clamped.

    Any H, W >= 1: with pixel-unshuffle the image is extended to a multiple of the factor at the
    right and bottom, and the result cut back.
    """

    def __init__(self, architecture: RRDBArchitecture = RRDBArchitecture()) -> None:
        super().__init__()
        a = architecture
        self.architecture = a
        self.scale = a.scale
        self.conv_first = nn.Conv2d(3 * a.unshuffle**2, a.features, 3, 1, 1)
        self.body = nn.Sequential(*(RRDB(a.features, a.growth, a.plus) for _ in range(a.blocks)))
        self.conv_body = nn.Conv2d(a.features, a.features, 3, 1, 1)
        self.up_names = tuple(f"conv_up{i + 1}" for i in range(a.up_steps))
        for name in self.up_names:
            self.add_module(name, nn.Conv2d(a.features, a.features, 3, 1, 1))
        self.conv_hr = nn.Conv2d(a.features, a.features, 3, 1, 1)
        self.conv_last = nn.Conv2d(a.features, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 3, H * scale, W * scale)."""
        height, width = x.shape[-2:]
        x = self.conv_first(unshuffle_any_size(x, self.architecture.unshuffle))
        x = x + self.conv_body(self.body(x))
        for name in self.up_names:
            conv = self.get_submodule(name)
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), SLOPE)
        x = self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))
        return x[..., : height * self.scale, : width * self.scale]


def unshuffle_any_size(x: Tensor, factor: int) -> Tensor:
    """Pixel-unshuffle of an image of any size: (B, C, H, W) to (B, C f^2, ceil(H/f), ceil(W/f)).

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


# --- recognizing the network from its tensors ---------------------------------------------------

_MID = {
    "trunk_conv": "conv_body",
    "HRconv": "conv_hr",
    "upconv1": "conv_up1",
    "upconv2": "conv_up2",
    "upconv3": "conv_up3",
}
_MID_BLOCK = re.compile(r"RRDB_trunk\.(\d+)\.RDB([123])\.(conv[1-5]|conv1x1)\.(weight|bias)$")
_OLD_BLOCK = re.compile(
    r"model\.1\.sub\.(\d+)\.RDB([123])\.(?:(conv[1-5])\.0|(conv1x1))\.(weight|bias)$"
)
_OLD_PLAIN = re.compile(r"model\.(\d+)\.(weight|bias)$")
_OLD_BODY = re.compile(r"model\.1\.sub\.(\d+)\.(weight|bias)$")


def canonical_key(key: str, last_index: int) -> str:
    """A key of the new, mid or old layout in this module's names; unknown keys come back as is.

    `last_index` is the highest N of the `model.N.` keys of an old layout, which tells the number
    of up steps S: the i-th is model.(3i), conv_hr model.(3S+2) and conv_last model.(3S+4).
    """
    if match := _MID_BLOCK.match(key):
        return f"body.{match[1]}.rdb{match[2]}.{match[3]}.{match[4]}"
    if match := _OLD_BLOCK.match(key):
        return f"body.{match[1]}.rdb{match[2]}.{match[3] or match[4]}.{match[5]}"
    if match := _OLD_BODY.match(key):
        return f"conv_body.{match[2]}"
    if match := _OLD_PLAIN.match(key):
        index = int(match[1])
        if index == 0:
            return f"conv_first.{match[2]}"
        if index == last_index:
            return f"conv_last.{match[2]}"
        if index == last_index - 2:
            return f"conv_hr.{match[2]}"
        return f"conv_up{index // 3}.{match[2]}" if index % 3 == 0 else key
    stem, _, suffix = key.rpartition(".")
    return f"{_MID.get(stem, stem)}.{suffix}"


def canonical_names(keys: Mapping[str, object]) -> dict[str, str]:
    """Every given key with its name in this module's layout."""
    old = [int(m[1]) for m in map(_OLD_PLAIN.match, keys) if m]
    return {key: canonical_key(key, max(old, default=-1)) for key in keys}


def detect_rrdb(shapes: Shapes) -> RRDBArchitecture | None:
    """The architecture that these shapes (canonical names) belong to, or None if not an RRDBNet.

    Two networks cannot be told apart: an old-layout x3 model has exactly the keys of x2.
    """
    needed = ("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight")
    if any(name not in shapes or len(shapes[name]) != 4 for name in needed):
        return None
    features, inputs = shapes["conv_first.weight"][:2]
    outputs = shapes["conv_last.weight"][0]
    if outputs != 3 or inputs not in (3, 12, 48):
        return None
    unshuffle = {3: 1, 12: 2, 48: 4}[inputs]
    up_steps = sum(re.fullmatch(r"conv_up\d+\.weight", name) is not None for name in shapes)
    # The number of blocks, not the highest index: a file may name any index.
    blocks = len({m[1] for name in shapes if (m := re.match(r"body\.(\d+)\.", name))})
    growth = shapes["body.0.rdb1.conv1.weight"][0]
    scale, rest = divmod(2**up_steps, unshuffle)
    if rest or scale not in (1, 2, 4, 8):
        return None
    plus = "body.0.rdb1.conv1x1.weight" in shapes
    return RRDBArchitecture(scale, blocks, features, growth, unshuffle, plus)
