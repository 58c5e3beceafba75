"""A perceptual distance from a reference image, by the features of a small ImageNet network.

The form is that of LPIPS without learned weights (Zhang et al. 2018, "The Unreasonable
Effectiveness of Deep Features as a Perceptual Metric", equation 1), on five layers of SqueezeNet
1.1 (Iandola et al. 2016), whose weights are a file of 3 MB. Its values are not those of LPIPS.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realesr_cli.metrics.reference import crop_pair
from realesr_cli.nets.features import SqueezeNetFeatures

LAYERS = ("conv1", "fire3", "fire5", "fire7", "fire9")
"""Layers that are compared; they have 1/2, 1/4, 1/8, 1/16 and 1/16 of the image's resolution."""

SMALLEST = 32
"""Shortest side in pixels: fewer would leave the deepest layers one position or none."""


class PerceptualDistance(nn.Module):
    """The distance of two batches of images: 0 for equal ones, about 1 for a bad x4 result.

    At each layer the activations after the ReLU are scaled to unit length over the channels, at
    every position by itself. The distance is the squared difference, summed over the channels and
    averaged over the positions, then over the layers. It is differentiable; the weights are frozen.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights out of a state of torchvision's squeezenet1_1.

        Raises CheckpointFormatError if a tensor is missing or has another shape.
        """
        super().__init__()
        self.features = SqueezeNetFeatures(LAYERS)
        self.features.load(state)

    def forward(self, a: Tensor, b: Tensor, *, crop: int = 0) -> Tensor:
        """Return the distances (B,) of two batches (B, 3, H, W), RGB in [0, 1].

        `crop` pixels are left out on each side. Raises ValueError if the shapes differ or fewer
        than 32x32 pixels are left.
        """
        pair = crop_pair("the perceptual distance", a, b, crop, SMALLEST)
        found, wanted = (self.features(x) for x in pair)
        distances = [
            (_unit_length(found[name]) - _unit_length(wanted[name])).square().sum(1).mean((1, 2))
            for name in LAYERS
        ]
        return torch.stack(distances).mean(0)


def _unit_length(features: Tensor) -> Tensor:
    """Apply the ReLU to (B, C, H, W) and scale to unit length over C."""
    # In fp32, since squares of features overflow fp16.
    return F.normalize(F.relu(features.float()), dim=1, eps=1e-10)
