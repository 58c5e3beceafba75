"""What a call of `realesr upscale` asks for: its options, hidden ones included, and models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from realesr_cli.cli.terminal import ProgressBar, say_warning
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.errors import ConfigError
from realesr_cli.image.formats import DEFAULT_MAX_PIXELS, WriteSettings
from realesr_cli.plain import read_bytes
from realesr_cli.settings import check, option

if TYPE_CHECKING:
    from realesr_cli.batch.jobs import BatchSettings
    from realesr_cli.cli.console import Style
    from realesr_cli.weights.load import OpenedModel
    from realesr_cli.weights.locate import LocatedModel

STDIN = "-"

MAX_LIST_BYTES = 1 << 30

_ALIASES_META = "realesr_cli.aliases"


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
    include: tuple[str, ...] = option(
        (), help="Take only inputs whose name or path matches this glob; may be repeated."
    )
    exclude: tuple[str, ...] = option(
        (), help="Skip inputs whose name or path matches this glob; may be repeated."
    )
    on: str | None = option(
        None,
        help="Where to run: local:N for N processes of this machine, one for each GPU where there "
        "are GPUs; ray or ray://HOST:PORT for a Ray cluster; default: this process.",
    )
    shard: str | None = option(
        None,
        help="Process only part I of N, counted from 0: I/N. The same input is always in the same "
        "part.",
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
    listed: tuple[str, ...] = ()
    """Inputs from a list."""

    @property
    def has_urls(self) -> bool:
        """Return whether an input or the output is a URL."""
        texts = (*self.inputs, *self.listed, self.run.output or "")
        if not any("://" in text for text in texts):
            return False
        from realesr_cli.batch.storage import is_url

        return any(map(is_url, texts))


def read_listed(path: str | None, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the inputs of a list; `-` is standard input."""
    if path is None:
        return ()
    from realesr_cli.batch.sources import read_list

    if path != STDIN:
        return tuple(read_list(read_bytes(Path(path), MAX_LIST_BYTES)))
    if STDIN in inputs:
        raise ConfigError("standard input holds either an image or the list of inputs")
    return tuple(read_list(read_stdin()))


def read_stdin() -> bytes:
    """Return all of standard input. Raises ConfigError where that is a terminal."""
    if sys.stdin.isatty():
        raise ConfigError("- reads standard input, which is a terminal here")
    return sys.stdin.buffer.read()


def batch_settings(request: UpscaleRequest, scale: int) -> BatchSettings:
    """Return what is the same for all images of a request, with the model's own scale."""
    from realesr_cli.batch.jobs import BatchSettings
    from realesr_cli.batch.made_by import identify_model
    from realesr_cli.batch.sources import parse_shard

    run = request.run
    return BatchSettings(
        model=request.models[0].name,
        scale=scale,
        upscale=request.upscale,
        write=request.write,
        engine=request.engine,
        identities=tuple(identify_model(one) for one in request.models),
        max_pixels=run.max_pixels,
        overwrite=run.overwrite,
        shard=None if run.shard is None else parse_shard(run.shard),
    )


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
    return AliasValues(**ctx.meta.get(_ALIASES_META, {}))


def _option(alias: _Alias) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is None or value == () or value is False:
            return
        if not alias.setting:
            say_warning(f"{alias.names[0]} is not needed here and has no effect")
            return
        ctx.meta.setdefault(_ALIASES_META, {})[alias.setting] = alias.convert(value)

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


def find_model(
    model: str, *, scale: float | None = None, denoise: float | None = None
) -> LocatedModel:
    """Find a model: `locate`, imported when it is called."""
    from realesr_cli.weights.locate import locate

    if not model:
        raise ConfigError("the model is empty; is a shell variable unset?")
    return locate(model, scale=scale, denoise=denoise)


def require_blendable(first: LocatedModel, second: LocatedModel) -> None:
    """Raise ConfigError where two networks cannot be blended, as far as is known already."""
    from realesr_cli.engine.forward import require_same_scale

    known = [(one.name, one.known_architecture) for one in (first, second)]
    sizes = [(name, found.scale) for name, found in known if found is not None]
    if len(sizes) == 2:
        require_same_scale(sizes[0], sizes[1])


def open_network(located: LocatedModel, *, offline: bool | None, quiet: bool) -> OpenedModel:
    """Open a model, downloading it if needed."""
    from realesr_cli.weights.load import open_model

    with ProgressBar(located.name, bytes=True, enabled=not quiet) as progress:
        return open_model(located, offline=offline, progress=progress)


def open_models(request: UpscaleRequest) -> list[OpenedModel]:
    """Open the models of a request."""
    quiet = request.style.quiet
    return [open_network(one, offline=request.offline, quiet=quiet) for one in request.models]


def open_stand_in(located: LocatedModel, *, offline: bool | None) -> OpenedModel:
    """Open a network that costs as much: the named one where that needs no download."""
    from realesr_cli.weights.load import OpenedModel, load_model

    known = located.known_architecture
    if located.download_bytes is not None and known is not None:
        # Costs depend on the shape of the network, and by a few percent on the overlap that
        # would be measured on the real weights.
        return OpenedModel(known.build().eval(), located.name, None, located.entry)
    if located.path is not None:  # Without the partner that denoising may have to download.
        net = load_model(located.path)
        return OpenedModel(net, located.name, located.path, located.entry)
    return open_network(located, offline=offline, quiet=True)
