"""Option names that users of other Real-ESRGAN programs already type, kept out of the help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from realesr_cli.cli.terminal import say_warning

_META = "realesr_cli.aliases"


@dataclass(frozen=True)
class Aliased:
    """What was given under other programs' names, by the name of the setting it stands for."""

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

    def only(self, *names: str) -> dict[str, Any]:
        """Those of the named settings that were given, as plain data."""
        found = {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}


def _gpu(number: int) -> str:
    return "cpu" if number < 0 else f"cuda:{number}"


def _ext(text: str) -> str | None:
    return None if text == "auto" else text


# Names, the setting they stand for (none: accepted, without effect), type, and how a value reads.
_TABLE: tuple[tuple[tuple[str, ...], str, Any, Callable[[Any], Any]], ...] = (
    (("-i", "--input"), "inputs", str, tuple),
    (("-n", "--model_name", "--model_path"), "model", str, str),
    (("--outscale",), "scale", click.FloatRange(0, 64, min_open=True), float),
    (("-dn", "--denoise_strength"), "denoise", click.FloatRange(0, 1), float),
    (("--tile_pad",), "overlap", click.IntRange(min=0), int),
    (("--pre_pad",), "", int, int),
    (("--fp32",), "precision", None, lambda given: "fp32" if given else None),
    (("-g", "--gpu-id", "--gpu_id"), "device", int, _gpu),
    (
        ("--alpha_upsampler",),
        "alpha",
        click.Choice(["realesrgan", "bicubic"]),
        lambda name: "model" if name == "realesrgan" else "resize",
    ),
    (("--ext",), "format", click.Choice(["auto", "jpg", "png"]), _ext),
    (("--suffix",), "suffix", str, str),
)


def alias_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the hidden options; `aliased(ctx)` tells what was given. Nothing reaches the command."""
    for names, setting, kind, read in _TABLE:
        function = _option(names, setting, kind, read)(function)
    return function


def _option(
    names: tuple[str, ...], setting: str, kind: Any, read: Callable[[Any], Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is None or value == () or value is False:
            return
        if not setting:
            say_warning(f"{names[0]} is not needed here and has no effect")
            return
        ctx.meta.setdefault(_META, {})[setting] = read(value)

    return click.option(
        *names,
        "alias_" + (setting or names[0].strip("-")),
        type=kind,
        is_flag=True if kind is None else None,
        multiple=setting == "inputs",
        default=None,
        hidden=True,
        expose_value=False,
        callback=keep,
    )


def aliased(ctx: click.Context) -> Aliased:
    """What the hidden options of this call say."""
    return Aliased(**ctx.meta.get(_META, {}))
