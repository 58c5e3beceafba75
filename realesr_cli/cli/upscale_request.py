"""What a call of `realesr upscale` asks for: its options and the settings they make up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.image.formats import DEFAULT_MAX_PIXELS, WriteSettings
from realesr_cli.settings import check, option

if TYPE_CHECKING:
    from realesr_cli.cli.console import Style
    from realesr_cli.weights.locate import LocatedModel


@dataclass(frozen=True)
class RunOptions:
    """Options of a run over images, apart from how each is made and written."""

    output: str | None = option(
        None,
        help="Output file, folder, template such as '{stem}_x{scale}{ext}', or - for stdout; "
        "default: beside the input.",
    )
    from_file: str | None = option(
        None, help="Read more inputs from this list, one path per line; - for stdin."
    )
    denoise: float | None = option(
        None,
        help="Denoising strength: 1 removes most noise, 0 keeps it (realesr-general-x4v3 only).",
        low=0,
        high=1,
    )
    max_pixels: int = option(
        DEFAULT_MAX_PIXELS,
        help="Refuse inputs with more pixels, as a protection against decompression bombs.",
        low=1,
    )
    recursive: bool = option(False, help="Search subfolders too; the output mirrors them.")
    overwrite: bool = option(False, help="Replace existing results.")
    dry_run: bool = option(False, help="Print what would be done, and its cost, without doing it.")
    fail_fast: bool = option(False, help="Stop at the first image that fails.")

    def __post_init__(self) -> None:
        check(self)


class FitType(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """`WIDTHxHEIGHT`, as in 1920x1080."""

    name = "WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Convert text to (width, height); a usage error where it is not two numbers above 0."""
        if isinstance(value, tuple):
            return value
        width, _, height = str(value).lower().partition("x")
        digits = width.isdecimal() and height.isdecimal() and max(len(width), len(height)) < 10
        if not (digits and int(width) and int(height)):
            self.fail(f"expected WIDTHxHEIGHT, as in 1920x1080, got {value!r}", param, ctx)
        return int(width), int(height)


@dataclass(frozen=True)
class UpscaleRequest:
    """A call of the command, read and checked; nothing is searched or opened yet."""

    inputs: tuple[str, ...]
    models: tuple[LocatedModel, ...]
    """The model, and the second one where two are blended."""
    upscale: UpscaleSettings
    engine: EngineSettings
    write: WriteSettings
    run: RunOptions
    style: Style
    offline: bool | None = None
    suffix: str | None = None
    """What results are named by instead of the factor."""
