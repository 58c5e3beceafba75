"""PSNR and SSIM against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from realesr_cli.metrics.reference import psnr, ssim


def test_psnr_and_ssim_equal_scikit_image() -> None:
    rng = np.random.default_rng(3)
    a = rng.integers(0, 256, (40, 52, 3), dtype=np.uint8)
    b = np.clip(a.astype(int) + rng.integers(-20, 21, a.shape), 0, 255).astype(np.uint8)
    x, y = (torch.from_numpy(v).permute(2, 0, 1).double() / 255 for v in (a, b))
    assert psnr(x, y) == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-9)
    _, full = structural_similarity(
        a.astype(float),
        b.astype(float),
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        full=True,
    )
    # scikit-image pads; its inner region is ours.
    assert ssim(x, y) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-9)
