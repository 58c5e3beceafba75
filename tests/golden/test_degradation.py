"""Kernels, filters, JPEG and resizing against numbers of the original implementation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from realesr_cli.degrade.degradation import apply, sample
from realesr_cli.degrade.kernels import Kernel, build_kernel
from realesr_cli.degrade.presets import get_preset
from realesr_cli.ops.filters import filter2d, usm_sharpen
from realesr_cli.ops.jpeg import REFERENCE_STYLE, JpegStyle, jpeg
from realesr_cli.ops.resize import imresize

Numbers = Mapping[str, NDArray[np.float64]]


@pytest.fixture(scope="module")
def golden() -> Numbers:
    with np.load(Path(__file__).parent / "data" / "degradation.npz") as held:
        return dict(held)


def image_200() -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(200).rand(1, 3, 40, 56).astype(np.float32))


KERNELS = {
    "kernel_iso": Kernel("iso", 21, 2.0),
    "kernel_aniso": Kernel("aniso", 21, 2.5, 0.7, 0.6),
    "kernel_gen_iso": Kernel("generalized_iso", 15, 1.5, beta=0.6),
    "kernel_gen_aniso": Kernel("generalized_aniso", 15, 2.5, 0.8, -1.1, 3.0),
    "kernel_plat_iso": Kernel("plateau_iso", 13, 1.2, beta=1.7),
    "kernel_plat_aniso": Kernel("plateau_aniso", 13, 2.2, 0.9, 2.0, 1.3),
    "kernel_sinc7": Kernel("sinc", 7, cutoff=1.4),
    "kernel_sinc13": Kernel("sinc", 13, cutoff=2.9),
    "kernel_sinc21": Kernel("sinc", 21, cutoff=math.pi / 3),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels(golden: Numbers, name: str) -> None:
    ours = build_kernel(KERNELS[name])
    theirs = golden[name]
    pad = (theirs.shape[0] - ours.shape[0]) // 2
    np.testing.assert_allclose(np.pad(ours, pad), theirs, atol=1e-9)


def test_filter2d(golden: Numbers) -> None:
    kernel = torch.from_numpy(golden["kernel_aniso"])[None]
    ours = filter2d(image_200(), kernel)
    np.testing.assert_allclose(ours, golden["filter2d_aniso_img200"], atol=1e-6)


def test_usm(golden: Numbers) -> None:
    smooth = usm_sharpen(torch.from_numpy(golden["input_smooth"]))[..., :32, :40]
    np.testing.assert_allclose(smooth, golden["usm_smooth"], atol=1e-5)
    noisy = usm_sharpen(image_200())[..., :28]
    np.testing.assert_allclose(noisy, golden["usm_img200"], atol=1e-5)


@pytest.mark.parametrize("quality", ["10", "30", "50", "75.5", "95"])
def test_jpeg_of_the_reference(golden: Numbers, quality: str) -> None:
    image = torch.from_numpy(golden["input_smooth"])
    ours = jpeg(image, float(quality), style=REFERENCE_STYLE)[..., 32:, 48:]
    np.testing.assert_allclose(ours, golden[f"diffjpeg_q{quality}_smooth"], atol=2e-6)


def test_jpeg_with_gradients(golden: Numbers) -> None:
    style = JpegStyle(rounding="cubic", transposed_luma=True, padding="zero")
    ours = jpeg(torch.from_numpy(golden["input_smooth"]), 40.0, style=style)[..., 32:, 48:]
    np.testing.assert_allclose(ours, golden["diffjpeg_diff_q40_smooth"], atol=2e-6)


@pytest.mark.parametrize(
    ("name", "scale", "height", "width"),
    [
        ("matlab_down4", 1 / 4, 64, 80),
        ("matlab_up2", 2.0, 24, 30),
        ("matlab_down_1_3", 1 / 3, 64, 80),
    ],
)
def test_matlab_imresize(golden: Numbers, name: str, scale: float, height: int, width: int) -> None:
    image = torch.from_numpy(golden["input_smooth"])[..., :height, :width].double()
    ours = imresize(image, scale)[0].permute(1, 2, 0)
    np.testing.assert_allclose(ours, golden[name], atol=1e-6)


def test_esrgan_preset_is_rounded_imresize(golden: Numbers) -> None:
    image = torch.from_numpy(golden["input_smooth"])
    recipe = sample(get_preset("esrgan"), np.random.default_rng(0), scale=4, size=(64, 80))
    ours = apply(recipe, image)[0].permute(1, 2, 0).numpy() * 255
    theirs = golden["matlab_down4"] * 255
    assert np.abs(ours - theirs.clip(0, 255)).max() <= 0.501
