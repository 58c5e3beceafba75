"""Small draws of chance from one generator, so that every choice of a picture follows its seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Rng = np.random.Generator


def chance(rng: Rng, probability: float) -> bool:
    """True with this probability."""
    return bool(rng.random() < probability)


def between(rng: Rng, low: float, high: float) -> float:
    """Evenly in [low, high)."""
    return low + (high - low) * float(rng.random())


def spread(rng: Rng, low: float, high: float) -> float:
    """Evenly in the logarithm: as often between 10 and 20 as between 20 and 40."""
    return low * math.exp(float(rng.random()) * math.log(high / low))


def whole(rng: Rng, low: int, high: int) -> int:
    """A whole number of low..high, both inclusive."""
    return int(rng.integers(low, high + 1))


def pick(rng: Rng, items: Sequence[T]) -> T:
    """One of the items, all equally likely."""
    return items[int(rng.integers(len(items)))]


def weighted(rng: Rng, shares: Sequence[tuple[T, float]]) -> T:
    """One of the items, each as likely as its share among the shares."""
    at = float(rng.random()) * sum(share for _, share in shares)
    for item, share in shares:
        at -= share
        if at < 0:
            return item
    return shares[-1][0]
