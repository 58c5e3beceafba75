"""A recipe: all that is done to one image, as plain numbers that can be stored and replayed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from realesr_cli.degrade.kernels import Kernel
from realesr_cli.errors import ConfigError
from realesr_cli.ops.resize import MODES
from realesr_cli.settings import check, from_plain, option, to_plain
from realesr_cli.text import did_you_mean

FORMAT = 1
STRIDE = "stride"


@dataclass(frozen=True)
class Sharpen:
    """Unsharp masking of the whole image, before anything else."""

    weight: float = option(0.5, help="share of the residual added", low=0)
    radius: int = option(50, help="width of the window in pixels", low=1)
    threshold: float = option(10.0, help="residual, of 255, that is sharpened", low=0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Filter:
    """Blur (or ring) by one kernel."""

    kernel: Kernel


@dataclass(frozen=True)
class Scale:
    """Resize to a size in pixels."""

    height: int = option(help="of the result", low=1)
    width: int = option(help="of the result", low=1)
    mode: str = option(help="interpolation", choices=(*MODES, STRIDE))
    factor: float = option(
        0.0, help="sampling step where it is not the ratio of the sizes; 0: it is", low=0
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class GaussianNoise:
    """Normal noise, then clamping."""

    sigma: float = option(help="standard deviation, of 255", low=0)
    gray: bool = option(help="the same for all channels")
    seed: int = option(help="of the noise", low=0)
    mix: tuple[float, ...] = option((), help="3x3 matrix on the channels, in place of sigma")

    def __post_init__(self) -> None:
        check(self)
        if len(self.mix) not in (0, 9):
            raise ConfigError(f"mix has {len(self.mix)} numbers: a 3x3 matrix has 9")


@dataclass(frozen=True)
class PoissonNoise:
    """Shot noise, then clamping."""

    scale: float = option(help="factor on the noise", low=0)
    gray: bool = option(help="the same for all channels")
    levels: int = option(help="photons at white; 0: counted in the image", low=0)
    seed: int = option(help="of the noise", low=0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Compress:
    """JPEG and back."""

    quality: float = option(help="of 100", above=0, high=100)
    encoder: str = option(
        "tensor", help="computed on tensors, or libjpeg itself", choices=("tensor", "libjpeg")
    )
    reference: bool = option(False, help="the reference's transposed luma table and zero borders")

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
    """Raise ConfigError if nothing is left of an image at this scale."""
    if min(height, width) < scale:
        raise ConfigError(
            f"an image of {height}x{width} (height x width) is too small for scale {scale}"
        )


@dataclass(frozen=True)
class Recipe:
    """What turns one ground truth of `height` x `width` pixels into its low-quality version.

    The result has `height // scale` x `width // scale` pixels.
    """

    scale: int = option(help="of the pair: ground truth over low quality", low=1)
    height: int = option(help="of the ground truth, pixels", low=1)
    width: int = option(help="of the ground truth, pixels", low=1)
    operations: tuple[Operation, ...] = option(help="in order")

    def __post_init__(self) -> None:
        check(self)
        check_size(self.height, self.width, self.scale)

    @property
    def lq_size(self) -> tuple[int, int]:
        """Height and width of the result in pixels."""
        return self.height // self.scale, self.width // self.scale

    def to_plain(self) -> dict[str, Any]:
        """Dicts, lists, strings and numbers; `from_plain` is the inverse."""
        operations = [{"op": _NAME_OF[type(op)], **to_plain(op)} for op in self.operations]
        return {
            "scale": self.scale,
            "height": self.height,
            "width": self.width,
            "operations": operations,
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Recipe:
        """A recipe from plain data; ConfigError for anything missing, unknown or out of range."""
        head = {key: value for key, value in data.items() if key != "operations"}
        listed = data.get("operations")
        if not isinstance(listed, list):
            raise ConfigError("a recipe has a list of operations")
        empty = from_plain(cls, {**head, "operations": []})
        operations = tuple(_operation(item, index) for index, item in enumerate(listed))
        return cls(empty.scale, empty.height, empty.width, operations)


def _operation(item: Any, index: int) -> Operation:
    where = f"operations[{index}]"
    if not isinstance(item, Mapping) or not isinstance(item.get("op"), str):
        raise ConfigError(f"{where}: expected a table with an op")
    name = item["op"]
    if name not in _NAMES:
        raise ConfigError(f"{where}: unknown op {name!r}{did_you_mean(name, list(_NAMES))}")
    rest = {key: value for key, value in item.items() if key != "op"}
    return from_plain(_NAMES[name], rest, where + ".")


def recipes_to_json(recipes: Sequence[Recipe]) -> str:
    """JSON text of one or several recipes; numbers keep every bit."""
    return json.dumps(
        {"format": FORMAT, "recipes": [recipe.to_plain() for recipe in recipes]}, indent=1
    )


def recipes_from_json(text: str) -> tuple[Recipe, ...]:
    """The inverse of `recipes_to_json`; ConfigError says what is wrong with other text."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not a recipe: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("recipes"), list):
        raise ConfigError("not a recipe: expected an object with a list of recipes")
    if data.get("format") != FORMAT:
        raise ConfigError(f"recipe format {data.get('format')!r}: this version reads {FORMAT}")
    if not data["recipes"]:
        raise ConfigError("the file holds no recipe")
    for item in data["recipes"]:
        if not isinstance(item, Mapping):
            raise ConfigError("not a recipe: every recipe is an object")
    return tuple(Recipe.from_plain(item) for item in data["recipes"])
