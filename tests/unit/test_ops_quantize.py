"""What becomes of an image's values when they are brought to 8 bits."""

from __future__ import annotations

import numpy as np
import torch

from realesr_cli.ops.quantize import to_8bit_levels


def test_every_code_comes_back_as_height_width_channels() -> None:
    codes = np.arange(256 * 3, dtype=np.int64).reshape(16, 16, 3) % 256
    image = torch.from_numpy(codes).permute(2, 0, 1) / 255
    made = to_8bit_levels(image)
    assert (made.dtype, made.flags.c_contiguous) == (np.uint8, True)
    assert np.array_equal(made, codes)


def test_values_are_clamped_and_rounded_half_to_even() -> None:
    values = torch.tensor([-1.0, 0.5, 1.5, 2.5, 254.5, 300.0], dtype=torch.float64) / 255
    assert to_8bit_levels(values.view(1, 1, -1)).ravel().tolist() == [0, 0, 2, 2, 254, 255]


def test_a_network_in_training_is_left_alone() -> None:
    image = torch.zeros(3, 1, 1, requires_grad=True)
    assert to_8bit_levels(image).shape == (1, 1, 3)
    assert image.requires_grad
