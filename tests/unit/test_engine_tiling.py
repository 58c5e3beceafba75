"""Tiles lie without gaps, blend to one, and resample as Pillow does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from realesr_cli.engine.tiling import Axis, cuts, ramp, resample_taps, spans

axes = st.builds(
    lambda size, out, core, overlap, blend, multiple: Axis(
        size, out, core, overlap, min(blend, overlap), multiple
    ),
    st.integers(1, 200),
    st.integers(1, 900),
    st.integers(0, 70),
    st.integers(0, 40),
    st.integers(0, 20),
    st.sampled_from([1, 2, 4]),
)


@given(axes)
def test_weights_sum_to_one_at_every_output_pixel(axis):
    total = np.zeros(axis.out_size)
    for span in spans(axis):
        assert len(span.weights) == span.write[1] - span.write[0]
        assert span.write[0] >= 0
        assert span.write[1] <= axis.out_size
        total[slice(*span.write)] += span.weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(axes)
def test_windows_hold_what_they_write_and_keep_the_phase(axis):
    ratio = axis.out_size / axis.size
    for span in spans(axis):
        low, high = span.read
        assert 0 <= low < high <= axis.size
        assert low % axis.multiple == 0
        assert high % axis.multiple == 0 or high == axis.size
        # The window reaches `overlap - blend` input pixels beyond all that it writes.
        context = axis.overlap - axis.blend
        # (Boundaries are rounded to whole output pixels.)
        slack = 1 / ratio
        assert low <= max(0, span.write[0] / ratio - context + slack)
        assert high >= min(axis.size, span.write[1] / ratio + context - slack)


@given(st.integers(1, 5000), st.integers(0, 600))
def test_cores_are_nearly_equal_and_never_larger_than_asked(size, core):
    bounds = cuts(size, core)
    lengths = np.diff(bounds)
    assert bounds[0] == 0
    assert bounds[-1] == size
    assert lengths.max() - lengths.min() <= 1
    if core:
        assert lengths.max() <= core
        assert len(lengths) == -(-size // core)


def test_a_boundary_is_mixed_half_and_half():
    first, second = spans(Axis(64, 256, 32, 16, 8))
    assert first.write == (0, 160)
    assert second.write == (96, 256)
    assert first.weights[127] + second.weights[31] == pytest.approx(1)
    assert first.weights[127] == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(ramp(64) + ramp(64)[::-1], 1, atol=1e-6)


def dense(size: int, out: int, window: tuple[int, int]) -> np.ndarray:
    taps = resample_taps(size, out, window)
    matrix = np.zeros((len(taps.first), size))
    for row, (first, weights) in enumerate(zip(taps.first, taps.weights, strict=True)):
        matrix[row, first : first + len(weights)] = weights
    return matrix


@pytest.mark.parametrize(
    ("size", "out"), [(40, 100), (100, 40), (64, 63), (5, 17), (1, 4), (200, 3)]
)
def test_resampling_is_pillows_bicubic(size, out):
    """Pillow's own float resampling: antialiased cubic, a = -0.5, weights renormalized at ends."""
    values = np.random.default_rng(0).random((1, size)).astype(np.float32)
    expected = np.asarray(Pillow.fromarray(values).resize((out, 1), Pillow.Resampling.BICUBIC))[0]
    ours = dense(size, out, (0, out)) @ values[0]
    np.testing.assert_allclose(ours, expected, atol=2e-5)


@given(st.integers(1, 80), st.integers(1, 200), st.data())
def test_a_window_of_taps_is_that_part_of_the_whole(size, out, data):
    begin = data.draw(st.integers(0, out - 1))
    end = data.draw(st.integers(begin + 1, out))
    whole = dense(size, out, (0, out))
    np.testing.assert_array_equal(dense(size, out, (begin, end)), whole[begin:end])
    np.testing.assert_allclose(whole.sum(1), 1, atol=1e-5)
