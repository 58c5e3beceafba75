"""Banded matrices: the same as their dense form, composed and applied, whole and in windows."""

from __future__ import annotations

import pytest
import torch
from dense_matrices import dense

from realesr_cli.ops.banded import make_banded, zero_padded_filter
from realesr_cli.ops.resize import resample_band


@pytest.mark.parametrize(("size", "out"), [(16, 64), (64, 16), (50, 17), (3, 40), (40, 1), (1, 5)])
def test_applying_is_the_dense_product(size: int, out: int) -> None:
    matrix = resample_band(size, out)
    whole = torch.eye(size, dtype=torch.float64)
    assert torch.equal(matrix.apply(whole, -2), dense(matrix))
    assert torch.equal(matrix.apply(whole, -1), dense(matrix).T)


@pytest.mark.parametrize("sizes", [(30, 100, 30), (9, 4, 21), (1, 4, 1), (150, 40, 200)])
def test_a_product_is_the_dense_product(sizes: tuple[int, int, int]) -> None:
    first, then = resample_band(*sizes[:2]), resample_band(*sizes[1:])
    torch.testing.assert_close(dense(then @ first), dense(then) @ dense(first))


def test_filters_see_zeros_beyond_the_border() -> None:
    taps = torch.tensor([0.25, 0.5, 0.25])
    found = dense(zero_padded_filter(taps, 4))
    assert found[0].tolist() == [0.5, 0.25, 0, 0]
    assert found[2].tolist() == [0, 0.25, 0.5, 0.25]
    assert dense(zero_padded_filter(taps, 1)).tolist() == [[0.5]]


@pytest.mark.parametrize("axis", [-2, -1])
@pytest.mark.parametrize("window", [(0, 1), (0, 130), (70, 200), (199, 200)])
def test_a_window_needs_only_what_it_says(axis: int, window: tuple[int, int]) -> None:
    matrix = resample_band(77, 200)
    image = torch.rand(3, 77, 77, dtype=torch.float64)
    whole = matrix.apply(image, axis)
    low, high = matrix.needs(*window)
    part = image.narrow(axis, low, high - low)
    found = matrix.apply(part, axis, window=window, origin=low)
    torch.testing.assert_close(found, whole.narrow(axis, window[0], window[1] - window[0]))
    assert high - low <= (window[1] - window[0]) * 77 / 200 + 5


def test_entries_without_weight_widen_nothing() -> None:
    index = torch.tensor([[-1, 0, 1], [4, 5, 6]])
    weights = torch.tensor([[0, 2, 3], [1, 2, 0]], dtype=torch.float64)
    matrix = make_banded(index, weights, 6)
    assert dense(matrix).tolist() == [[2, 3, 0, 0, 0, 0], [0, 0, 0, 0, 1, 2]]
    assert (matrix.weights.shape[1], matrix.needs(0, 1), matrix.needs(1, 2)) == (2, (0, 2), (4, 6))
