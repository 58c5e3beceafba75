"""Networks for gray or RGBA images on RGB images: what goes in, and what comes out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from realesr_cli.errors import UnknownArchitectureError
from realesr_cli.nets.architecture import Architecture

LUMA = (0.299, 0.587, 0.114)
"""Shares of R, G and B in the luma of ITU-R BT.601, as JPEG and the reference use it."""

COUNTS = (1, 3, 4)
"""Channels that an image has a meaning for: gray, RGB, RGBA."""


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
    if not set(counts) <= set(COUNTS):
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
