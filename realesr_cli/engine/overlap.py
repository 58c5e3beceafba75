"""How much overlap a network needs in effect: measured, since the receptive field says too much.

A 23-block RRDBNet can depend on 349 pixels to each side, but what a far pixel changes is lost in
the eighth bit. The measurement cuts one side of a fixed test pattern ever closer and asks when the
rest of the result changes by half a level of 255.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realesr_cli.engine.guard import Forward

CANDIDATES = (8, 12, 16, 24, 32, 48, 64)
"""Contexts tried, in input pixels, in this order; the first good one is taken."""

TOLERANCE = 0.5 / 255
"""Largest change of an output pixel that is taken for none: half a level of 8 bits."""

BLEND = 8
"""Input pixels on each side of a boundary over which two tiles are mixed."""

_CORE, _ROWS = 16, 40


def measure_context(forward: Forward, scale: int, multiple: int = 1) -> int:
    """Input pixels of context at which the result of `forward` no longer changes.

    The largest candidate if none is enough; the pattern is fixed, so the answer depends on the
    weights only.
    """
    far = max(CANDIDATES) + 32
    far += -far % multiple
    pattern = reference_pattern(_ROWS - _ROWS % multiple, far + _CORE)
    whole = forward(pattern)[..., far * scale :].clamp(0, 1)
    for context in CANDIDATES:
        context += -context % multiple
        near = forward(pattern[..., far - context :])[..., context * scale :].clamp(0, 1)
        if float((near - whole).abs().max()) < TOLERANCE:
            return context
    return max(CANDIDATES)


def reference_pattern(height: int, width: int) -> Tensor:
    """(1, 3, height, width) in [0, 1]: noise of several sizes with hard edges, always the same."""
    generator = torch.Generator().manual_seed(20240229)
    total = torch.zeros(1, 3, height, width)
    for size in (1, 2, 4, 8, 16):
        small = torch.rand(1, 3, -(-height // size), -(-width // size), generator=generator) - 0.5
        layer = torch.nn.functional.interpolate(small, scale_factor=size, mode="nearest")
        total += layer[..., :height, :width]
    return (total / 2.5 + 0.5).clamp(0, 1)
