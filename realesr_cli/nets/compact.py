"""SRVGGNetCompact ("Compact"), the small plain network of Real-ESRGAN, and how to recognize one.

Source: Real-ESRGAN's released small models (realesr-general-x4v3, realesr-animevideov3): a stack of
3x3 convolutions at input size, one pixel-shuffle, and the nearest-neighbor input added.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from realesr_cli.settings import check, option

Shapes = Mapping[str, tuple[int, ...]]

LEAKY_SLOPE = 0.1
"""Negative slope of the LeakyReLU variant."""


@dataclass(frozen=True)
class CompactArchitecture:
    """What a Compact network is made of; `scale` is output size over input size."""

    kind: ClassVar[str] = "compact"

    scale: int = option(4, help="Output size over input size.", low=1, high=16)
    convs: int = option(16, help="3x3 convolutions between the first and the last.", low=0)
    features: int = option(64, help="Channels of the hidden layers.", low=1)
    activation: str = option(
        "prelu", help="Activation after each convolution.", choices=("prelu", "relu", "leakyrelu")
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def receptive_radius(self) -> int:
        """Input pixels on each side that one output pixel depends on."""
        return self.convs + 2

    def build(self) -> Compact:
        """An untrained network of this architecture."""
        return Compact(self)

    def describe(self) -> str:
        """One line for people."""
        return (
            f"Compact (SRVGG) x{self.scale}, {self.convs} convolutions, "
            f"{self.features} features, {self.activation}"
        )


def make_activation(name: str, features: int) -> nn.Module:
    """The activation layer of that name; PReLU has one slope per channel, starting at 0.25."""
    if name == "prelu":
        return nn.PReLU(features)
    return nn.ReLU() if name == "relu" else nn.LeakyReLU(LEAKY_SLOPE)


class Compact(nn.Module):
    """(B, 3, H, W) RGB in [0, 1] to (B, 3, H * scale, W * scale), not clamped; any H, W >= 1."""

    def __init__(self, architecture: CompactArchitecture = CompactArchitecture()) -> None:
        super().__init__()
        a = architecture
        self.architecture = a
        self.scale = a.scale
        layers: list[nn.Module] = [nn.Conv2d(3, a.features, 3, 1, 1)]
        layers.append(make_activation(a.activation, a.features))
        for _ in range(a.convs):
            layers.append(nn.Conv2d(a.features, a.features, 3, 1, 1))
            layers.append(make_activation(a.activation, a.features))
        layers.append(nn.Conv2d(a.features, 3 * a.scale**2, 3, 1, 1))
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 3, H * scale, W * scale)."""
        base = F.interpolate(x, scale_factor=self.scale, mode="nearest")
        return F.pixel_shuffle(self.body(x), self.scale) + base


def detect_compact(shapes: Shapes) -> CompactArchitecture | None:
    """The architecture that these shapes belong to, or None if they are no RGB Compact network.

    ReLU and LeakyReLU leave no tensors, so the two cannot be told apart: relu is assumed, and a
    file of this package states the activation in its metadata.
    """
    if any(re.fullmatch(r"body\.\d+\.(weight|bias)", name) is None for name in shapes):
        return None
    indices = sorted({int(name.split(".")[1]) for name in shapes})
    if not indices or indices[0] != 0 or indices[-1] < 2 or indices[-1] % 2:
        return None
    if indices[-1] > 2 * len(indices):  # a file may name any index
        return None
    first, last = shapes.get("body.0.weight", ()), shapes.get(f"body.{indices[-1]}.weight", ())
    if len(first) != 4 or len(last) != 4 or first[1] != 3 or last[0] % 3:
        return None
    scale = math.isqrt(last[0] // 3)
    if scale * scale * 3 != last[0] or not 1 <= scale <= 16:
        return None
    activation = "prelu" if "body.1.weight" in shapes else "relu"
    return CompactArchitecture(scale, (indices[-1] - 2) // 2, first[0], activation)
