"""The whole way of an image against outputs of the original implementation, official weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from realesr_cli.compat import RealESRGANer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference(shared: Path) -> Mapping[str, np.ndarray]:
    return np.load(shared / "golden" / "reference.npz")


@pytest.fixture(scope="module")
def weights(shared: Path) -> str:
    return str(shared / "data" / "weights" / "realesr-animevideov3.pth")


@pytest.fixture(scope="module")
def upsampler(weights: str) -> RealESRGANer:
    return RealESRGANer(4, weights, pre_pad=0, device="cpu")


def _difference(a: np.ndarray, b: np.ndarray) -> int:
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    return int(np.abs(a.astype(np.int64) - b).max())


def test_8_bit_color(reference: Mapping[str, np.ndarray], upsampler: RealESRGANer):
    result, mode = upsampler.enhance(reference["e2e_in_bgra8"][..., :3])
    assert mode == "RGB"
    assert _difference(result, reference["e2e_out_bgr8"]) <= 1


def test_16_bit_color(reference: Mapping[str, np.ndarray], upsampler: RealESRGANer):
    result, _ = upsampler.enhance(reference["e2e_in_bgr16"])
    assert _difference(result, reference["e2e_out_bgr16"]) <= 1


def test_gray(reference: Mapping[str, np.ndarray], upsampler: RealESRGANer):
    result, mode = upsampler.enhance(reference["e2e_in_bgra8"][..., 0])
    assert mode == "L"
    assert _difference(result, reference["e2e_out_gray8"]) <= 1


def test_alpha(reference: Mapping[str, np.ndarray], upsampler: RealESRGANer):
    """No pixel of this image is fully transparent, so that no color is bled."""
    result, mode = upsampler.enhance(reference["e2e_in_bgra8"])
    assert mode == "RGBA"
    assert _difference(result, reference["e2e_out_bgra8"]) <= 1


def test_tiles_with_the_receptive_radius_as_pad_equal_the_whole_image(
    reference: Mapping[str, np.ndarray], weights: str
):
    """The reference's own tiles, padded by 10 of the 18 pixels needed, are up to 8 levels off."""
    tiled = RealESRGANer(4, weights, tile=16, tile_pad=18, pre_pad=0, device="cpu")
    result, _ = tiled.enhance(reference["e2e_in_bgra8"][..., :3])
    assert _difference(result, reference["e2e_out_bgr8"]) <= 1
    assert _difference(reference["e2e_out_bgr8_tile16"], reference["e2e_out_bgr8"]) > 4
