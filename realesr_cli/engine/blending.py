"""Image interpolation: the images of two networks of one scale, mixed pixel by pixel."""

from __future__ import annotations

from torch import Tensor

from realesr_cli.engine.guard import Forward
from realesr_cli.errors import ConfigError

DEFAULT_SHARE = 0.5
"""Share of the second network's image where none is given."""


def blend_forwards(first: Forward, second: Forward, share: float) -> Forward:
    """(1 - share) of the first's image plus `share` of the second's, in float.

    Each is clamped to [0, 1] before, as it would be alone. Memory running out or numbers
    overflowing in one network is its own guard's business. Source: "ESRGAN" (2018), section 3.4,
    where this is compared with network interpolation.
    """

    def mixed(x: Tensor) -> Tensor:
        y = first(x).clamp_(0, 1)
        other = second(x).clamp_(0, 1).to(y.device)
        return y.lerp_(other, share)

    return mixed


def require_same_scale(first: tuple[str, int], second: tuple[str, int]) -> None:
    """Raise ConfigError where two networks, each a name and its scale, cannot be blended."""
    if first[1] != second[1]:
        raise ConfigError(
            f"{second[0]} is an x{second[1]} network and {first[0]} an x{first[1]} one: only "
            "networks of the same scale can be blended"
        )
