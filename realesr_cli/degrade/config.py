"""The settings of a degradation: stages of one type in a row, and the end of resize and JPEG."""

from __future__ import annotations

import math
from dataclasses import dataclass

from realesr_cli.errors import ConfigError
from realesr_cli.ops.resize import MODES
from realesr_cli.settings import check, option

Range = tuple[float, float]

TORCH_MODES = ("area", "bilinear", "bicubic")


def _ordered(settings: object, *names: str) -> None:
    for name in names:
        low, high = getattr(settings, name)
        if low > high:
            raise ConfigError(f"{name} = [{low:g}, {high:g}]: the lower end comes first")


@dataclass(frozen=True)
class KernelWeights:
    """Relative frequencies of the kernels that are not sinc; they need not sum to one."""

    iso: float = option(0.45, help="Gaussian, round", low=0)
    aniso: float = option(0.25, help="Gaussian, elliptic", low=0)
    generalized_iso: float = option(0.12, help="generalized Gaussian, round", low=0)
    generalized_aniso: float = option(0.03, help="generalized Gaussian, elliptic", low=0)
    plateau_iso: float = option(0.12, help="plateau-shaped, round", low=0)
    plateau_aniso: float = option(0.03, help="plateau-shaped, elliptic", low=0)

    def __post_init__(self) -> None:
        check(self)
        if sum(vars(self).values()) <= 0:
            raise ConfigError("kernels: at least one kind needs a weight above 0")


@dataclass(frozen=True)
class Blur:
    """Blur of one stage."""

    chance: float = option(1.0, help="probability that the stage blurs", low=0, high=1)
    sinc: float = option(0.1, help="share of sinc (ringing) among the kernels", low=0, high=1)
    kernels: KernelWeights = option(KernelWeights(), help="the other kernels")
    sizes: tuple[int, ...] = option(
        (7, 9, 11, 13, 15, 17, 19, 21), help="taps on each side, equally likely", low=1, high=255
    )
    sigma: Range = option((0.2, 3.0), help="standard deviations in pixels", above=0)
    rotation: Range = option((-math.pi, math.pi), help="of elliptic kernels, radians")
    beta_generalized: Range = option((0.5, 4.0), help="exponents of generalized kernels", above=0)
    beta_plateau: Range = option((1.0, 2.0), help="exponents of plateau kernels", above=0)
    beta_draw: str = option(
        "split",
        choices=("split", "uniform", "nested"),
        help="split: half below 1 and half above (Real-ESRGAN's code); uniform (its paper); "
        "nested: uniform between 1 and a uniform number (MMagic)",
    )

    def __post_init__(self) -> None:
        check(self)
        _ordered(self, "sigma", "rotation", "beta_generalized", "beta_plateau")
        if not self.sizes or any(size % 2 == 0 for size in self.sizes):
            raise ConfigError(f"sizes = {list(self.sizes)}: at least one, and all odd")


@dataclass(frozen=True)
class Resize:
    """Random resizing of one stage."""

    up: float = option(0.2, help="weight of enlarging", low=0)
    down: float = option(0.7, help="weight of shrinking", low=0)
    keep: float = option(0.1, help="weight of leaving the size", low=0)
    scale: Range = option((0.15, 1.5), help="smallest and largest factor", above=0)
    modes: tuple[str, ...] = option(
        TORCH_MODES, help="interpolations, equally likely", choices=MODES
    )
    of: str = option(
        "current",
        choices=("current", "lq"),
        help="what the factor is of: the image as it is, or the final low-quality size",
    )

    def __post_init__(self) -> None:
        check(self)
        _ordered(self, "scale")
        if self.up + self.down + self.keep <= 0:
            raise ConfigError("up, down, keep: at least one needs a weight above 0")
        if (self.up and self.scale[1] < 1) or (self.down and self.scale[0] > 1):
            raise ConfigError(f"scale = {list(self.scale)}: 1 must lie within")
        if not self.modes:
            raise ConfigError("modes: at least one is needed")


@dataclass(frozen=True)
class Noise:
    """Noise of one stage."""

    chance: float = option(1.0, help="probability that the stage adds noise", low=0, high=1)
    gaussian: float = option(0.5, help="share of Gaussian noise; else Poisson", low=0, high=1)
    sigma: Range = option((1.0, 30.0), help="standard deviation of Gaussian noise, of 255", low=0)
    poisson_scale: Range = option((0.05, 3.0), help="strength of Poisson noise", low=0)
    levels: int = option(256, help="photons at white; 0: counted in the image", low=0)
    gray: float = option(0.4, help="share of noise without color", low=0, high=1)

    def __post_init__(self) -> None:
        check(self)
        _ordered(self, "sigma", "poisson_scale")


@dataclass(frozen=True)
class Jpeg:
    """JPEG compression of one stage or of the end."""

    chance: float = option(1.0, help="probability of compression", low=0, high=1)
    quality: Range = option((30.0, 95.0), help="of 100", above=0, high=100)
    encoder: str = option(
        "tensor",
        choices=("tensor", "libjpeg"),
        help="tensor: computed, real-valued quality, runs on a GPU; libjpeg: the real one, "
        "whole-numbered quality",
    )

    def __post_init__(self) -> None:
        check(self)
        _ordered(self, "quality")


@dataclass(frozen=True)
class Stage:
    """One round of the classical degradation: blur, resize, noise, JPEG, in this order."""

    blur: Blur = option(Blur(), help="first")
    resize: Resize = option(Resize(), help="second")
    noise: Noise = option(Noise(), help="third")
    jpeg: Jpeg = option(Jpeg(), help="fourth")


@dataclass(frozen=True)
class Final:
    """The end: resize to the low-quality size with ringing, and JPEG, in either order; rounding."""

    modes: tuple[str, ...] = option(
        TORCH_MODES, help="interpolations, equally likely", choices=MODES
    )
    sinc: float = option(0.8, help="probability of a sinc filter after the resize", low=0, high=1)
    sinc_sizes: tuple[int, ...] = option(
        (7, 9, 11, 13, 15, 17, 19, 21), help="its taps on each side", low=1, high=255
    )
    jpeg: Jpeg = option(Jpeg(), help="compression")
    jpeg_last: float = option(
        0.5, help="probability that JPEG comes after resize and ringing", low=0, high=1
    )

    def __post_init__(self) -> None:
        check(self)
        if not self.modes:
            raise ConfigError("modes: at least one is needed")
        if not self.sinc_sizes or any(size % 2 == 0 for size in self.sinc_sizes):
            raise ConfigError(f"sinc_sizes = {list(self.sinc_sizes)}: at least one, and all odd")


@dataclass(frozen=True)
class Shuffled:
    """BSRGAN's degradation: two blurs, two shrinkings, noise and JPEG in random order.

    Source: Zhang et al. 2021, "Designing a Practical Degradation Model", sections 3 and 4, with the
    numbers of its published code; the camera pipeline, whose model was not published, is left out.
    """

    halve: float = option(0.25, help="probability of halving first (scale 4)", low=0, high=1)
    aniso: float = option(0.5, help="share of elliptic blur", low=0, high=1)
    sizes: tuple[int, ...] = option(
        (7, 9, 11, 13, 15, 17, 19, 21, 23, 25), help="taps of the blur", low=1, high=255
    )
    resample: float = option(
        0.75, help="share of plain resizing; else blur and every n-th pixel", low=0, high=1
    )
    modes: tuple[str, ...] = option(
        ("bilinear", "bicubic", "box"), help="interpolations", choices=MODES
    )
    sigma: tuple[int, int] = option((2, 25), help="Gaussian noise, of 255, whole numbers", low=0)
    gray: float = option(0.4, help="share of noise without color", low=0, high=1)
    correlated: float = option(0.2, help="share of noise with correlated colors", low=0, high=1)
    jpeg: float = option(0.9, help="probability of the JPEG among the shuffled", low=0, high=1)
    quality: tuple[int, int] = option(
        (30, 95), help="of both JPEGs, whole numbers", low=1, high=100
    )

    def __post_init__(self) -> None:
        check(self)
        _ordered(self, "sigma", "quality")
        if not self.sizes or any(size % 2 == 0 for size in self.sizes):
            raise ConfigError(f"sizes = {list(self.sizes)}: at least one, and all odd")
        if not self.modes:
            raise ConfigError("modes: at least one is needed")
        if self.gray + self.correlated > 1:
            raise ConfigError("gray and correlated: shares of one whole, more than 1 together")


@dataclass(frozen=True)
class DegradationConfig:
    """What is done to a ground truth to make its low-quality version."""

    stages: tuple[Stage, ...] = option((), help="in order; two make a second-order degradation")
    final: Final = option(Final(), help="the end")
    shuffled: Shuffled | None = option(
        None, help="BSRGAN's degradation in place of stages and final"
    )
    usm: bool = option(False, help="start from the sharpened ground truth")
    usm_weight: float = option(0.5, help="of sharpening: share of the residual", low=0)
    usm_radius: int = option(50, help="of sharpening: width of the window in pixels", low=1)
    usm_threshold: float = option(10.0, help="of sharpening: least residual, of 255", low=0)
    pool: int = option(
        0, help="pairs kept and mixed between batches (a multiple of the batch); 0: none", low=0
    )
    compatible: bool = option(
        False,
        help="as the reference: choices drawn once per batch, one gray noise pattern per batch, "
        "photons counted in the image, transposed JPEG luma table, zero JPEG borders",
    )

    def __post_init__(self) -> None:
        check(self)
        if self.shuffled is not None and self.stages:
            raise ConfigError("shuffled and stages: give one or the other")
        if self.shuffled is not None and self.compatible:
            raise ConfigError("compatible: the shuffled degradation has no such version")
