"""What every generator offers: `Architecture`, a frozen record of it, and `Generator`, the module.

A new network is one file with a subclass of each, and one entry in `nets.detection.ARCHITECTURES`.
The rest of the package asks the record and never the kind of network.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realesr_cli.errors import UnknownArchitectureError
from realesr_cli.settings import to_plain

Shapes = Mapping[str, tuple[int, ...]]
"""The names and shapes of a state dict."""

_RGB = (("in_channels", 3), ("out_channels", 3))

LUMA = (0.299, 0.587, 0.114)
"""Shares of R, G and B in the luma of ITU-R BT.601, as JPEG and the reference use it."""

_COUNTS = (1, 3, 4)
"""Channels that an image has a meaning for: gray, RGB, RGBA."""


class Architecture(ABC):
    """What a generator is made of. Subclasses are frozen dataclasses with these fields."""

    kind: ClassVar[str]
    """Its name in files, in the registry and in settings."""

    @property
    @abstractmethod
    def scale(self) -> int:
        """Output size over input size."""

    @property
    @abstractmethod
    def features(self) -> int:
        """Channels of the feature maps at the size of the (unshuffled) input."""

    @property
    def in_channels(self) -> int:
        """Channels of the input image; see `adapt_to_rgb` for other counts than 3."""
        return 3

    @property
    def out_channels(self) -> int:
        """Channels of the output image."""
        return 3

    @property
    def multiple(self) -> int:
        """Input pixels that a tile's position must be a multiple of (pixel-unshuffle), else 1."""
        return 1

    @property
    @abstractmethod
    def receptive_radius(self) -> int:
        """Input pixels on each side that one output pixel can depend on."""

    @property
    @abstractmethod
    def values_per_pixel(self) -> int:
        """Most feature values held at once per input pixel, when run layer by layer (measured)."""

    @property
    @abstractmethod
    def card(self) -> tuple[str, tuple[str, ...]]:
        """OpenModelDB's name of the architecture, and its size, as `("compact", ("64nf", ...))`."""

    @abstractmethod
    def build(self) -> Generator:
        """Return an untrained network of this architecture."""

    @abstractmethod
    def describe(self) -> str:
        """Return one line for people."""

    @classmethod
    @abstractmethod
    def detect(cls, shapes: Shapes) -> tuple[Self, ...]:
        """Return the architectures that these tensors look like, the most likely first.

        More than one where tensors cannot settle it; none where they are of another kind. Tensors
        that do not belong are passed over here and found by `nets.detection`. Raises ConfigError
        where a number is outside of the limits of its field.
        """

    @classmethod
    def canonical_names(cls, names: Iterable[str]) -> dict[str, str]:
        """Return the name in the built network of every name in a file."""
        return {name: name for name in names}

    def to_plain(self) -> dict[str, Any]:
        """Return the record as plain data for files, with its kind; RGB goes without saying."""
        plain = {key: value for key, value in to_plain(self).items() if (key, value) not in _RGB}
        return {"kind": self.kind, **plain}

    def shapes(self) -> Shapes:
        """Return the names and shapes of the state dict of such a network, without building it."""
        return _shapes(self)

    def count_parameters(self) -> int:
        """Return how many numbers such a network learns."""
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in self.build().parameters())


@functools.lru_cache(maxsize=16)
def _shapes(architecture: Architecture) -> Shapes:
    with torch.device("meta"):
        return MappingProxyType(shapes_of(architecture.build().state_dict()))


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a state dict."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


class Generator(nn.Module):
    """A network that enlarges: (B, in, H, W) in [0, 1] to (B, out, H * scale, W * scale).

    Any H, W >= 1; the output is not clamped. `in` and `out` are 3, RGB, for nearly all.
    """

    architecture: Architecture

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture

    @property
    def scale(self) -> int:
        """Output size over input size."""
        return self.architecture.scale


def adapt_to_rgb(
    forward: Callable[[Tensor], Tensor], architecture: Architecture
) -> Callable[[Tensor], Tensor]:
    """Return a function (B, 3, h, w) to (B, 3, h * scale, w * scale) for a network of any channels.

    `forward` computes the network on its own channels; for 3 to 3 it is returned as it is.

    * 1 to 1: the network enlarges the luma, and the differences of R, G and B from it are resized
      (bicubic). Gray images come out as the network gives them.
    * 1 to 3 and 1 to 4: the network gets the luma and gives the colors.
    * 3 to 1 and 4 to 1: the result is gray.
    * 4 inputs: the network gets an opaque alpha channel; 4 outputs: its alpha is dropped. The
      alpha of an image is enlarged by itself, as for every other network.

    Raises UnknownArchitectureError for other counts.
    """
    counts = (architecture.in_channels, architecture.out_channels)
    if counts == (3, 3):
        return forward
    if not set(counts) <= set(_COUNTS):
        raise UnknownArchitectureError(
            f"{architecture.describe()}: images have 1, 3 or 4 channels, so it cannot be applied"
        )

    def adapted(x: Tensor) -> Tensor:
        if counts[0] == 1:
            luma = (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
            y = forward(luma)
            if counts[1] == 1:
                color = F.interpolate(
                    x - luma, scale_factor=architecture.scale, mode="bicubic", align_corners=False
                )
                return y + color.to(y.device)
        else:
            y = forward(x if counts[0] == 3 else torch.cat((x, torch.ones_like(x[:, :1])), 1))
        return y.repeat(1, 3, 1, 1) if counts[1] == 1 else y[:, :3]

    return adapted
