"""JPEG as libjpeg writes it: the only place of this package where a codec is called."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from realesr_cli.ops.quantize import to_8bit_levels


def through_libjpeg(image: Tensor, quality: int) -> Tensor:
    """(3, H, W) in [0, 1] through a JPEG file in memory, 4:2:0, quality 1 to 100.

    The image is clamped and rounded to 8 bit first; the result has 8-bit values on its device.
    """
    held = io.BytesIO()
    Image.fromarray(to_8bit_levels(image)).save(held, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(held) as decoded:
        back = torch.from_numpy(np.array(decoded))
    return back.permute(2, 0, 1).to(image) / 255
