"""MSRResNet, the residual network without batch norm that serves SRGAN as generator."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Self

import torch.nn.functional as F
from torch import Tensor, nn

from realesr_cli.nets.architecture import Architecture, Generator, Shapes
from realesr_cli.nets.rrdbnet import init_convolution
from realesr_cli.settings import check, option

SLOPE = 0.1
"""Negative slope of the LeakyReLU outside the blocks (RRDBNet has 0.2)."""


@dataclass(frozen=True)
class SRResNetArchitecture(Architecture):
    """What an MSRResNet is made of; `scale` is output size over input size."""

    kind: ClassVar[str] = "srresnet"

    scale: int = option(4, help="Output size over input size.", choices=(2, 4))
    blocks: int = option(16, help="Residual blocks.", low=1, high=1000)
    features: int = option(64, help="Channels between the blocks.", low=1, high=2048)

    def __post_init__(self) -> None:
        check(self)

    @property
    def receptive_radius(self) -> int:
        """Input pixels on each side that one output pixel depends on."""
        return 2 * self.blocks + 4

    @property
    def values_per_pixel(self) -> int:
        """Three maps at output size."""
        return 3 * self.features * self.scale**2

    @property
    def card(self) -> tuple[str, tuple[str, ...]]:
        """`sr-res-net`, features and blocks."""
        return "sr-res-net", (f"{self.features}nf", f"{self.blocks}nb")

    def build(self) -> MSRResNet:
        """Return an untrained network of this architecture."""
        return MSRResNet(self)

    def describe(self) -> str:
        """Return one line for people."""
        return f"MSRResNet x{self.scale}, {self.blocks} blocks, {self.features} features"

    @classmethod
    def detect(cls, shapes: Shapes) -> tuple[Self, ...]:
        """Return the architecture of these tensors; its names occur in no other network."""
        first = shapes.get("body.0.conv1.weight", ())
        if len(first) != 4 or "upconv1.weight" not in shapes:
            return ()
        blocks = len({m[1] for name in shapes if (m := re.match(r"body\.(\d+)\.", name))})
        return (cls(4 if "upconv2.weight" in shapes else 2, blocks, first[0]),)


class ResidualBlock(nn.Module):
    """x + conv2(relu(conv1(x))), without normalization; weights start at a tenth of Kaiming's."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, 1, 1)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1)
        init_convolution(self.conv1)
        init_convolution(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, features, H, W) to the same shape."""
        result: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return result


class MSRResNet(Generator):
    """SRResNet as later work trains it: no batch norm, no global feature skip.

    Input (B, 3, H, W) RGB in [0, 1]; output (B, 3, H * scale, W * scale), not clamped: what the
    body adds to the bilinearly enlarged input. 1,517,571 parameters at x4, 64 features, 16 blocks.
    Source: Ledig et al. 2017, section 2.1.1, with the changes common since EDSR.
    """

    architecture: SRResNetArchitecture

    def __init__(self, architecture: SRResNetArchitecture = SRResNetArchitecture()) -> None:
        super().__init__(architecture)
        n = architecture.features
        self.conv_first = nn.Conv2d(3, n, 3, 1, 1)
        self.body = nn.Sequential(*(ResidualBlock(n) for _ in range(architecture.blocks)))
        self.upconv1 = nn.Conv2d(n, n * 4, 3, 1, 1)
        if self.scale == 4:
            self.upconv2 = nn.Conv2d(n, n * 4, 3, 1, 1)
        self.conv_hr = nn.Conv2d(n, n, 3, 1, 1)
        self.conv_last = nn.Conv2d(n, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 3, H * scale, W * scale)."""
        out = self.body(F.leaky_relu(self.conv_first(x), SLOPE))
        out = F.leaky_relu(F.pixel_shuffle(self.upconv1(out), 2), SLOPE)
        if self.scale == 4:
            out = F.leaky_relu(F.pixel_shuffle(self.upconv2(out), 2), SLOPE)
        out = self.conv_last(F.leaky_relu(self.conv_hr(out), SLOPE))
        base = F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        result: Tensor = out + base
        return result
