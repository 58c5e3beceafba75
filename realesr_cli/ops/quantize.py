"""Images as the whole numbers that files of 8 bits hold."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_8bit_levels(image: Tensor) -> NDArray[np.uint8]:
    """(C, H, W) in [0, 1], of any device, to (H, W, C): clamped, rounded half to even."""
    codes = (image.detach() * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(codes.permute(1, 2, 0).cpu().numpy())
