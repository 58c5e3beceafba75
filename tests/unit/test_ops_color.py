"""Luma and chroma of known colors."""

from __future__ import annotations

import pytest
import torch

from realesr_cli.ops import color

COLORS = {
    "black": (0.0, 0.0, 0.0),
    "white": (1.0, 1.0, 1.0),
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
}


def pixel(name: str) -> torch.Tensor:
    return torch.tensor(COLORS[name], dtype=torch.float64).view(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("name", "luma"),
    [("white", 235.0), ("black", 16.0), ("red", 81.481), ("green", 144.553), ("blue", 40.966)],
)
def test_studio_luma(name: str, luma: float) -> None:
    assert color.luma_studio(pixel(name)).item() * 255 == pytest.approx(luma)


def test_jpeg_color() -> None:
    red = color.rgb_to_ycbcr_jpeg(pixel("red")).flatten() * 255
    assert red.tolist() == pytest.approx([76.245, 84.97232, 255.5])
    assert color.rgb_to_ycbcr_jpeg(pixel("blue"))[0, 1].item() * 255 == pytest.approx(255.5)


def test_jpeg_color_there_and_back() -> None:
    rgb = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    back = color.ycbcr_jpeg_to_rgb(color.rgb_to_ycbcr_jpeg(rgb))
    torch.testing.assert_close(back, rgb, atol=2e-6, rtol=0)


def test_luma_of_gray_is_itself() -> None:
    gray = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(color.luma(gray.expand(-1, 3, -1, -1)), gray)
