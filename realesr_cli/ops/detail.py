"""How strong the fine detail of pictures is, place by place."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from realesr_cli.ops.color import luma_studio
from realesr_cli.ops.filters import gaussian_taps, separable_filter

DETAIL_FLOOR = 1 / 255
"""Detail weaker than one code is as good as none."""


def detail_energy(pictures: Tensor, side: int, sigma: float = 1.0) -> Tensor:
    """(B, 3, H, W), RGB in [0, 1], to (B, 1, H // side, W // side): the energy of detail.

    The mean square, within each cell of `side` pixels a side, of what a Gaussian of `sigma` pixels
    takes out of the luma.
    """
    luma = luma_studio(pictures.float())
    taps = gaussian_taps(2 * math.ceil(3 * sigma) + 1, sigma)
    return F.avg_pool2d((luma - separable_filter(luma, taps)) ** 2, side)


def log_detail(pictures: Tensor, side: int) -> Tensor:
    """(B, 3, H, W), RGB in [0, 1], to (B, 1, H // side, W // side): how strong fine detail is.

    The logarithm of its deviation; that of `DETAIL_FLOOR` where there is none. A mean of it is low
    where only single edges are, which hold much energy in little space, and high in texture.
    """
    return (detail_energy(pictures, side) + DETAIL_FLOOR**2).log() / 2
