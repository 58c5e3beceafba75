"""How strong the fine detail of pictures is, place by place."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from realesr_cli.ops.color import luma_studio
from realesr_cli.ops.filters import gaussian_taps, separable_filter

DETAIL_FLOOR = 1 / 255
"""Detail weaker than one code is as good as none."""


def log_detail(pictures: Tensor, side: int) -> Tensor:
    """(B, 3, H, W), RGB in [0, 1], to (B, 1, H // side, W // side): how strong fine detail is.

    The logarithm of the deviation, within each cell of `side` pixels a side, of what a Gaussian of
    one pixel takes out of the luma; that of `DETAIL_FLOOR` where there is none. A mean of it is low
    where only single edges are, which hold much energy in little space, and high in texture.
    """
    luma = luma_studio(pictures.float())
    fine = luma - separable_filter(luma, gaussian_taps(7, 1.0))
    return (F.avg_pool2d(fine**2, side) + DETAIL_FLOOR**2).log() / 2
