"""`realesr upscale`: the request read and checked, the run planned, then done image by image."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

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
from realesr_cli.cli.terminal import ProgressBar, interruptible
from realesr_cli.cli.upscale_request import (
    STDIN,
    FitType,
    RunOptions,
    UpscaleRequest,
    alias_options,
    alias_values,
    batch_settings,
    find_model,
    open_models,
    open_stand_in,
    read_listed,
    read_stdin,
    require_blendable,
)
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.errors import ConfigError, OutputExistsError
from realesr_cli.image.formats import WriteSettings, canonical
from realesr_cli.text import format_names

if TYPE_CHECKING:
    from realesr_cli.batch.jobs import BatchPlan
    from realesr_cli.cli.console import Style
    from realesr_cli.weights.load import OpenedModel

_AUTO_SCALE = 4.0
"""The factor of `--model auto` where none is given."""

_BACK_PROJECTION = ("back_project", "back_project_kernel")

_STOPPING = "stopping after the current tile; repeat the signal to stop at once"

_EXAMPLES = """\
realesr upscale photo.jpg                       photo_x4.jpg beside it
realesr upscale photo.jpg -s 2 -o big.png
realesr upscale scans/ -o out/ --recursive
realesr upscale *.png -m anime -o '{stem}_{model}{ext}'
cat a.png | realesr upscale - -o - > b.png"""

_HELP = f"""\
Upscale and restore images.

INPUTS are image files, folders, patterns, ZIP or CBZ archives of images, or - for an image on
standard input. A result goes beside its input as name_x4.png unless -o says otherwise. Results of
the same model and settings are skipped in a second run; other existing files are never overwritten
without --overwrite, and inputs never at all.

\b
{_EXAMPLES}
"""


@click.command("upscale", help=_HELP)
@click.argument("inputs", nargs=-1)
@settings_options(RunOptions, only={"output"}, short={"output": ("-o",)})
@settings_options(UpscaleSettings, only={"scale", "width", "height"}, short={"scale": ("-s",)})
@click.option(
    "--fit", type=FitType(), help="Largest output within WIDTHxHEIGHT that keeps the aspect ratio."
)
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
    """Run `realesr upscale`."""
    from realesr_cli.cli.console import Style

    run = settings_from(ctx, RunOptions, RunOptions(**alias_values(ctx).given("denoise")))
    inputs = (*inputs, *alias_values(ctx).inputs)
    if not inputs and run.from_file is None:
        examples = "".join(f"\n  {line}" for line in _EXAMPLES.splitlines())
        click.echo(f"Usage: {ctx.command_path} [OPTIONS] INPUTS...\n{examples}\n", err=True)
        raise ConfigError("no input: name an image, a folder, or - for stdin (--help: all options)")
    request = _read_request(
        ctx, inputs, (model, blend_model), run, Style(quiet=quiet, verbose=verbose, json=as_json)
    )
    if fit is not None:
        request = replace(request, upscale=replace(request.upscale, fit=fit))
    return _upscale(replace(request, offline=offline))


def _read_request(
    ctx: click.Context,
    inputs: tuple[str, ...],
    models: tuple[str, str | None],
    run: RunOptions,
    style: Style,
) -> UpscaleRequest:
    from realesr_cli.batch.jobs import has_size
    from realesr_cli.weights.locate import AUTO

    model, blend_model = models
    other = alias_values(ctx)
    upscale = settings_from(ctx, UpscaleSettings, UpscaleSettings(**other.given("scale", "alpha")))
    engine = EngineSettings(**other.given("device", "precision", "overlap"))
    write = settings_from(ctx, WriteSettings, WriteSettings(**other.given("format")))
    if model == AUTO and other.model is not None:
        model = other.model
    if model == AUTO and upscale.scale is None and not has_size(upscale):
        upscale = replace(upscale, scale=_AUTO_SCALE)
    found = [find_model(model, scale=upscale.scale, denoise=run.denoise)]
    if blend_model is not None:
        found.append(find_model(blend_model, scale=upscale.scale))
        require_blendable(*found)
    elif upscale.blend is not None:
        raise ConfigError("--blend needs a second model: name it with --blend-model")
    return UpscaleRequest(
        inputs=inputs,
        models=tuple(found),
        upscale=upscale,
        engine=settings_from(ctx, EngineSettings, engine),
        write=write if write.format is None else replace(write, format=canonical(write.format)),
        run=run,
        style=style,
        suffix=other.suffix,
        listed=read_listed(run.from_file, inputs),
    )


def _upscale(request: UpscaleRequest) -> int:
    if request.has_urls:
        from realesr_cli.cli.upscale_many import upscale_urls

        return upscale_urls(request)
    models: list[OpenedModel] = []
    known = request.models[0].known_architecture
    if known is None:
        models = open_models(request)
        known = models[0].architecture
    find_plan = _prepare_plan(request)
    plan = find_plan(request, known.scale)
    if not request.run.dry_run and not models and _needs_models(request, plan):
        models = open_models(request)
        if models[0].name != request.models[0].name:  # What `auto` stands for is missing.
            replacement = find_model(models[0].name)
            request = replace(request, models=(replacement, *request.models[1:]))
            plan = find_plan(request, models[0].architecture.scale)
    _print_excluded(request, plan)
    if request.run.dry_run:
        return _dry_run(request, plan, models)
    if request.run.on is not None:
        from realesr_cli.cli.upscale_many import upscale_plan

        return upscale_plan(request, plan, models)
    return _run(request, plan, models)


def _needs_models(request: UpscaleRequest, plan: BatchPlan) -> bool:
    """Return whether images are to be made, or refused as made by what may replace `auto`."""
    replaceable = any(one.spare and one.download_bytes is not None for one in request.models)
    refused = any(isinstance(job.error, OutputExistsError) for job in plan.jobs)
    return bool(plan.pending) or (replaceable and refused)


def _prepare_plan(request: UpscaleRequest) -> Callable[[UpscaleRequest, int], BatchPlan]:
    """Find the inputs, and return what makes the plan of a request with them."""
    from realesr_cli.batch import output_paths
    from realesr_cli.batch.jobs import make_plan
    from realesr_cli.batch.sources import Globs, find_sources

    run = request.run
    avoid = output_paths.fixed_folder(run.output)
    _print_avoided(request, avoid)
    sources = find_sources(
        request.inputs,
        listed=request.listed,
        recursive=run.recursive,
        avoid=avoid,
        stdin=read_stdin() if STDIN in request.inputs else None,
        globs=Globs(run.include, run.exclude),
    )
    wanted = output_paths.parse_output(
        run.output, sources, format=request.write.format, suffix=request.suffix
    )
    if wanted.kind == "stdout":
        _check_stdout(request)

    def plan(request: UpscaleRequest, scale: int) -> BatchPlan:
        settings = batch_settings(request, scale)
        quiet = request.style.quiet
        with ProgressBar("checking results", unit="file", enabled=not quiet) as progress:
            return make_plan(sources, wanted, settings, progress=progress)

    return plan


def _check_stdout(request: UpscaleRequest) -> None:
    """Raise ConfigError where an image on standard output would be of no use."""
    if request.run.dry_run:
        return
    if request.style.json:
        raise ConfigError("the image goes to stdout, where --json writes too: name a file with -o")
    if sys.stdout.isatty():
        raise ConfigError("the image goes to stdout, which is a terminal: name a file with -o")


def _print_avoided(request: UpscaleRequest, avoid: Path | None) -> None:
    """Print that the output folder is not searched, where it is inside an input folder."""
    searched = [Path(a).resolve() for a in request.inputs if os.path.isdir(a)]
    if avoid is None or not request.run.recursive or request.style.quiet:
        return
    if os.path.isdir(avoid) and set(searched) & set(avoid.resolve().parents):
        click.echo(f"{avoid} is the output folder: it is not searched for inputs", err=True)


def _print_excluded(request: UpscaleRequest, plan: BatchPlan) -> None:
    if plan.excluded and not request.style.quiet:
        names = format_names((s.name for s in plan.excluded), limit=3)
        click.echo(
            f"{len(plan.excluded)} excluded as results of an earlier run: {names} "
            "(name a file to upscale it)",
            err=True,
        )


def _run(request: UpscaleRequest, plan: BatchPlan, models: Sequence[OpenedModel]) -> int:
    from realesr_cli.batch.run import run_jobs
    from realesr_cli.cli.console import Console, RunDescription
    from realesr_cli.engine.upscaler import build_upscaler

    names = tuple(one.name for one in request.models)
    upscaler, description = None, RunDescription(names, request.upscale)
    if plan.pending:
        models = models or open_models(request)
        upscaler = build_upscaler(models, request.engine)
        names = tuple(one.name for one in models)
        description = RunDescription(names, request.upscale, upscaler.policy)
        if request.style.verbose:
            click.echo("\n".join(upscaler.policy.reasons), err=True)
    console = Console(request.style, description, plan.jobs)
    with interruptible("" if request.style.quiet else _STOPPING) as interrupt:
        run_jobs(
            plan.jobs,
            upscaler,
            console,
            stop_requested=interrupt.stop_requested,
            fail_fast=request.run.fail_fast,
        )
    code = interrupt.exit_code if interrupt.stop_requested() else console.tally.exit_code
    console.close(code)
    return code


def _dry_run(request: UpscaleRequest, plan: BatchPlan, models: Sequence[OpenedModel]) -> int:
    from realesr_cli.batch.jobs import Tally, planned
    from realesr_cli.cli import dry_run
    from realesr_cli.cli.console import RunDescription
    from realesr_cli.engine.upscaler import build_upscaler

    missing = [
        one.download_bytes
        for one in request.models
        if one.download_bytes is not None and not models
    ]
    models = models or [open_stand_in(n, offline=request.offline) for n in request.models]
    upscaler = build_upscaler(models, request.engine)
    started = click.get_current_context().find_root().obj or 0.0
    names = tuple(one.name for one in request.models)
    start_seconds = time.perf_counter() - started + dry_run.EXIT_SECONDS if started else 0.0
    run = dry_run.describe_run(
        upscaler, plan.jobs, RunDescription(names, request.upscale, upscaler.policy)
    )
    download = (sum(missing) or True) if missing else False
    dry_run.print_dry_run(
        replace(run, download=download, start_seconds=start_seconds), request.style
    )
    return Tally(planned(job) for job in plan.jobs).exit_code
