"""PSNR and SSIM on images whose scores are known by hand, and on what cannot be scored."""

from __future__ import annotations

import math

import pytest
import torch

from realesr_cli.metrics.reference import matlab_luma, psnr, ssim, ssim_window


def flat(value: float, size: int = 16) -> torch.Tensor:
    return torch.full((3, size, size), value / 255, dtype=torch.float64)


def test_one_step_everywhere_has_the_textbook_psnr() -> None:
    assert psnr(flat(100), flat(101)) == pytest.approx(48.1308036, abs=1e-6)
    assert psnr(flat(100), flat(101), luma=True) == pytest.approx(49.4527249, abs=1e-6)


def test_equal_images_are_infinitely_good() -> None:
    x = torch.rand(3, 20, 20)
    assert psnr(x, x) == math.inf
    assert ssim(x, x) == pytest.approx(1.0, abs=1e-12)


def test_ssim_of_two_constants() -> None:
    assert ssim(flat(100), flat(110)) == pytest.approx(0.9954764441, abs=1e-9)


def test_the_window_has_the_published_weights() -> None:
    window = ssim_window()
    assert float(window[5]) == pytest.approx(0.2660117, abs=1e-7)
    assert float(window[0]) == pytest.approx(0.0010284, abs=1e-7)


def test_luma_of_the_primaries() -> None:
    colors = torch.eye(3, dtype=torch.float64).view(3, 1, 3) * 255
    assert matlab_luma(colors).flatten().tolist() == pytest.approx([81.481, 144.553, 40.966])
    assert float(matlab_luma(flat(255, 1) * 255)) == pytest.approx(235.0)
    assert float(matlab_luma(torch.zeros(1, 1, 1, dtype=torch.float64))) == pytest.approx(16.0)


def test_images_are_compared_at_eight_bits() -> None:
    assert psnr(flat(100.4), flat(99.6)) == math.inf
    assert psnr(torch.full((3, 4, 4), 1.7), torch.ones(3, 4, 4)) == math.inf
    # Half to even: 0.5 / 255 rounds down to 0, 1.5 / 255 up to 2.
    assert psnr(flat(0.5), flat(0)) == math.inf
    assert psnr(flat(1.5), flat(2)) == math.inf


def test_the_crop_leaves_out_the_border() -> None:
    a, b = flat(100), flat(100)
    b[:, 0] = 0
    b[:, :, -1] = 0
    assert psnr(a, b, crop=1) == math.inf
    assert psnr(a, b) < 30


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="different shapes"):
        psnr(flat(1, 8), flat(1, 9))
    with pytest.raises(ValueError, match=r"8x8 .* crop of 4"):
        psnr(flat(1, 8), flat(1, 8), crop=4)
    with pytest.raises(ValueError, match="11x11"):
        ssim(flat(1, 10), flat(1, 10))
