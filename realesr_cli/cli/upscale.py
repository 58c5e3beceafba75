"""`realesr upscale`: what was asked, settled before any work, then done image by image."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from realesr_cli.cli.aliases import alias_options, aliased
from realesr_cli.cli.interrupt import interruptible
from realesr_cli.cli.networks import NamedModel, named, opened, require_blendable, stand_in
from realesr_cli.cli.options import (
    blend_model_option,
    json_option,
    model_option,
    offline_option,
    quiet_option,
    settings_from,
    settings_options,
    verbose_option,
)
from realesr_cli.cli.terminal import ProgressBar
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.errors import ConfigError
from realesr_cli.image.formats import DEFAULT_MAX_PIXELS, WriteSettings, canonical
from realesr_cli.settings import check, from_plain, option

if TYPE_CHECKING:
    from realesr_cli.batch.jobs import BatchPlan
    from realesr_cli.cli.console import Style
    from realesr_cli.weights.load import OpenedModel
    from realesr_cli.weights.locate import LocatedModel

_AUTO_SCALE = 4.0
"""The factor of `--model auto` where none is given."""

_BACK_PROJECTION = ("back_project", "back_project_kernel")

_STOPPING = "stopping when the tile in work is done; the same signal again stops at once"


@dataclass(frozen=True)
class RunOptions:
    """How a run over images goes, apart from how each is made and written."""

    output: str | None = option(
        None,
        help="File, folder, template such as '{stem}_x{scale}{ext}', or - for stdout; beside "
        "the input if not given.",
    )
    denoise: float | None = option(
        None, help="1 cleans most, 0 keeps the grain (realesr-general-x4v3 only).", low=0, high=1
    )
    max_pixels: int = option(
        DEFAULT_MAX_PIXELS,
        help="Refuse inputs with more pixels than this (against decompression bombs).",
        low=1,
    )
    recursive: bool = option(False, help="Search subfolders too; the output mirrors them.")
    overwrite: bool = option(False, help="Make results again that are there already.")
    dry_run: bool = option(False, help="Only tell what would be done, and at what cost.")
    fail_fast: bool = option(False, help="Stop at the first image that fails.")

    def __post_init__(self) -> None:
        check(self)


class FitType(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """`WIDTHxHEIGHT`, as in 1920x1080."""

    name = "WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Text to (width, height); a usage error where it is not two numbers above 0."""
        if isinstance(value, tuple):
            return value
        width, _, height = str(value).lower().partition("x")
        if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            self.fail(f"{value!r} is not WIDTHxHEIGHT, as in 1920x1080", param, ctx)
        return int(width), int(height)


@dataclass(frozen=True)
class UpscaleRequest:
    """A call of the command, read and checked, and what it means for these inputs."""

    upscale: UpscaleSettings
    engine: EngineSettings
    write: WriteSettings
    run: RunOptions
    offline: bool | None
    style: Style
    networks: tuple[NamedModel, ...]
    """The model, and the second one where two are blended."""

    @property
    def located(self) -> LocatedModel:
        """Where the model is, which results are named after."""
        return self.networks[0].located


@click.command("upscale")
@click.argument("inputs", nargs=-1)
@settings_options(RunOptions, only={"output"}, short={"output": ("-o",)})
@settings_options(UpscaleSettings, only={"scale", "width", "height"}, short={"scale": ("-s",)})
@click.option("--fit", type=FitType(), help="Largest output within WxH that keeps proportions.")
@settings_options(UpscaleSettings, only={"max_side"})
@model_option
@settings_options(
    UpscaleSettings,
    skip={"scale", "width", "height", "fit", "max_side", "blend", *_BACK_PROJECTION},
    short={"tta": ("-x",)},
)
@settings_options(RunOptions, only={"denoise"})
@blend_model_option
@settings_options(UpscaleSettings, only={"blend", *_BACK_PROJECTION})
@settings_options(EngineSettings, short={"tile": ("-t",)})
@settings_options(WriteSettings)
@settings_options(RunOptions, skip={"output", "denoise"}, short={"recursive": ("-r",)})
@offline_option
@json_option
@quiet_option
@verbose_option
@alias_options
@click.pass_context
def upscale_command(
    ctx: click.Context,
    inputs: tuple[str, ...],
    fit: tuple[int, int] | None,
    model: str,
    blend_model: str | None,
    offline: bool | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Enlarge and restore images.

    INPUTS are files, folders, globs, or - for an image on standard input. A result goes beside
    its input as name_x4.png unless -o says otherwise; what is finished already is skipped, and no
    input is ever overwritten.

    \b
    realesr upscale photo.jpg                       photo_x4.jpg beside it
    realesr upscale photo.jpg -s 2 -o big.png
    realesr upscale scans/ -o out/ --recursive
    realesr upscale *.png -m anime -o '{stem}_{model}{ext}'
    cat a.png | realesr upscale - -o - > b.png
    """
    from realesr_cli.cli.console import Style

    style = Style(quiet=quiet, verbose=verbose, json=as_json)
    request = _request(ctx, fit, (model, blend_model), offline, style)
    arguments = (*inputs, *aliased(ctx).inputs)
    if not arguments:
        raise click.UsageError("no input given: name an image, a folder, or - for stdin", ctx)
    return _upscale(request, arguments, aliased(ctx).suffix)


def _request(
    ctx: click.Context,
    fit: tuple[int, int] | None,
    models: tuple[str, str | None],
    offline: bool | None,
    style: Style,
) -> UpscaleRequest:
    from realesr_cli.batch.jobs import sized
    from realesr_cli.weights.locate import AUTO

    model, blend_model = models
    other = aliased(ctx)
    base = from_plain(UpscaleSettings, other.only("scale", "alpha"))
    upscale = settings_from(ctx, UpscaleSettings, base)
    if fit is not None:
        upscale = replace(upscale, fit=fit)
    engine = from_plain(EngineSettings, other.only("device", "precision", "overlap"))
    write = settings_from(ctx, WriteSettings, WriteSettings(**other.only("format")))
    run = settings_from(ctx, RunOptions, from_plain(RunOptions, other.only("denoise")))
    if model == AUTO and other.model is not None:
        model = other.model
    if model == AUTO and upscale.scale is None and not sized(upscale):
        upscale = replace(upscale, scale=_AUTO_SCALE)
    networks = [named(model, scale=upscale.scale, denoise=run.denoise)]
    if blend_model is not None:
        networks.append(named(blend_model, scale=upscale.scale))
        require_blendable(*networks)
    elif upscale.blend is not None:
        raise ConfigError("--blend mixes in a second model: name it with --blend-model")
    return UpscaleRequest(
        upscale=upscale,
        engine=settings_from(ctx, EngineSettings, engine),
        write=write if write.format is None else replace(write, format=canonical(write.format)),
        run=run,
        offline=offline,
        style=style,
        networks=tuple(networks),
    )


def _upscale(request: UpscaleRequest, arguments: Sequence[str], suffix: str | None) -> int:
    models: list[OpenedModel] = []
    known = request.located.known_architecture
    if known is None:
        models = _opened(request)
        known = models[0].architecture
    plan = _plan(request, arguments, suffix, known.scale)
    _tell_left_out(request, plan)
    if request.run.dry_run:
        return _preview(request, plan, models)
    return _run(request, plan, models)


def _opened(request: UpscaleRequest) -> list[OpenedModel]:
    quiet = request.style.quiet
    return [opened(one, offline=request.offline, quiet=quiet) for one in request.networks]


def _plan(
    request: UpscaleRequest, arguments: Sequence[str], suffix: str | None, scale: int
) -> BatchPlan:
    from realesr_cli.batch import jobs, output_paths
    from realesr_cli.batch.sources import STDIN, find_sources

    run = request.run
    stdin = _stdin() if STDIN in arguments else None
    avoid = output_paths.fixed_folder(run.output)
    _tell_avoided(request, arguments, avoid)
    sources = find_sources(arguments, recursive=run.recursive, avoid=avoid, stdin=stdin)
    wanted = output_paths.destination(
        run.output,
        len(sources),
        from_folder=any(Path(a).is_dir() for a in arguments),
        format=request.write.format,
        suffix=suffix,
        from_stdin=stdin is not None,
    )
    if wanted.kind == "stdout":
        _check_stdout(request)
    rules = jobs.BatchOptions(
        model=request.located.name,
        scale=scale,
        settings=request.upscale,
        write=request.write,
        max_pixels=run.max_pixels,
        overwrite=run.overwrite,
    )
    with ProgressBar("checking results", unit="file", enabled=not request.style.quiet) as progress:
        return jobs.make_plan(sources, wanted, rules, report=progress)


def _stdin() -> bytes:
    if sys.stdin.isatty():
        raise ConfigError("- reads an image from standard input, which is a terminal here")
    return sys.stdin.buffer.read()


def _check_stdout(request: UpscaleRequest) -> None:
    """ConfigError where an image on standard output would be of no use."""
    if request.run.dry_run:
        return
    if request.style.json:
        raise ConfigError("the image goes to stdout, where --json writes too: name a file with -o")
    if sys.stdout.isatty():
        raise ConfigError("the image goes to stdout, which is a terminal: name a file with -o")


def _tell_avoided(request: UpscaleRequest, arguments: Sequence[str], avoid: Path | None) -> None:
    """Say that the output folder is not searched, where it lies in a folder that is."""
    if avoid is None or not avoid.is_dir() or not request.run.recursive or request.style.quiet:
        return
    place = avoid.resolve()
    if any(Path(a).resolve() in place.parents for a in arguments if Path(a).is_dir()):
        click.echo(f"{avoid} is the output folder: it is not searched for inputs", err=True)


def _tell_left_out(request: UpscaleRequest, plan: BatchPlan) -> None:
    if plan.left_out and not request.style.quiet:
        count = len(plan.left_out)
        names = ", ".join(s.name for s in plan.left_out[:3]) + (", ..." if count > 3 else "")
        text = f"left out as results of an earlier run: {names} (name one alone to upscale it)"
        click.echo(text, err=True)


def _run(request: UpscaleRequest, plan: BatchPlan, models: list[OpenedModel]) -> int:
    from realesr_cli.batch import pipeline
    from realesr_cli.batch.records import exit_code
    from realesr_cli.cli.console import Console, RunDescription
    from realesr_cli.engine.api import build_upscaler

    names = [one.located.name for one in request.networks]
    upscaler, used = None, RunDescription.of(names, request.upscale)
    if plan.to_do:
        models = models or _opened(request)
        upscaler = build_upscaler(models, request.engine)
        used = RunDescription.of([one.name for one in models], request.upscale, upscaler.policy)
        if request.style.verbose:
            click.echo("\n".join(upscaler.policy.reasons), err=True)
    console = Console(request.style, used, plan.jobs)
    settings = pipeline.BatchSettings(
        upscale=request.upscale,
        write=request.write,
        max_pixels=request.run.max_pixels,
        fail_fast=request.run.fail_fast,
    )
    with interruptible("" if request.style.quiet else _STOPPING) as interrupt:
        hooks = pipeline.BatchCallbacks(
            console.started, console.tiles, console.finished, interrupt.asked
        )
        records = pipeline.run(plan.jobs, upscaler, settings, hooks)
    code = interrupt.exit_code if interrupt.asked() else exit_code(records)
    console.close(records, code)
    return code


def _preview(request: UpscaleRequest, plan: BatchPlan, models: list[OpenedModel]) -> int:
    from realesr_cli.batch.records import exit_code, planned
    from realesr_cli.cli import dry_run
    from realesr_cli.cli.console import RunDescription
    from realesr_cli.engine.upscaler import Upscaler

    absent = [n.absent for n in request.networks if n.absent is not None and not models]
    nets = [one.net for one in models]
    nets = nets or [stand_in(one, offline=request.offline) for one in request.networks]
    upscaler = Upscaler(nets[0], request.engine, partner=nets[1] if len(nets) > 1 else None)
    names = [one.located.name for one in request.networks]
    used = RunDescription.of(names, request.upscale, upscaler.policy)
    reasons = upscaler.policy.reasons
    model = dry_run.DryRunModel(used, reasons, bool(absent), sum(absent) or None)
    if plan.to_do:
        dry_run.calibrate(upscaler, request.upscale)
    estimates = [
        dry_run.estimate(upscaler, job, request.upscale) if job.open else None for job in plan.jobs
    ]
    dry_run.show(model, plan.jobs, estimates, request.style)
    return exit_code([planned(job) for job in plan.jobs])
