"""Blur kernels: known values and the properties all of them have."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realesr_cli.degrade import kernels as K
from realesr_cli.errors import ConfigError

sigmas = st.floats(0.2, 4.0)


@given(
    kind=st.sampled_from([kind for kind in K.KINDS if kind not in ("sinc", "none")]),
    size=st.sampled_from([3, 7, 21]),
    sigma_x=sigmas,
    sigma_y=sigmas,
    theta=st.floats(-math.pi, math.pi),
    beta=st.floats(0.5, 4.0),
)
def test_sum_symmetry_and_sign(
    kind: str, size: int, sigma_x: float, sigma_y: float, theta: float, beta: float
) -> None:
    taps = K.build_kernel(K.Kernel(kind, size, sigma_x, sigma_y, theta, beta))
    assert taps.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(taps, taps[::-1, ::-1], atol=1e-12)
    assert (taps >= 0).all()


@given(size=st.sampled_from([7, 13, 21]), cutoff=st.floats(math.pi / 5, math.pi))
def test_sinc_sum_and_symmetry(size: int, cutoff: float) -> None:
    taps = K.build_sinc_kernel(size, cutoff)
    assert taps.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(taps, taps[::-1, ::-1], atol=1e-12)
    np.testing.assert_allclose(taps, taps.T, atol=1e-12)


def test_isotropic_values() -> None:
    small = K.build_kernel(K.Kernel("iso", 7, 1.0))
    assert small[3, 3] == pytest.approx(0.1592411257)
    assert small[0, 3] == pytest.approx(0.0017690091)
    assert small[0, 0] == pytest.approx(1.9651916e-5)
    assert K.build_kernel(K.Kernel("iso", 21, 0.2))[10, 10] == pytest.approx(0.99998509)
    large = K.build_kernel(K.Kernel("iso", 21, 3.0))
    assert large[10, 10] == pytest.approx(0.0176993772)
    assert large[0, 0] == pytest.approx(2.64523e-7, rel=1e-5)


def test_anisotropic_values_and_turning() -> None:
    flat = K.build_kernel(K.Kernel("aniso", 11, 2.0, 1.0, 0.0))
    assert flat[5, 6] == pytest.approx(0.0706121286)
    assert flat[6, 5] == pytest.approx(0.0485309589)
    assert flat[5, 5] == pytest.approx(0.0800140243)
    quarter = K.build_kernel(K.Kernel("aniso", 11, 2.0, 1.0, math.pi / 2))
    np.testing.assert_allclose(quarter, K.build_kernel(K.Kernel("aniso", 11, 1.0, 2.0)), atol=1e-12)
    eighth = K.build_kernel(K.Kernel("aniso", 11, 2.0, 1.0, math.pi / 4))
    assert eighth[6, 6] == pytest.approx(0.0620236676)
    assert eighth[6, 4] == pytest.approx(0.0292979061)


def test_generalized_values() -> None:
    gaussian = K.build_kernel(K.Kernel("iso", 9, 1.5))
    one = K.build_kernel(K.Kernel("generalized_iso", 9, 1.5, beta=1.0))
    np.testing.assert_allclose(one, gaussian)
    half = K.build_kernel(K.Kernel("generalized_iso", 9, 1.5, beta=0.5))
    assert half[4, 4:6].tolist() == pytest.approx([0.0352036767, 0.0252245366])
    four = K.build_kernel(K.Kernel("generalized_iso", 9, 1.5, beta=4.0))
    assert four[4, 4:7].tolist() == pytest.approx([0.1269461109, 0.1244934933, 0.0008601935])


def test_plateau_values() -> None:
    one = K.build_kernel(K.Kernel("plateau_iso", 9, 1.5, beta=1.0))
    assert one[4, 4:6].tolist() == pytest.approx([0.0563622437, 0.0390200149])
    two = K.build_kernel(K.Kernel("plateau_iso", 9, 1.5, beta=2.0))
    assert two[4, 4:7].tolist() == pytest.approx([0.0953220947, 0.0795988626, 0.0229112453])


@pytest.mark.parametrize(
    ("cutoff", "center"),
    [(math.pi / 3, 0.0872664626), (math.pi / 2, 0.1963495408), (math.pi, 0.7853981634)],
)
def test_sinc_center(cutoff: float, center: float) -> None:
    assert K.unnormalized_sinc(7, cutoff)[3, 3] == pytest.approx(center)


@pytest.mark.parametrize(
    ("size", "cutoff", "total"),
    [(7, math.pi / 2, 0.83284086), (21, math.pi / 3, 0.99439777), (21, math.pi, 0.99528449)],
)
def test_sinc_sums(size: int, cutoff: float, total: float) -> None:
    assert K.unnormalized_sinc(size, cutoff).sum() == pytest.approx(total)


def test_sinc_values() -> None:
    small = K.build_sinc_kernel(7, math.pi / 2)
    assert small[3, 3:5].tolist() == pytest.approx([0.23575877, 0.17014778])
    assert small[2, 2] == pytest.approx(0.11734116)
    assert small.min() == pytest.approx(-0.03073022)
    large = K.build_sinc_kernel(21, math.pi / 3)
    assert large[10, 10:12].tolist() == pytest.approx([0.08775810, 0.07626569])
    assert large.min() == pytest.approx(-0.01155129)


def test_none_is_the_unit() -> None:
    taps = K.build_kernel(K.Kernel("none", 5))
    assert taps[2, 2] == taps.sum() == 1


def test_shift_moves_the_center() -> None:
    taps = K.build_kernel(K.Kernel("iso", 25, 2.0, 2.0, shift=1.5))
    offsets = np.arange(25) - 12
    assert (taps.sum(0) * offsets).sum() == pytest.approx(1.5, abs=1e-4)
    assert (taps.sum(1) * offsets).sum() == pytest.approx(1.5, abs=1e-4)


def test_bessel_values() -> None:
    found = K.bessel_j1(np.array([0.0, 1.0, 3.8317059702]))
    assert found.tolist() == pytest.approx([0.0, 0.4400505857, 0.0], abs=1e-10)


def test_unknown_kind() -> None:
    with pytest.raises(ConfigError, match="did you mean 'plateau_iso'"):
        K.Kernel("plateau-iso", 7)
