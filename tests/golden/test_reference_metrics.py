"""PSNR and SSIM equal the numbers of the original implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from realesr_cli.metrics.reference import psnr, ssim

DATA = np.load(Path(__file__).parent / "data" / "reference_metrics.npz")


def rgb(name: str) -> torch.Tensor:
    bgr = DATA[name]
    return torch.from_numpy(bgr[..., ::-1].copy()).permute(2, 0, 1).double() / 255


@pytest.mark.parametrize("crop", [0, 4])
@pytest.mark.parametrize("luma", [False, True])
def test_metrics_equal_the_original(crop: int, luma: bool) -> None:
    a, b = rgb("a_bgr"), rgb("b_bgr")
    name = f"crop{crop}_y{int(luma)}"
    assert psnr(a, b, crop=crop, luma=luma) == pytest.approx(float(DATA[f"psnr_{name}"]), abs=1e-4)
    assert ssim(a, b, crop=crop, luma=luma) == pytest.approx(float(DATA[f"ssim_{name}"]), abs=1e-4)
