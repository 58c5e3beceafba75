"""Settings of a degradation: any number of stages, then the final resize and JPEG."""

from __future__ import annotations

import math
from dataclasses import dataclass

from realesr_cli.errors import ConfigError
from realesr_cli.ops.resize import MODES
from realesr_cli.settings import check, option

Range = tuple[float, float]

TORCH_MODES = ("area", "bilinear", "bicubic")

_TAPS = (7, 9, 11, 13, 15, 17, 19, 21)


def _check_ranges(settings: object, *names: str) -> None:
    for name in names:
        low, high = getattr(settings, name)
        if low > high:
            raise ConfigError(f"{name} = [{low:g}, {high:g}]: expected the lower limit first")


def _check_sizes(name: str, sizes: tuple[int, ...]) -> None:
    if not sizes or any(size % 2 == 0 for size in sizes):
        raise ConfigError(f"{name} = {list(sizes)}: expected one or more odd numbers")


def _check_modes(modes: tuple[str, ...]) -> None:
    if not modes:
        raise ConfigError("modes: expected at least one interpolation")


@dataclass(frozen=True)
class KernelWeights:
    """Relative frequencies of the kernels other than sinc; they need not sum to one."""

    iso: float = option(0.45, help="Isotropic Gaussian.", low=0)
    aniso: float = option(0.25, help="Anisotropic Gaussian.", low=0)
    generalized_iso: float = option(0.12, help="Isotropic generalized Gaussian.", low=0)
    generalized_aniso: float = option(0.03, help="Anisotropic generalized Gaussian.", low=0)
    plateau_iso: float = option(0.12, help="Isotropic plateau.", low=0)
    plateau_aniso: float = option(0.03, help="Anisotropic plateau.", low=0)

    def __post_init__(self) -> None:
        check(self)
        if not 0 < sum(vars(self).values()) < math.inf:
            raise ConfigError("kernels: expected at least one finite weight above 0")


@dataclass(frozen=True)
class Blur:
    """Blur of one stage."""

    probability: float = option(1.0, help="Probability of blurring.", low=0, high=1)
    sinc: float = option(0.1, help="Fraction of sinc (ringing) kernels.", low=0, high=1)
    kernels: KernelWeights = option(KernelWeights(), help="Weights of the other kernels.")
    sizes: tuple[int, ...] = option(
        _TAPS, help="Kernel sizes in pixels, equally likely.", low=1, high=255
    )
    sigma: Range = option((0.2, 3.0), help="Standard deviation in pixels.", above=0, high=1e3)
    rotation: Range = option(
        (-math.pi, math.pi), help="Rotation of anisotropic kernels in radians.", low=-100, high=100
    )
    beta_generalized: Range = option(
        (0.5, 4.0), help="Exponent of generalized Gaussian kernels.", above=0, high=100
    )
    beta_plateau: Range = option((1.0, 2.0), help="Exponent of plateau kernels.", above=0, high=100)
    beta_sampling: str = option(
        "split",
        choices=("split", "uniform", "nested"),
        help="How exponents are drawn. split: half below 1, half above (Real-ESRGAN's code); "
        "uniform: uniformly (its paper); nested: between 1 and a uniform number (MMagic).",
    )

    def __post_init__(self) -> None:
        check(self)
        _check_ranges(self, "sigma", "rotation", "beta_generalized", "beta_plateau")
        _check_sizes("sizes", self.sizes)


@dataclass(frozen=True)
class Resize:
    """Random resize of one stage."""

    up: float = option(0.2, help="Weight of enlarging.", low=0)
    down: float = option(0.7, help="Weight of shrinking.", low=0)
    keep: float = option(0.1, help="Weight of keeping the size.", low=0)
    scale: Range = option((0.15, 1.5), help="Smallest and largest factor.", above=0, high=16)
    modes: tuple[str, ...] = option(
        TORCH_MODES, help="Interpolations, equally likely.", choices=MODES
    )
    relative_to: str = option(
        "current",
        choices=("current", "lq"),
        help="Size that the factor multiplies: the current one, or the final low-quality size.",
    )

    def __post_init__(self) -> None:
        check(self)
        _check_ranges(self, "scale")
        if not 0 < self.up + self.down + self.keep < math.inf:
            raise ConfigError("up, down, keep: expected at least one finite weight above 0")
        if (self.up and self.scale[1] < 1) or (self.down and self.scale[0] > 1):
            raise ConfigError(f"scale = {list(self.scale)}: expected a range that includes 1")
        _check_modes(self.modes)


@dataclass(frozen=True)
class Noise:
    """Noise of one stage."""

    probability: float = option(1.0, help="Probability of adding noise.", low=0, high=1)
    gaussian: float = option(
        0.5, help="Fraction of Gaussian noise; the rest is Poisson.", low=0, high=1
    )
    sigma: Range = option(
        (1.0, 30.0), help="Standard deviation of Gaussian noise, of 255.", low=0, high=1e4
    )
    poisson_scale: Range = option((0.05, 3.0), help="Strength of Poisson noise.", low=0, high=1e4)
    levels: int = option(
        256, help="Photons at white; 0: number of levels in the image.", low=0, high=2**24
    )
    gray: float = option(0.4, help="Fraction of noise equal in all channels.", low=0, high=1)

    def __post_init__(self) -> None:
        check(self)
        _check_ranges(self, "sigma", "poisson_scale")


@dataclass(frozen=True)
class Jpeg:
    """JPEG compression, of one stage or at the end."""

    probability: float = option(1.0, help="Probability of compressing.", low=0, high=1)
    quality: Range = option((30.0, 95.0), help="Quality.", above=0, high=100)
    encoder: str = option(
        "tensor",
        choices=("tensor", "libjpeg"),
        help="tensor: computed on tensors, real-valued quality, any device; libjpeg: the library, "
        "integer quality, on the CPU.",
    )

    def __post_init__(self) -> None:
        check(self)
        _check_ranges(self, "quality")


@dataclass(frozen=True)
class Stage:
    """One round of the classical degradation: blur, resize, noise, JPEG, in this order."""

    blur: Blur = option(Blur(), help="Blur.")
    resize: Resize = option(Resize(), help="Resize.")
    noise: Noise = option(Noise(), help="Noise.")
    jpeg: Jpeg = option(Jpeg(), help="JPEG compression.")


@dataclass(frozen=True)
class Final:
    """Resize to the low-quality size with ringing, and JPEG, in either order; then rounding."""

    modes: tuple[str, ...] = option(
        TORCH_MODES, help="Interpolations, equally likely.", choices=MODES
    )
    sinc: float = option(0.8, help="Probability of a sinc filter after the resize.", low=0, high=1)
    sinc_sizes: tuple[int, ...] = option(_TAPS, help="Its kernel sizes in pixels.", low=1, high=255)
    jpeg: Jpeg = option(Jpeg(), help="JPEG compression.")
    jpeg_last: float = option(
        0.5, help="Probability that JPEG follows the resize instead of preceding it.", low=0, high=1
    )

    def __post_init__(self) -> None:
        check(self)
        _check_modes(self.modes)
        _check_sizes("sinc_sizes", self.sinc_sizes)


@dataclass(frozen=True)
class Shuffled:
    """BSRGAN's degradation: two blurs, two downscales, noise and JPEG in random order.

    Source: Zhang et al. 2021, "Designing a Practical Degradation Model", sections 3 and 4, with the
    numbers of its published code; its simulated camera pipeline was not published and is left out.
    """

    halve: float = option(0.25, help="Probability of halving first (scale 4).", low=0, high=1)
    aniso: float = option(0.5, help="Fraction of anisotropic blur.", low=0, high=1)
    sizes: tuple[int, ...] = option(
        (*_TAPS, 23, 25), help="Kernel sizes in pixels, equally likely.", low=1, high=255
    )
    resample: float = option(
        0.75, help="Fraction of plain resizing; otherwise blur and every n-th pixel.", low=0, high=1
    )
    modes: tuple[str, ...] = option(
        ("bilinear", "bicubic", "box"), help="Interpolations, equally likely.", choices=MODES
    )
    sigma: tuple[int, int] = option(
        (2, 25), help="Standard deviation of Gaussian noise, of 255.", low=0, high=10_000
    )
    gray: float = option(0.4, help="Fraction of noise equal in all channels.", low=0, high=1)
    correlated: float = option(
        0.2, help="Fraction of noise correlated between channels.", low=0, high=1
    )
    jpeg: float = option(0.9, help="Probability of the shuffled JPEG.", low=0, high=1)
    quality: tuple[int, int] = option((30, 95), help="Quality of both JPEGs.", low=1, high=100)

    def __post_init__(self) -> None:
        check(self)
        _check_ranges(self, "sigma", "quality")
        _check_sizes("sizes", self.sizes)
        _check_modes(self.modes)
        if self.gray + self.correlated > 1:
            raise ConfigError(
                f"gray + correlated = {self.gray + self.correlated:g}: must be at most 1"
            )


@dataclass(frozen=True)
class DegradationConfig:
    """What turns a ground truth into its low-quality version."""

    stages: tuple[Stage, ...] = option((), help="Stages in order; two: second-order degradation.")
    final: Final = option(Final(), help="Final resize and JPEG.")
    shuffled: Shuffled | None = option(
        None, help="BSRGAN's degradation instead of stages and final."
    )
    usm: bool = option(False, help="Start from the sharpened ground truth.")
    usm_weight: float = option(
        0.5, help="Sharpening: fraction of the residual added.", low=0, high=100
    )
    usm_radius: int = option(50, help="Sharpening: window size in pixels.", low=1, high=501)
    usm_threshold: float = option(
        10.0, help="Sharpening: smallest residual sharpened, of 255.", low=0
    )
    pool: int = option(
        0,
        help="Pairs kept and mixed between batches, a multiple of the batch size; 0: no pool.",
        low=0,
        high=2**20,
    )
    compatible: bool = option(
        False,
        help="As the reference: choices shared per batch, one gray noise pattern per batch, "
        "photons counted in the image, transposed JPEG luma table, zero JPEG borders.",
    )

    def __post_init__(self) -> None:
        check(self)
        if self.shuffled is not None and self.stages:
            raise ConfigError("shuffled and stages: expected one of them, got both")
        if self.shuffled is not None and self.compatible:
            raise ConfigError("compatible: not available for the shuffled degradation")
