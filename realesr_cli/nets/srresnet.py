"""MSRResNet, the residual network without batch norm that serves SRGAN as generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from realesr_cli.settings import check, option

Shapes = Mapping[str, tuple[int, ...]]

SLOPE = 0.1
"""Negative slope of the LeakyReLU outside the blocks (RRDBNet has 0.2)."""


@dataclass(frozen=True)
class SRResNetArchitecture:
    """What an MSRResNet is made of; `scale` is output size over input size."""

    kind: ClassVar[str] = "srresnet"

    scale: int = option(4, help="Output size over input size.", choices=(2, 4))
    blocks: int = option(16, help="Residual blocks.", low=1)
    features: int = option(64, help="Channels between the blocks.", low=1)

    def __post_init__(self) -> None:
        check(self)

    @property
    def receptive_radius(self) -> int:
        """Input pixels on each side that one output pixel depends on."""
        return 2 * self.blocks + 4

    def build(self) -> MSRResNet:
        """An untrained network of this architecture."""
        return MSRResNet(self)

    def describe(self) -> str:
        """One line for people."""
        return f"MSRResNet x{self.scale}, {self.blocks} blocks, {self.features} features"


class ResidualBlock(nn.Module):
    """x + conv2(relu(conv1(x))), without normalization; weights start at a tenth of Kaiming's."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, 1, 1)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1)
        for conv in (self.conv1, self.conv2):
            if conv.weight.is_meta:  # nothing to fill; see rrdbnet.init_dense_block
                continue
            nn.init.kaiming_normal_(conv.weight)
            conv.weight.data.mul_(0.1)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, features, H, W) to the same shape."""
        result: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return result


class MSRResNet(nn.Module):
    """SRResNet as later work trains it: no batch norm, no global feature skip.

    Input (B, 3, H, W) RGB in [0, 1]; output (B, 3, H * scale, W * scale), not clamped: what the
    body adds to the bilinearly enlarged input. 1,517,571 parameters at x4, 64 features, 16 blocks.
    Source: Ledig et al. 2017, section 2.1.1, with the changes common since EDSR.
    """

    def __init__(self, architecture: SRResNetArchitecture = SRResNetArchitecture()) -> None:
        super().__init__()
        a = architecture
        self.architecture = a
        self.scale = a.scale
        n = a.features
        self.conv_first = nn.Conv2d(3, n, 3, 1, 1)
        self.body = nn.Sequential(*(ResidualBlock(n) for _ in range(a.blocks)))
        self.upconv1 = nn.Conv2d(n, n * 4, 3, 1, 1)
        if a.scale == 4:
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


def detect_srresnet(shapes: Shapes) -> SRResNetArchitecture | None:
    """The architecture that these shapes belong to, or None if they are no MSRResNet."""
    if "body.0.conv1.weight" not in shapes or "upconv1.weight" not in shapes:
        return None
    blocks = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("body."))
    scale = 4 if "upconv2.weight" in shapes else 2
    return SRResNetArchitecture(scale, blocks, shapes["body.0.conv1.weight"][0])
