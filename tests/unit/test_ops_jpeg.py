"""JPEG as a tensor function: known values, borders, qualities, gradients."""

from __future__ import annotations

import math

import pytest
import torch

from realesr_cli.errors import ConfigError
from realesr_cli.ops import jpeg as J


def gray(code: float, size: int = 16) -> torch.Tensor:
    return torch.full((1, 3, size, size), code / 255, dtype=torch.float64)


def test_quality_factor() -> None:
    quality = torch.tensor([10.0, 30, 50, 75, 90, 95, 100], dtype=torch.float64)
    expected = [5, 5 / 3, 1, 0.5, 0.2, 0.1, 0]
    assert J.quality_factor(quality).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("quality", "row"),
    [
        (10, (80, 55, 50, 80, 120, 200, 255, 255)),
        (30, (27, 18, 17, 27, 40, 66, 85, 101)),
        (75, (8, 6, 5, 8, 12, 20, 26, 31)),
        (90, (3, 2, 2, 3, 5, 8, 10, 12)),
        (95, (2, 1, 1, 2, 2, 4, 5, 6)),
    ],
)
def test_integer_tables(quality: int, row: tuple[int, ...]) -> None:
    style = J.JpegStyle(integer_tables=True)
    steps = J._table(J.LUMA_TABLE, torch.tensor([float(quality)]), style, False)
    assert steps[0, 0, 0, 0, 0].tolist() == list(row)


def test_luma_table_is_whole() -> None:
    assert sum(map(sum, J.LUMA_TABLE)) == 3688


@pytest.mark.parametrize(
    ("code", "quality", "expected"),
    [(100, 50, 100), (100, 30, 101.3333), (100, 10, 98), (128, 7, 128), (200, 10, 198),
     (255, 10, 255)],
)  # fmt: skip
def test_constant_gray(code: float, quality: float, expected: float) -> None:
    ours = J.jpeg(gray(code), quality) * 255
    torch.testing.assert_close(ours, torch.full_like(ours, expected), atol=1e-3, rtol=0)


def test_constant_red() -> None:
    red = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    red[:, 0] = 1
    ours = J.jpeg(red, 50.0)[0, :, 3, 3] * 255
    assert ours.tolist() == pytest.approx([254.755, 0, 0.690], abs=1e-3)


def cosine(horizontal: bool, amplitude: float) -> torch.Tensor:
    wave = torch.cos((2 * torch.arange(8, dtype=torch.float64) + 1) * math.pi / 16)
    block = wave.view(1, 8).expand(8, 8) if horizontal else wave.view(8, 1).expand(8, 8)
    return ((128 + amplitude * block) / 255).repeat(2, 2).expand(1, 3, 16, 16)


@pytest.mark.parametrize(("horizontal", "step"), [(True, 11), (False, 12)])
def test_orientation_of_the_luma_table(horizontal: bool, step: int) -> None:
    # One coefficient alone; its size in units of its step decides whether it survives.
    unit = math.sqrt(2) / 8
    image = cosine(horizontal, 0.6 * step * unit)
    ours = J.jpeg(image, 50.0) * 255 - 128
    expected = (cosine(horizontal, step * unit) * 255 - 128)[0, 0]
    torch.testing.assert_close(ours[0, 0], expected, atol=1e-9, rtol=0)


def test_transposed_table_swaps_the_orientation() -> None:
    style = J.JpegStyle(transposed_luma=True)
    image = cosine(True, 7.0)
    torch.testing.assert_close(
        J.jpeg(image, 50.0, style=style), J.jpeg(image.mT, 50.0).mT, atol=1e-12, rtol=0
    )
    assert not torch.allclose(J.jpeg(image, 50.0, style=style), J.jpeg(image, 50.0))


def test_sizes_that_are_no_multiple() -> None:
    image = torch.rand(1, 3, 100, 37)
    assert J.jpeg(image, 40.0).shape == image.shape


def test_edge_padding_keeps_a_bright_border() -> None:
    image = gray(200, 20)
    assert (J.jpeg(image, 10.0) * 255 - 198).abs().max() < 1e-9
    zero = J.jpeg(image, 10.0, style=J.JpegStyle(padding="zero")) * 255
    assert (zero - 198).abs().max() > 20


def test_quality_per_sample_and_untouched() -> None:
    images = torch.rand(3, 3, 32, 32)
    quality = torch.tensor([10.0, 50.0, 95.0])
    first = J.jpeg(images, quality)
    assert torch.equal(quality, torch.tensor([10.0, 50.0, 95.0]))
    assert torch.equal(first, J.jpeg(images, quality))
    for index, value in enumerate((10.0, 50.0, 95.0)):
        alone = J.jpeg(images[index : index + 1], value)
        torch.testing.assert_close(first[index], alone[0], atol=1e-5, rtol=0)


def test_quality_100_is_finite_and_nearly_lossless() -> None:
    smooth = torch.linspace(0, 1, 32).view(1, 1, 1, 32).expand(1, 3, 32, 32)
    ours = J.jpeg(smooth, 100.0)
    assert torch.isfinite(ours).all()
    assert (ours - smooth).abs().max() < 1e-3


@pytest.mark.parametrize("quality", [0.0, -3.0, 100.5, float("nan")])
def test_wrong_quality(quality: float) -> None:
    with pytest.raises(ConfigError, match="JPEG quality"):
        J.jpeg(gray(3), quality)


def test_unknown_style() -> None:
    with pytest.raises(ConfigError, match="rounding"):
        J.JpegStyle(rounding="soft")


def test_cubic_rounding_has_gradients() -> None:
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64) * 0.6 + 0.2
    image.requires_grad_()
    J.jpeg(image, 60.0, style=J.JpegStyle(rounding="cubic")).square().sum().backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().max() > 1e-3
