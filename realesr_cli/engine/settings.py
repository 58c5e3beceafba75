"""What the caller may choose: how the result shall look, and how the machine shall work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from realesr_cli.errors import ConfigError, UnsupportedImageError
from realesr_cli.settings import check, option


@dataclass(frozen=True)
class UpscaleSettings:
    """How the result shall look. At most one of scale, width/height, fit and max_side."""

    scale: float | None = option(
        None, help="Output size over input size; the model's own if not given.", above=0, high=64
    )
    width: int | None = option(None, help="Output width in pixels.", low=1)
    height: int | None = option(None, help="Output height in pixels.", low=1)
    fit: tuple[int, int] | None = option(
        None, help="Largest output (width, height) that keeps the proportions.", low=1
    )
    max_side: int | None = option(None, help="Longer side of the output in pixels.", low=1)
    alpha: Literal["model", "resize"] = option(
        "model",
        help="How transparency is enlarged: by the network, or resampled.",
        choices=("model", "resize"),
    )
    tta: bool = option(False, help="Average over 8 flips and rotations: 8 times slower.")
    strength: float = option(
        1.0, help="1 is the network's image, 0 the plainly resampled one.", low=0, high=1
    )
    color_fix: bool = option(False, help="Take large-scale color from the input.")
    blend: float | None = option(
        None,
        help="Share of the second model's image in the result; 0.5 if not given, 0 is the first "
        "model alone.",
        low=0,
        high=1,
    )
    back_project: int = option(
        0,
        help="Iterations that correct the result until, reduced again, it is the input: for clean "
        "reduced images, since noise and JPEG traces come back too; 20 is usual, 0 is off.",
        low=0,
        high=100,
    )
    back_project_kernel: Literal["gaussian", "reverse"] | None = option(
        None,
        help="Filter of each correction: gaussian, which is taken if not given, or reverse: none, "
        "with which fewer iterations do.",
        choices=("gaussian", "reverse"),
    )

    def __post_init__(self) -> None:
        check(self)
        self._check_back_projection()
        by_size = self.width is not None or self.height is not None
        ways = [self.scale is not None, by_size, self.fit is not None, self.max_side is not None]
        if sum(ways) > 1:
            raise ConfigError("give only one of scale, width/height, fit and max-side")

    def _check_back_projection(self) -> None:
        if self.back_project and self.scale is not None and self.scale <= 1:
            raise ConfigError(
                f"back_project = {self.back_project} with scale = {self.scale:g}: only a result "
                "larger than its input can be corrected; leave one of them away"
            )
        if self.back_project_kernel is not None and not self.back_project:
            raise ConfigError(
                f"back_project_kernel = {self.back_project_kernel!r} without back_project: "
                "say how many iterations, as in --back-project 20"
            )

    @property
    def kernel(self) -> str:
        """The filter of back-projection, whether given or not."""
        return self.back_project_kernel or "gaussian"


@dataclass(frozen=True)
class EngineSettings:
    """How the machine shall work; "auto" is decided by `policy.choose`."""

    device: str = option("auto", help="auto, cpu, cuda, cuda:N, mps or xpu.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", help="Number format inside the network.", choices=("auto", "fp32", "bf16", "fp16")
    )
    tile: int | Literal["auto"] = option(
        "auto", help="Core of a tile in input pixels; 0 is the whole image.", low=0
    )
    overlap: int | Literal["auto"] = option(
        "auto", help="Input pixels that a tile sees beyond its core.", low=0
    )
    batch: int | Literal["auto"] = option("auto", help="Tiles computed at a time.", low=1)
    threads: int | None = option(
        None, help="Processor threads; those of torch if not given.", low=1
    )

    def __post_init__(self) -> None:
        check(self)
        for name in ("tile", "overlap", "batch"):
            value = getattr(self, name)
            if isinstance(value, str) and value != "auto":
                raise ConfigError(f"{name} = {value!r}: must be a number of pixels or 'auto'")


def output_size(settings: UpscaleSettings, size: tuple[int, int], own: int) -> tuple[int, int]:
    """Height and width of the result for an input (height, width); `own` is the model's scale.

    Sizes are rounded to the nearest pixel (halves up), never below 1. Raises UnsupportedImage
    where back-projection is asked for and the result is not larger.
    """
    out = _asked_size(settings, size, own)
    if settings.back_project and not (out[0] > size[0] and out[1] > size[1]):
        raise UnsupportedImageError(
            f"an image of {size[1]}x{size[0]} would become {out[1]}x{out[0]}, and back-projection "
            "only corrects results that are larger both ways: ask for a larger size, or leave "
            "--back-project away"
        )
    return out


def _asked_size(settings: UpscaleSettings, size: tuple[int, int], own: int) -> tuple[int, int]:
    height, width = size
    if settings.fit is not None:
        factor = min(settings.fit[0] / width, settings.fit[1] / height)
    elif settings.max_side is not None:
        factor = settings.max_side / max(height, width)
    elif settings.width is not None and settings.height is not None:
        return settings.height, settings.width
    elif settings.width is not None:
        return _rounded(height * settings.width / width), settings.width
    elif settings.height is not None:
        return settings.height, _rounded(width * settings.height / height)
    else:
        factor = settings.scale if settings.scale is not None else float(own)
    return _rounded(height * factor), _rounded(width * factor)


def _rounded(value: float) -> int:
    # Products such as 3 * 1.1 carry a float error of some 1e-16; it must not decide a half.
    return max(1, int(value + 0.5 + 1e-9))
