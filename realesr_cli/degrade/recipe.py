"""A recipe: everything done to one image, as plain numbers to store, replay and print."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from realesr_cli.degrade.kernels import GENERALIZED, PLATEAUS, Kernel
from realesr_cli.errors import ConfigError
from realesr_cli.ops.resize import MODES
from realesr_cli.settings import check, from_plain, option, to_plain
from realesr_cli.text import did_you_mean, format_value

FORMAT = 1
STRIDE = "stride"

MAX_SIDE = 2**20
"""Largest height or width, in pixels, that a recipe may resize to."""

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Sharpen:
    """Unsharp masking of the whole image, before anything else."""

    weight: float = option(0.5, help="Fraction of the residual added.", low=0, high=100)
    radius: int = option(50, help="Window size in pixels.", low=1, high=501)
    threshold: float = option(10.0, help="Smallest residual sharpened, of 255.", low=0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Filter:
    """Blur (or ring) by one kernel."""

    kernel: Kernel


@dataclass(frozen=True)
class Scale:
    """Resize to a size in pixels."""

    height: int = option(help="Height of the result.", low=1, high=MAX_SIDE)
    width: int = option(help="Width of the result.", low=1, high=MAX_SIDE)
    mode: str = option(help="Interpolation.", choices=(*MODES, STRIDE))
    factor: float = option(
        0.0, help="Sampling factor; 0: the ratio of the sizes.", low=0, high=MAX_SIDE
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class GaussianNoise:
    """Normal noise, then clamping."""

    sigma: float = option(help="Standard deviation, of 255.", low=0, high=1e6)
    gray: bool = option(help="Same noise in all channels.")
    seed: int = option(help="Random seed.", low=0, high=MAX_SEED)
    mix: tuple[float, ...] = option((), help="3x3 matrix on the channels, instead of sigma.")

    def __post_init__(self) -> None:
        check(self)
        if len(self.mix) not in (0, 9):
            raise ConfigError(f"mix: expected 9 numbers (a 3x3 matrix), got {len(self.mix)}")


@dataclass(frozen=True)
class PoissonNoise:
    """Shot noise, then clamping."""

    scale: float = option(help="Strength.", low=0, high=1e6)
    gray: bool = option(help="Same noise in all channels.")
    levels: int = option(
        help="Photons at white; 0: number of levels in the image.", low=0, high=2**24
    )
    seed: int = option(help="Random seed.", low=0, high=MAX_SEED)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Compress:
    """JPEG compression and decompression."""

    quality: float = option(help="Quality.", above=0, high=100)
    encoder: str = option(
        "tensor", help="Computed on tensors, or libjpeg.", choices=("tensor", "libjpeg")
    )
    reference: bool = option(False, help="The reference's transposed luma table and zero borders.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Round:
    """Clamp and round to 8 bit."""


Operation = Sharpen | Filter | Scale | GaussianNoise | PoissonNoise | Compress | Round

_NAMES: dict[str, type[Operation]] = {
    "sharpen": Sharpen,
    "filter": Filter,
    "resize": Scale,
    "gaussian-noise": GaussianNoise,
    "poisson-noise": PoissonNoise,
    "jpeg": Compress,
    "round": Round,
}
_NAME_OF = {cls: name for name, cls in _NAMES.items()}


def check_size(height: int, width: int, scale: int) -> None:
    """Raise ConfigError if no pixel of an image is left at this scale."""
    if min(height, width) < scale:
        raise ConfigError(
            f"an image of {height}x{width} (height x width) is too small for scale {scale}"
        )


@dataclass(frozen=True)
class Recipe:
    """Operations that turn one ground truth of `height` x `width` pixels into its LQ version.

    The result has `height // scale` x `width // scale` pixels.
    """

    scale: int = option(help="Ground-truth size over low-quality size.", low=1, high=64)
    height: int = option(help="Height of the ground truth in pixels.", low=1, high=MAX_SIDE)
    width: int = option(help="Width of the ground truth in pixels.", low=1, high=MAX_SIDE)
    operations: tuple[Operation, ...] = option(help="Operations in order.")

    def __post_init__(self) -> None:
        check(self)
        check_size(self.height, self.width, self.scale)

    @property
    def lq_size(self) -> tuple[int, int]:
        """Height and width of the result in pixels."""
        return self.height // self.scale, self.width // self.scale

    def to_plain(self) -> dict[str, Any]:
        """Return dicts, lists, strings and numbers; `from_plain` is the inverse."""
        operations = [{"op": _NAME_OF[type(op)], **to_plain(op)} for op in self.operations]
        return {
            "scale": self.scale,
            "height": self.height,
            "width": self.width,
            "operations": operations,
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Recipe:
        """Build a recipe from plain data; ConfigError for anything missing, unknown or invalid."""
        head = {key: value for key, value in data.items() if key != "operations"}
        listed = data.get("operations")
        if not isinstance(listed, list):
            raise ConfigError("recipe: expected a list of operations")
        empty = from_plain(cls, {**head, "operations": []})
        operations = tuple(_parse_operation(item, index) for index, item in enumerate(listed))
        return cls(empty.scale, empty.height, empty.width, operations)


def _parse_operation(item: Any, index: int) -> Operation:
    where = f"operations[{index}]"
    if not isinstance(item, Mapping) or not isinstance(item.get("op"), str):
        raise ConfigError(f"{where}: expected a table with the key op")
    name = item["op"]
    if name not in _NAMES:
        raise ConfigError(
            f"{where}: unknown op {format_value(name)}{did_you_mean(name, list(_NAMES))}"
        )
    rest = {key: value for key, value in item.items() if key != "op"}
    return from_plain(_NAMES[name], rest, where + ".")


def recipes_to_plain(recipes: Sequence[Recipe]) -> dict[str, Any]:
    """Return one or several recipes as plain data for a JSON file; numbers keep every bit."""
    return {"format": FORMAT, "recipes": [recipe.to_plain() for recipe in recipes]}


def recipes_from_plain(data: Any) -> tuple[Recipe, ...]:
    """Return the recipes of `recipes_to_plain`; ConfigError says what is wrong with other data."""
    if not isinstance(data, dict) or not isinstance(data.get("recipes"), list):
        raise ConfigError("not a recipe: expected an object with a list of recipes")
    if data.get("format") != FORMAT:
        raise ConfigError(
            f"recipe format: expected {FORMAT}, got {format_value(data.get('format'))}"
        )
    if not data["recipes"]:
        raise ConfigError("not a recipe: the list of recipes is empty")
    for item in data["recipes"]:
        if not isinstance(item, Mapping):
            raise ConfigError("not a recipe: expected every recipe to be an object")
    return tuple(Recipe.from_plain(item) for item in data["recipes"])


_SHAPES = {
    "iso": "Gaussian",
    "aniso": "anisotropic Gaussian",
    "generalized_iso": "generalized Gaussian",
    "generalized_aniso": "anisotropic generalized Gaussian",
    "plateau_iso": "plateau",
    "plateau_aniso": "anisotropic plateau",
}


def describe(recipe: Recipe) -> list[str]:
    """Return a line per operation: `blur     Gaussian 13x13, sigma 1.21`."""
    lines = []
    for operation in recipe.operations:
        if isinstance(operation, Filter) and operation.kernel.kind == "none":
            continue
        label, text = _describe_operation(operation)
        lines.append(f"{label:8} {text}")
    return lines


def _describe_operation(operation: Operation) -> tuple[str, str]:
    if isinstance(operation, Sharpen):
        text = f"weight {operation.weight:g}, radius {operation.radius}"
        return "sharpen", f"{text}, threshold {operation.threshold:g}"
    if isinstance(operation, Filter):
        kernel = operation.kernel
        return ("ringing" if kernel.kind == "sinc" else "blur"), _describe_kernel(kernel)
    if isinstance(operation, Scale):
        return "resize", f"to {operation.width}x{operation.height}, {operation.mode}"
    if isinstance(operation, GaussianNoise):
        if operation.mix:
            return "noise", "Gaussian with correlated channels"
        color = "gray" if operation.gray else "color"
        return "noise", f"{color} Gaussian, sigma {operation.sigma:.1f} of 255"
    if isinstance(operation, PoissonNoise):
        color = "gray" if operation.gray else "color"
        return "noise", f"{color} Poisson, strength {operation.scale:.2f}"
    if isinstance(operation, Compress):
        encoder = " (libjpeg)" if operation.encoder == "libjpeg" else ""
        return "jpeg", f"quality {operation.quality:.0f}{encoder}"
    assert isinstance(operation, Round)
    return "round", "to 8 bit"


def _describe_kernel(kernel: Kernel) -> str:
    size = f"{kernel.size}x{kernel.size}"
    if kernel.kind == "sinc":
        return f"sinc {size}, cut-off at {kernel.cutoff / math.pi:.2f} of the Nyquist frequency"
    text = f"{_SHAPES[kernel.kind]} {size}, sigma {kernel.sigma_x:.2f}"
    if kernel.kind.endswith("aniso"):
        degrees = math.degrees(kernel.theta) % 180
        text += f" and {kernel.sigma_y:.2f}, rotated by {degrees:.0f} degrees"
    if kernel.kind in GENERALIZED + PLATEAUS:
        text += f", exponent {kernel.beta:.2f}"
    return text
