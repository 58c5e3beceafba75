"""Blur kernels from their parameters: Gaussian, generalized Gaussian, plateau and sinc.

Sources: Real-ESRGAN (Wang et al. 2021), section 3.1 and appendix A; the generalized Gaussian and
plateau shapes are those of Liu et al. 2020. Kernels are point-symmetric, so that correlation and
convolution agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realesr_cli.settings import check, option

GAUSSIANS = ("iso", "aniso")
GENERALIZED = ("generalized_iso", "generalized_aniso")
PLATEAUS = ("plateau_iso", "plateau_aniso")
KINDS = (*GAUSSIANS, *GENERALIZED, *PLATEAUS, "sinc", "none")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Kernel:
    """Parameters of one kernel; those its kind does not use keep their defaults."""

    kind: str = option(help="Shape of the kernel; none: identity.", choices=KINDS)
    size: int = option(help="Width and height in pixels, odd.", low=1, high=255)
    sigma_x: float = option(
        1.0, help="Standard deviation along the first axis in pixels.", above=0, high=1e6
    )
    sigma_y: float = option(
        1.0, help="Standard deviation along the second axis; ignored if isotropic.", above=0,
        high=1e6,
    )  # fmt: skip
    theta: float = option(
        0.0, help="Rotation of the axes in radians, from x to y (down).", low=-1e6, high=1e6
    )
    beta: float = option(
        1.0, help="Exponent of generalized and plateau kernels.", above=0, high=1e6
    )
    cutoff: float = option(
        math.pi, help="Cut-off of sinc kernels in radians per pixel.", above=0, high=100
    )
    shift: float = option(
        0.0, help="Offset of the center in pixels, right and down.", low=-1e3, high=1e3
    )

    def __post_init__(self) -> None:
        check(self)


def build_kernel(kernel: Kernel) -> Array:
    """Return the kernel as a (size, size) float64 array with sum 1."""
    if kernel.kind == "none":
        taps = np.zeros((kernel.size, kernel.size))
        taps[kernel.size // 2, kernel.size // 2] = 1.0
        return taps
    if kernel.kind == "sinc":
        return build_sinc_kernel(kernel.size, kernel.cutoff)
    isotropic = not kernel.kind.endswith("aniso")
    quadratic = _quadratic_form(
        kernel.size,
        (kernel.sigma_x, kernel.sigma_x if isotropic else kernel.sigma_y),
        0.0 if isotropic else kernel.theta,
        kernel.shift,
    )
    if kernel.kind in GAUSSIANS:
        taps = np.exp(-quadratic / 2)
    elif kernel.kind in GENERALIZED:
        taps = np.exp(-(quadratic**kernel.beta) / 2)
    else:
        taps = 1 / (1 + quadratic**kernel.beta)
    return np.asarray(taps / taps.sum())


def _quadratic_form(size: int, sigmas: tuple[float, float], theta: float, shift: float) -> Array:
    """Return C' S^-1 C on the grid, with S = R diag(sigma^2) R'; x points right, y down."""
    offsets = np.arange(size) - (size - 1) / 2 - shift
    x, y = offsets[None, :], offsets[:, None]
    along = x * math.cos(theta) + y * math.sin(theta)
    across = y * math.cos(theta) - x * math.sin(theta)
    return np.asarray((along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2)


def build_sinc_kernel(size: int, cutoff: float) -> Array:
    """Return the circular low-pass (jinc) filter, which rings, as (size, size) with sum 1.

    `cutoff` is in radians per pixel; pi is the Nyquist frequency of a row. Source: Real-ESRGAN
    (Wang et al. 2021), equation 6.
    """
    taps = unnormalized_sinc(size, cutoff)
    return np.asarray(taps / taps.sum())


def unnormalized_sinc(size: int, cutoff: float) -> Array:
    """Return w J1(w r) / (2 pi r), which is w^2 / (4 pi) at the center, not yet normalized."""
    offsets = np.arange(size) - (size - 1) / 2
    radius = np.hypot(offsets[None, :], offsets[:, None])
    center = radius == 0
    distances, where = np.unique(np.where(center, 1.0, radius), return_inverse=True)
    around = (cutoff * bessel_j1(cutoff * distances) / (2 * math.pi * distances))[where]
    around = around.reshape(size, size)
    return np.asarray(np.where(center, cutoff**2 / (4 * math.pi), around))


def bessel_j1(x: Array) -> Array:
    """Compute the Bessel function J1, accurate to 1e-14 for |x| up to a few hundred.

    Bessel's integral, 1 / pi times the integral of cos(t - x sin t) over 0..pi, has a smooth
    periodic integrand, for which the midpoint rule converges exponentially. torch's own function
    has errors of 5e-7.
    """
    points = int(np.ceil(np.abs(x).max(initial=0.0))) + 30
    t = (np.arange(points) + 0.5) * (math.pi / points)
    return np.asarray(np.cos(t - x[..., None] * np.sin(t)).mean(axis=-1))
