"""Mixtures of two networks: how one is written (`A:B@0.8`), and which networks can be mixed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from realesr_cli.errors import ConfigError
from realesr_cli.nets.architecture import Architecture

_FORM = "write A:B@ALPHA, as in x4plus:esrgan@0.8, which is 0.2 of A and 0.8 of B"

# The colon of `C:\\x` or `D:/x`, at the start of the text or of the second model.
_DRIVE = re.compile(r"(?:^|:)[A-Za-z](:)[\\/]")


@dataclass(frozen=True)
class MixText:
    """A mixture as a user writes it: (1 - alpha) of `first` plus alpha of `second`."""

    first: str
    second: str
    alpha: float


def read_mix(text: str, is_model: Callable[[str], bool]) -> MixText | None:
    """The mixture that `A:B@ALPHA` means, or None where the text is none.

    Names of files may hold `:` and `@` themselves, so the last `@` counts, and of several colons
    the one between two models, which `is_model` knows. Raises ConfigError for a share that is no
    number from 0 to 1, for two models without a share, and where two readings are possible.
    """
    head, _, number = text.rpartition("@")
    cuts = _cuts(head)
    known = [cut for cut in cuts if all(map(is_model, cut))]
    try:
        alpha = float(number)
    except ValueError:
        if known:
            raise ConfigError(f"{text}: {number!r} is no number; {_FORM}") from None
        if any(all(map(is_model, cut)) for cut in _cuts(text)):
            raise ConfigError(f"{text}: two models without a share; {_FORM}") from None
        return None
    drives = {found.start(1) for found in _DRIVE.finditer(head)}
    chosen = known or [cut for cut in cuts if len(cut[0]) not in drives]
    if not chosen:
        return None
    if len(known) > 1:
        readings = " or ".join(f"{a} and {b}" for a, b in known)
        raise ConfigError(f"{text}: can mean {readings}; give one of the files another name")
    check_alpha(alpha, text)
    return MixText(*chosen[0], alpha)


def _cuts(text: str) -> list[tuple[str, str]]:
    """The text cut at each of its colons, both sides not empty."""
    pairs = [(text[:i], text[i + 1 :]) for i, letter in enumerate(text) if letter == ":"]
    return [(a, b) for a, b in pairs if a and b]


def check_alpha(alpha: float, where: str = "alpha") -> None:
    """Raise ConfigError where a share is not from 0 to 1; `where` is what the user wrote."""
    if not 0 <= alpha <= 1:
        raise ConfigError(
            f"{where}: the share {alpha:g} must be between 0 (all of the first network) and 1 "
            "(all of the second)"
        )


def alpha_label(alpha: float) -> str:
    """A share as it stands in names, exactly: `0.29`, `0.8`, `1`; different shares differ."""
    text = f"{Decimal(repr(float(alpha))):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def require_alike(first: Architecture, second: Architecture, names: tuple[str, str]) -> None:
    """Raise ConfigError, naming the first difference, where two networks cannot be mixed."""
    difference = _difference(first, second)
    if difference:
        raise ConfigError(
            f"{names[0]} and {names[1]} cannot be mixed: {difference} ({first.describe()}; "
            f"{second.describe()}). Only networks of one architecture can"
        )


def _difference(first: Architecture, second: Architecture) -> str:
    if first.kind != second.kind:
        return f"kind is {first.kind} against {second.kind}"
    for field in dataclasses.fields(first):  # type: ignore[arg-type]
        one, other = getattr(first, field.name), getattr(second, field.name)
        if one != other:
            return f"{field.name} is {one} against {other}"
    return ""
