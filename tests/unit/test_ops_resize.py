"""Resizing: weights, known responses, borders, unknown modes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dense_matrices import dense
from PIL import Image

from realesr_cli.errors import ConfigError
from realesr_cli.ops import resize as R

DOWN4 = (-0.00170898, -0.01098633, -0.01831055, -0.01196289,
         0.02270508, 0.09741211, 0.18188477, 0.2409668)  # fmt: skip


def middle_row(in_size: int, out_size: int) -> list[float]:
    row = dense(R.resample_band(in_size, out_size))[out_size // 2]
    return [float(value) for value in row[row != 0]]


def test_matlab_weights() -> None:
    assert middle_row(64, 16) == pytest.approx([*DOWN4, *reversed(DOWN4)], abs=1e-8)
    half = [-0.01171875, -0.03515625, 0.11328125, 0.43359375]
    assert middle_row(64, 32) == pytest.approx([*half, *reversed(half)])
    third = [-0.01234568, -0.02469136, 0.11111111, 0.25925926, 0.33333333]
    found = [value for value in middle_row(63, 21) if abs(value) > 1e-12]
    assert found == pytest.approx([*third, *reversed(third[:4])], abs=1e-8)
    up4 = [-0.04394531, 0.38964844, 0.72753906, -0.07324219]
    assert middle_row(16, 64) == pytest.approx(up4, abs=1e-8)
    assert middle_row(16, 32) == pytest.approx([-0.0234375, 0.2265625, 0.8671875, -0.0703125])


def test_matlab_border_is_symmetric() -> None:
    ramp = torch.arange(32, dtype=torch.float64).view(1, 1, 1, 32).expand(1, 1, 4, 32)
    ours = R.imresize(ramp, 0.25)[0, 0, 0]
    expected = [1.35986328, 5.48388672, 9.5, 13.5, 17.5, 21.5, 25.51611328, 29.64013672]
    assert ours.tolist() == pytest.approx(expected, abs=1e-8)


def test_matlab_step() -> None:
    step = torch.zeros(1, 1, 4, 32, dtype=torch.float64)
    step[..., 16:] = 1
    ours = R.imresize(step, 0.25)[0, 0, 0]
    assert ours[2:6].tolist() == pytest.approx(
        [-0.01269531, 0.07714844, 0.92285156, 1.01269531], abs=1e-8
    )


@pytest.mark.parametrize(("size", "scale", "expected"), [(24, 1 / 3, 8), (25, 0.25, 7), (5, 2, 10)])
def test_matlab_size_is_rounded_up(size: int, scale: float, expected: int) -> None:
    assert R.imresize(torch.rand(1, 3, size, size), scale).shape[-2:] == (expected, expected)


@pytest.mark.parametrize("kernel", R.MATRIX_MODES)
@pytest.mark.parametrize(("in_size", "out_size"), [(50, 17), (17, 50), (9, 9), (3, 40), (40, 1)])
def test_rows_of_weights_sum_to_one(kernel: str, in_size: int, out_size: int) -> None:
    matrix = dense(R.resample_band(in_size, out_size, kernel=kernel))
    assert matrix.shape == (out_size, in_size)
    torch.testing.assert_close(matrix.sum(1), torch.ones(out_size, dtype=torch.float64))


@pytest.mark.parametrize("mode", R.MATRIX_MODES)
def test_blocks_are_the_matrix(mode: str) -> None:
    image = torch.rand(2, 3, 150, 31, dtype=torch.float64)
    ours = R.resize(image, (97, 170), mode)
    rows = dense(R.resample_band(150, 97, kernel=mode))
    columns = dense(R.resample_band(31, 170, kernel=mode))
    torch.testing.assert_close(ours, rows @ image @ columns.T)


def test_ratio_moves_the_samples() -> None:
    given = dense(R.resample_band(10, 7, ratio=0.75))
    assert not torch.allclose(given, dense(R.resample_band(10, 7)))


def test_only_weights_near_the_diagonal_are_held() -> None:
    """A dense matrix of this size would be 512 MB."""
    assert R.resample_band(4000, 16000).weights.shape == (16000, 4)


@pytest.mark.parametrize("mode", R.TORCH_MODES)
def test_torch_modes(mode: str) -> None:
    image = torch.rand(1, 3, 20, 30)
    corners = {} if mode == "area" else {"align_corners": False}
    expected = F.interpolate(image, size=(13, 47), mode=mode, **corners)
    assert torch.equal(R.resize(image, (13, 47), mode), expected)


@pytest.mark.parametrize("mode", R.MODES)
def test_same_size_changes_no_bit(mode: str) -> None:
    image = torch.rand(1, 3, 9, 12)
    assert torch.equal(R.resize(image, (9, 12), mode), image)


@pytest.mark.parametrize("size", [(9, 12), (4, 4)])
def test_unknown_mode(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'bicubic'"):
        R.resize(torch.rand(1, 3, 9, 12), size, "bicubics")


def test_unknown_kernel() -> None:
    with pytest.raises(ConfigError, match="bilinear"):
        R.resample_band(4, 2, kernel="bilinear")


@pytest.mark.parametrize(
    ("size", "out"), [(40, 100), (100, 40), (64, 63), (5, 17), (1, 4), (200, 3)]
)
def test_cubic_is_pillows_bicubic(size: int, out: int) -> None:
    """Pillow's own float resampling, which renormalizes the weights at the ends."""
    values = np.random.default_rng(0).random((1, size)).astype(np.float32)
    expected = np.asarray(Image.fromarray(values).resize((out, 1), Image.Resampling.BICUBIC))[0]
    ours = dense(R.resample_band(size, out, kernel="cubic")).numpy() @ values[0]
    np.testing.assert_allclose(ours, expected, atol=2e-5)


@pytest.mark.parametrize(("size", "out"), [(40, 100), (100, 40), (7, 7)])
def test_a_margin_is_read_instead_of_continued(size: int, out: int) -> None:
    """Rows of the inner part of a longer axis at the same ratio."""
    margin = 3 * size
    found = dense(R.resample_band(size, out, kernel="cubic", margin=margin))
    whole = dense(R.resample_band(7 * size, 7 * out, kernel="cubic"))
    torch.testing.assert_close(found, whole[3 * out : 4 * out])
