"""Color under transparent pixels: what shows stays, what hides continues it."""

from __future__ import annotations

from typing import Any

import image_samples as samples
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realesr_cli.image import pixels as pixels_module
from realesr_cli.image.pixels import bleed, constant_alpha

TOP = {np.uint8: 255, np.uint16: 65535, np.float32: 1}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_cut_out_of_one_color_leaves_no_fringe(dtype: Any, channels: int):
    color = samples.noise(1, 1, channels, dtype, seed=4)[0, 0]
    pixels = np.zeros((61, 83, channels), dtype)
    alpha = np.zeros((61, 83), dtype)
    y, x = np.ogrid[:61, :83]
    inside = (y - 25) ** 2 + (x - 50) ** 2 < 200
    pixels[inside], alpha[inside] = color, TOP[dtype]
    found = bleed(pixels, alpha)
    assert found.dtype == dtype
    tolerance = 1e-6 if dtype == np.float32 else 0
    assert np.abs(found.astype(float) - color.astype(float)).max() <= tolerance


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
)
def test_what_shows_stays_and_the_rest_lies_between(
    height: int, width: int, dtype: Any, seed: int, share: float
):
    rng = np.random.default_rng(seed)
    pixels = samples.noise(height, width, 3, dtype, seed)
    alpha = samples.noise(height, width, 1, dtype, seed + 1)[..., 0]
    alpha[rng.random((height, width)) < share] = 0
    before = pixels.copy()
    found = bleed(pixels, alpha)
    assert np.array_equal(pixels, before)
    shown = alpha > 0
    assert np.array_equal(found[shown], pixels[shown])
    if not shown.any():
        assert np.array_equal(found, pixels)
        return
    low, high = pixels[shown].min(0).astype(float), pixels[shown].max(0).astype(float)
    slack = 1e-5 * TOP[dtype]
    assert (found >= low - slack).all()
    assert (found <= high + slack).all()


def test_the_nearest_color_wins_beside_an_edge():
    pixels = np.zeros((32, 64, 3), np.uint8)
    alpha = np.zeros((32, 64), np.uint8)
    pixels[:, :16], alpha[:, :16] = (250, 10, 10), 255
    pixels[:, 48:], alpha[:, 48:] = (10, 10, 250), 255
    found = bleed(pixels, alpha).astype(int)
    assert (found[:, 16, 0] > 200).all()
    assert (found[:, 47, 2] > 200).all()
    # And between them it changes smoothly.
    assert np.abs(np.diff(found[16, 16:48, 0])).max() < 40


def test_pixels_that_hardly_show_count_little():
    pixels = np.zeros((16, 16, 1), np.uint8)
    alpha = np.zeros((16, 16), np.uint8)
    pixels[4:8, 4:8], alpha[4:8, 4:8] = 200, 255
    pixels[3], alpha[3] = 0, 1  # a dark rim of alpha 1, as compositing leaves it
    found = bleed(pixels, alpha)
    assert found[9, 5, 0] > 190


@pytest.mark.parametrize("step", [1, 2, 5])
def test_bands_join_as_if_there_were_none(step: int, monkeypatch: pytest.MonkeyPatch):
    pixels = samples.noise(37, 23, 3, np.uint16)
    alpha = samples.noise(37, 23, 1, np.uint16)[..., 0]
    alpha[samples.noise(37, 23, 1)[..., 0] < 200] = 0
    whole = bleed(pixels, alpha)
    monkeypatch.setattr(pixels_module, "band_height", lambda *_: step)
    assert np.array_equal(bleed(pixels, alpha), whole)


def test_images_without_hidden_pixels_are_returned_as_they_are():
    pixels = samples.noise(5, 6, 3)
    assert bleed(pixels, np.full((5, 6), 1, np.uint8)) is pixels
    assert bleed(pixels, np.zeros((5, 6), np.uint8)) is pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_constant_alpha_is_found(dtype: Any):
    for value in (0, TOP[dtype]):
        found = constant_alpha(np.full((4, 5), value, dtype))
        assert found == value
        assert type(found) is (float if dtype == np.float32 else int)
    varying = np.full((4, 5), TOP[dtype], dtype)
    varying[3, 4] = 0
    assert constant_alpha(varying) is None
