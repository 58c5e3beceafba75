"""SRVGGNetCompact ("Compact"), the small plain network of Real-ESRGAN, and how to recognize one.

Source: Real-ESRGAN's released small models (realesr-general-x4v3, realesr-animevideov3): a stack of
3x3 convolutions at input size, one pixel-shuffle, and the nearest-neighbor input added.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor, nn
from torch.nn import functional as F

from realesr_cli.errors import ConfigError
from realesr_cli.nets.architecture import Architecture, Generator, Shapes
from realesr_cli.settings import check, option

LEAKY_SLOPE = 0.1
"""Negative slope of the LeakyReLU variant."""


@dataclass(frozen=True)
class CompactArchitecture(Architecture):
    """What a Compact network is made of; `scale` is output size over input size."""

    kind: ClassVar[str] = "compact"

    scale: int = option(4, help="Output size over input size.", low=1, high=16)
    convs: int = option(
        16, help="3x3 convolutions between the first and the last.", low=0, high=2000
    )
    features: int = option(64, help="Channels of the hidden layers.", low=1, high=2048)
    activation: str = option(
        "prelu", help="Activation after each convolution.", choices=("prelu", "relu", "leakyrelu")
    )
    in_channels: int = option(3, help="Channels of the input image.", low=1, high=64)
    out_channels: int = option(3, help="Channels of the output image.", low=1, high=64)

    def __post_init__(self) -> None:
        check(self)
        if self.in_channels not in (1, self.out_channels):
            raise ConfigError(
                f"in_channels = {self.in_channels}: the input is added to the output, so it must "
                f"have 1 channel or {self.out_channels}, as the output"
            )

    @property
    def receptive_radius(self) -> int:
        """Input pixels on each side that one output pixel depends on."""
        return self.convs + 2

    @property
    def values_per_pixel(self) -> int:
        """Four maps."""
        return 4 * self.features

    @property
    def card(self) -> tuple[str, tuple[str, ...]]:
        """`compact`, features and convolutions."""
        return "compact", (f"{self.features}nf", f"{self.convs}nc")

    def build(self) -> Compact:
        """Return an untrained network of this architecture."""
        return Compact(self)

    def describe(self) -> str:
        """Return one line for people."""
        channels = (self.in_channels, self.out_channels)
        return (
            f"Compact (SRVGG) x{self.scale}, {self.convs} convolutions, {self.features} features, "
            f"{self.activation}"
            + (f", {channels[0]} to {channels[1]} channels" if channels != (3, 3) else "")
        )

    @classmethod
    def detect(cls, shapes: Shapes) -> tuple[Self, ...]:
        """Return the architectures of these tensors: two where nothing settles the activation.

        ReLU and LeakyReLU have no tensors. A file of this package states the activation in its
        metadata.
        """
        numbered = [layer for name in shapes if (layer := _LAYER.fullmatch(name))]
        indices = sorted({int(layer[1]) for layer in numbered})
        # Activations without tensors leave gaps, but never more than every second index.
        if not indices or indices[0] or indices[-1] % 2 or indices[-1] > 2 * len(indices):
            return ()
        first, last = shapes.get("body.0.weight", ()), shapes.get(f"body.{indices[-1]}.weight", ())
        if len(first) != 4 or len(last) != 4 or indices[-1] < 2:
            return ()
        for outputs in (first[1], 3, 4, 1):
            scale = math.isqrt(last[0] // outputs) if outputs else 0
            if scale and scale * scale * outputs == last[0]:
                break
        else:
            return ()
        activation = "prelu" if "body.1.weight" in shapes else "relu"
        found = cls(scale, (indices[-1] - 2) // 2, first[0], activation, first[1], outputs)
        if activation == "prelu":
            return (found,)
        return found, replace(found, activation="leakyrelu")


_LAYER = re.compile(r"body\.(\d{1,6})\.(weight|bias)")


def make_activation(name: str, features: int) -> nn.Module:
    """Return the activation of that name; PReLU has one slope per channel, starting at 0.25."""
    if name == "prelu":
        return nn.PReLU(features)
    return nn.ReLU() if name == "relu" else nn.LeakyReLU(LEAKY_SLOPE)


class Compact(Generator):
    """(B, 3, H, W) RGB in [0, 1] to (B, 3, H * scale, W * scale), not clamped; any H, W >= 1."""

    architecture: CompactArchitecture

    def __init__(self, architecture: CompactArchitecture = CompactArchitecture()) -> None:
        super().__init__(architecture)
        a = architecture
        layers: list[nn.Module] = [nn.Conv2d(a.in_channels, a.features, 3, 1, 1)]
        layers.append(make_activation(a.activation, a.features))
        for _ in range(a.convs):
            layers.append(nn.Conv2d(a.features, a.features, 3, 1, 1))
            layers.append(make_activation(a.activation, a.features))
        layers.append(nn.Conv2d(a.features, a.out_channels * a.scale**2, 3, 1, 1))
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H * scale, W * scale)."""
        base = F.interpolate(x, scale_factor=self.scale, mode="nearest")
        return F.pixel_shuffle(self.body(x), self.scale) + base
