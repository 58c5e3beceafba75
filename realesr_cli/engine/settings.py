"""Settings of the engine: output options and execution options."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, Literal

from realesr_cli.errors import ConfigError, UnsupportedImageError
from realesr_cli.settings import check, option

DEFAULT_SHARE = 0.5
"""Share of the second model's image where two are blended and none is given."""


@dataclass(frozen=True)
class UpscaleSettings:
    """Output options. At most one of scale, width/height, fit and max_side."""

    scale: float | None = option(
        None, help="Output size over input size; default: the model's own.", above=0, high=64
    )
    width: int | None = option(None, help="Output width in pixels.", low=1)
    height: int | None = option(None, help="Output height in pixels.", low=1)
    fit: tuple[int, int] | None = option(
        None, help="Largest output (width, height) that keeps the aspect ratio.", low=1
    )
    max_side: int | None = option(None, help="Longer side of the output in pixels.", low=1)
    alpha: Literal["model", "resize", "keep"] = option(
        "model",
        help="Alpha channel: upscaled by the model or resized, after color was spread under "
        "transparent pixels; keep: upscaled by the model, independently of color.",
        choices=("model", "resize", "keep"),
    )
    pad: Literal["none", "wrap"] = option(
        "none",
        help="Beyond the edges: none for nothing, wrap for the opposite edge (seamless textures).",
        choices=("none", "wrap"),
    )
    tta: bool = option(
        False, help="Test-time augmentation: average over 8 flips and rotations, 8 times slower."
    )
    strength: float = option(
        1.0,
        help="Blend with the resized input: 1 is the model's image, 0 the input.",
        low=0,
        high=1,
    )
    color_fix: bool = option(False, help="Take large-scale color from the input.")
    blend: float | None = option(
        None,
        help="Share of the second model's image: 0 is the first model alone; default: 0.5.",
        low=0,
        high=1,
    )
    back_project: int = option(
        0,
        help="Iterations of back-projection, after which the downscaled result matches the input; "
        "for clean inputs only, usually 20; 0 disables it.",
        low=0,
        high=100,
    )
    back_project_kernel: Literal["gaussian", "reverse"] | None = option(
        None,
        help="Filter of each correction: gaussian (default), or reverse for none, which needs "
        "fewer iterations.",
        choices=("gaussian", "reverse"),
    )

    def __post_init__(self) -> None:
        _require_numbers(self, ("scale", "strength", "blend"), numbers.Real)
        _require_numbers(self, ("width", "height", "max_side", "back_project"), numbers.Integral)
        if self.fit is not None and not (
            isinstance(self.fit, tuple)
            and len(self.fit) == 2
            and all(isinstance(side, numbers.Integral) for side in self.fit)
        ):
            raise ConfigError(f"fit = {self.fit!r}: expected (width, height) in pixels")
        check(self)
        self._check_back_projection()
        by_size = self.width is not None or self.height is not None
        given = [self.scale is not None, by_size, self.fit is not None, self.max_side is not None]
        if sum(given) > 1:
            raise ConfigError("scale, width/height, fit and max_side exclude each other: give one")

    def _check_back_projection(self) -> None:
        if self.back_project and self.scale is not None and self.scale <= 1:
            raise ConfigError(
                f"back_project = {self.back_project} with scale = {self.scale:g}: only a result "
                "larger than its input can be corrected; omit one of them"
            )
        if self.back_project and self.pad == "wrap":
            raise ConfigError(
                f"back_project = {self.back_project} with pad = 'wrap': the correction does not "
                "wrap around the edges; omit one of them"
            )
        if self.back_project_kernel is not None and not self.back_project:
            raise ConfigError(
                f"back_project_kernel = {self.back_project_kernel!r} needs back_project, the "
                "number of iterations (20 is usual)"
            )

    @property
    def kernel(self) -> str:
        """The kernel of back-projection, given or default."""
        return self.back_project_kernel or "gaussian"


@dataclass(frozen=True)
class EngineSettings:
    """Execution options; "auto" is decided by `policy.choose`."""

    device: str = option("auto", help="auto, cpu, cuda, cuda:N, mps, xpu, vulkan or vulkan:N.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", help="Floating-point type inside the network.",
        choices=("auto", "fp32", "bf16", "fp16"),
    )  # fmt: skip
    tile: int | Literal["auto"] = option(
        "auto",
        help="Tile size in input pixels, without overlap; 0 processes the whole image at once.",
        low=0,
    )
    overlap: int | Literal["auto"] = option(
        "auto", help="Overlap of tiles in input pixels, on each side.", low=0
    )
    batch: int | Literal["auto"] = option("auto", help="Tiles per batch.", low=1)
    threads: int | None = option(None, help="CPU threads; default: as many as torch uses.", low=1)
    memory: int | None = option(
        None,
        help="Main memory to stay within, e.g. 1.5G; default: what is free. Lower values make "
        "tiles smaller and read large images in parts.",
        low=2**28,
        size=True,
    )
    backend: str = option(
        "auto", help="What runs the network: auto, torch, onednn, openvino, onnxruntime or ncnn."
    )

    def __post_init__(self) -> None:
        check(self)
        for name in ("tile", "overlap", "batch"):
            if getattr(self, name) != "auto":
                _require_numbers(self, (name,), numbers.Integral, " or 'auto'")
        _require_numbers(self, ("threads", "memory"), numbers.Integral)


def _require_numbers(settings: Any, names: tuple[str, ...], kind: type, more: str = "") -> None:
    """Raise ConfigError for a field that is neither None nor a number of this kind."""
    expected = "an integer" if kind is numbers.Integral else "a number"
    for name in names:
        value = getattr(settings, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            raise ConfigError(f"{name} = {value!r}: expected {expected}{more}")


def output_size(settings: UpscaleSettings, size: tuple[int, int], own: int) -> tuple[int, int]:
    """Return (height, width) of the result for an input (height, width) and a model's own scale.

    Sizes are rounded to the nearest pixel (halves up), never below 1. Raises UnsupportedImageError
    where back-projection is requested and the result is not larger.
    """
    out = _requested_size(settings, size, own)
    if settings.back_project and not (out[0] > size[0] and out[1] > size[1]):
        raise UnsupportedImageError(
            f"{size[1]}x{size[0]} would become {out[1]}x{out[0]}, and back-projection only "
            "corrects results larger than the input in both directions: request a larger size, or "
            "omit back_project"
        )
    return out


def _requested_size(settings: UpscaleSettings, size: tuple[int, int], own: int) -> tuple[int, int]:
    height, width = size
    if settings.fit is not None:
        factor = min(settings.fit[0] / width, settings.fit[1] / height)
    elif settings.max_side is not None:
        factor = settings.max_side / max(height, width)
    elif settings.width is not None and settings.height is not None:
        return settings.height, settings.width
    elif settings.width is not None:
        return _round_size(height * settings.width / width), settings.width
    elif settings.height is not None:
        return settings.height, _round_size(width * settings.height / height)
    else:
        factor = settings.scale if settings.scale is not None else float(own)
    return _round_size(height * factor), _round_size(width * factor)


def _round_size(value: float) -> int:
    # Products such as 3 * 1.1 carry a float error of some 1e-16; it must not decide a half.
    return max(1, int(value + 0.5 + 1e-9))
