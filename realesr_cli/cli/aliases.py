"""Hidden options: the names that users of other Real-ESRGAN programs already type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from realesr_cli.cli.terminal import say_warning

_META = "realesr_cli.aliases"


@dataclass(frozen=True)
class AliasValues:
    """What was given under other programs' names, by the setting it stands for."""

    inputs: tuple[str, ...] = ()
    model: str | None = None
    scale: float | None = None
    denoise: float | None = None
    overlap: int | None = None
    precision: str | None = None
    device: str | None = None
    alpha: str | None = None
    format: str | None = None
    suffix: str | None = None

    def given(self, *names: str) -> dict[str, Any]:
        """Return those of the named settings that were given."""
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class _Alias:
    """Option names, the setting they stand for (none: accepted, ignored), and its value."""

    names: tuple[str, ...]
    setting: str
    type: Any
    """Type of the option's value; None for a flag."""
    convert: Callable[[Any], Any] = lambda value: value


_ALIASES = (
    _Alias(("-i", "--input"), "inputs", str, tuple),
    _Alias(("-n", "--model_name", "--model_path"), "model", str),
    _Alias(("--outscale",), "scale", click.FloatRange(0, 64, min_open=True)),
    _Alias(("-dn", "--denoise_strength"), "denoise", click.FloatRange(0, 1)),
    _Alias(("--tile_pad",), "overlap", click.IntRange(min=0)),
    _Alias(("--pre_pad",), "", int),
    _Alias(("--fp32",), "precision", None, lambda _: "fp32"),
    _Alias(
        ("-g", "--gpu-id", "--gpu_id"), "device", int, lambda n: f"cuda:{n}" if n >= 0 else "cpu"
    ),
    _Alias(
        ("--alpha_upsampler",),
        "alpha",
        click.Choice(["realesrgan", "bicubic"]),
        lambda name: "model" if name == "realesrgan" else "resize",
    ),
    _Alias(
        ("--ext",),
        "format",
        click.Choice(["auto", "jpg", "png"]),
        lambda name: None if name == "auto" else name,
    ),
    _Alias(("--suffix",), "suffix", str),
)


def alias_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the hidden options. `alias_values(ctx)` returns what was given."""
    for alias in _ALIASES:
        function = _option(alias)(function)
    return function


def alias_values(ctx: click.Context) -> AliasValues:
    """Return what the hidden options of this call say."""
    return AliasValues(**ctx.meta.get(_META, {}))


def _option(alias: _Alias) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is None or value == () or value is False:
            return
        if not alias.setting:
            say_warning(f"{alias.names[0]} is not needed here and has no effect")
            return
        ctx.meta.setdefault(_META, {})[alias.setting] = alias.convert(value)

    return click.option(
        *alias.names,
        "alias_" + (alias.setting or alias.names[0].strip("-")),
        type=alias.type,
        is_flag=True if alias.type is None else None,
        multiple=alias.setting == "inputs",
        default=None,
        hidden=True,
        expose_value=False,
        callback=keep,
    )
