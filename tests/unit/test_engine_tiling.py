"""Tiles lie without gaps, blend to one, and wrap around where they shall."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realesr_cli.engine.tiling import Axis, make_ramp, place_spans, split_evenly

axes = st.builds(
    lambda size, out, tile, overlap, blend, multiple: Axis(
        size, out, tile, overlap, min(blend, overlap), multiple
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
    for span in place_spans(axis):
        assert len(span.weights) == span.write[1] - span.write[0]
        assert span.write[0] >= 0
        assert span.write[1] <= axis.out_size
        total[slice(*span.write)] += span.weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(axes)
def test_windows_hold_what_they_write_and_keep_the_phase(axis):
    ratio = axis.out_size / axis.size
    for span in place_spans(axis):
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
def test_tiles_are_nearly_equal_and_never_larger_than_requested(size, tile):
    bounds = split_evenly(size, tile)
    lengths = np.diff(bounds)
    assert bounds[0] == 0
    assert bounds[-1] == size
    assert lengths.max() - lengths.min() <= 1
    if tile:
        assert lengths.max() <= tile
        assert len(lengths) == -(-size // tile)


def test_a_boundary_is_mixed_half_and_half():
    first, second = place_spans(Axis(64, 256, 32, 16, 8))
    assert first.write == (0, 160)
    assert second.write == (96, 256)
    assert first.weights[127] + second.weights[31] == pytest.approx(1)
    assert first.weights[127] == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(make_ramp(64) + make_ramp(64)[::-1], 1, atol=1e-6)
