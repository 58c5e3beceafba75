"""Forwards: the functions that compute a tile, how they combine, and how far they see."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from realesr_cli.errors import ConfigError

Forward = Callable[[Tensor], Tensor]
"""Enlarge a tile: (B, 3, h, w) float32 in [0, 1], on the CPU, to (B, 3, h * scale, w * scale)
float32 on any device, not clamped. The result is the caller's to change in place. Safe to call from
several threads at once.
"""

CONTEXTS = (8, 12, 16, 24, 32, 48, 64)
"""Contexts that `measure_context` tries, in input pixels."""

CONTEXT_TOLERANCE = 0.5 / 255
"""Change of an output pixel that counts as none: half a level of 8 bits."""

_EDGE, _ROWS = 16, 40


def open_lazily(open_forward: Callable[[], Forward]) -> Forward:
    """Return a Forward that is opened at its first call: most fallbacks are never needed."""
    lock = threading.Lock()
    opened: list[Forward] = []

    def forward(x: Tensor) -> Tensor:
        with lock:
            if not opened:
                opened.append(open_forward())
        return opened[0](x)

    return forward


def add_tta(forward: Forward) -> Forward:
    """Return the mean of `forward` over the 8 flips and rotations (test-time augmentation).

    Source: Timofte et al., "Seven ways to improve example-based single image super resolution"
    (2016), section 3.5, there called enhanced prediction.
    """

    def averaged(x: Tensor) -> Tensor:
        total = _flip_back(forward(_flip(x, 0)), 0)
        for orientation in range(1, 8):
            total += _flip_back(forward(_flip(x, orientation)), orientation)
        return total.div_(8)

    return averaged


def _flip(x: Tensor, orientation: int) -> Tensor:
    """Flip columns (bit 0) and rows (bit 1), then transpose (bit 2)."""
    x = x.flip(3) if orientation & 1 else x
    x = x.flip(2) if orientation & 2 else x
    return (x.transpose(2, 3) if orientation & 4 else x).contiguous()


def _flip_back(y: Tensor, orientation: int) -> Tensor:
    y = y.transpose(2, 3) if orientation & 4 else y
    y = y.flip(2) if orientation & 2 else y
    return (y.flip(3) if orientation & 1 else y).clone()


def blend(first: Forward, second: Forward, share: float) -> Forward:
    """Return (1 - share) of the first Forward plus `share` of the second, in float.

    Each is clamped to [0, 1] first, as it would be alone. Source: "ESRGAN" (2018), section 3.4,
    which compares this image interpolation with network interpolation.
    """

    def blended(x: Tensor) -> Tensor:
        y = first(x).clamp_(0, 1)
        other = second(x).clamp_(0, 1).to(y.device)
        return y.lerp_(other, share)

    return blended


def require_same_scale(first: tuple[str, int], second: tuple[str, int]) -> None:
    """Raise ConfigError where two networks, each (name, scale), cannot be blended."""
    if first[1] != second[1]:
        raise ConfigError(
            f"cannot blend {second[0]} (x{second[1]}) with {first[0]} (x{first[1]}): expected two "
            "networks of the same scale"
        )


def measure_context(forward: Forward, scale: int, multiple: int = 1) -> int:
    """Measure how many input pixels of context `forward` needs around a tile.

    A 23-block RRDBNet can depend on 349 pixels to each side, but the effect of a far pixel is
    below the eighth bit. A fixed test pattern is cut ever farther from the pixels that are
    compared; the first context that changes none of them by CONTEXT_TOLERANCE is returned, else
    the largest one tried. The result depends on the weights only.
    """
    far = max(CONTEXTS) + 32
    far += -far % multiple
    pattern = reference_pattern(_ROWS - _ROWS % multiple, far + _EDGE)
    whole = forward(pattern)[..., far * scale :].clamp(0, 1)
    for context in CONTEXTS:
        context += -context % multiple
        near = forward(pattern[..., far - context :])[..., context * scale :].clamp(0, 1)
        if float((near - whole).abs().max()) < CONTEXT_TOLERANCE:
            return context
    return max(CONTEXTS)


def reference_pattern(height: int, width: int) -> Tensor:
    """Return (1, 3, height, width) in [0, 1]: noise of several sizes with hard edges, fixed."""
    generator = torch.Generator().manual_seed(20240229)
    total = torch.zeros(1, 3, height, width)
    for size in (1, 2, 4, 8, 16):
        small = torch.rand(1, 3, -(-height // size), -(-width // size), generator=generator) - 0.5
        layer = F.interpolate(small, scale_factor=size, mode="nearest")
        total += layer[..., :height, :width]
    return (total / 2.5 + 0.5).clamp(0, 1)
