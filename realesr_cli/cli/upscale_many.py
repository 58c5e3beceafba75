"""`realesr upscale` with URLs, or on several workers."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from realesr_cli.batch.jobs import BatchPlan, Job, planned
from realesr_cli.batch.output_paths import Destination
from realesr_cli.batch.places import open_pool, parse_place
from realesr_cli.batch.pool import WorkerSpec, run_tasks
from realesr_cli.batch.remote import parse_url_output, stream_sources
from realesr_cli.batch.sources import Globs, InputSource
from realesr_cli.batch.storage import is_url
from realesr_cli.batch.worker import Task, TaskSettings
from realesr_cli.cli.console import Console, RunDescription, print_json, record_to_plain
from realesr_cli.cli.terminal import interruptible
from realesr_cli.cli.upscale_request import (
    STDIN,
    UpscaleRequest,
    batch_settings,
    find_model,
    open_models,
    read_stdin,
)
from realesr_cli.engine.upscaler import build_upscaler
from realesr_cli.errors import ConfigError

if TYPE_CHECKING:
    from realesr_cli.weights.load import OpenedModel

_STOPPING = "stopping; repeat the signal to stop at once"


def upscale_plan(request: UpscaleRequest, plan: BatchPlan, models: Sequence[OpenedModel]) -> int:
    """Make the results of a plan on the workers of `--on`."""
    assert request.run.on is not None
    parse_place(request.run.on)
    if any(job.target is None for job in plan.jobs):
        raise ConfigError("--on needs files as output: name a file or a folder with -o")
    settings = TaskSettings(Destination("beside"), batch_settings(request, 1))
    if plan.pending:
        models = models or open_models(request)
    return _run(request, plan.jobs, settings, models)


def upscale_urls(request: UpscaleRequest) -> int:
    """Make the results of inputs that are found while others are made already."""
    run = request.run
    settings = batch_settings(request, 1)
    if run.on is not None:
        parse_place(run.on)
    sources = stream_sources(
        request.inputs,
        listed=request.listed,
        recursive=run.recursive,
        output=run.output if run.output and is_url(run.output) else "",
        stdin=read_stdin() if STDIN in request.inputs else None,
        globs=Globs(run.include, run.exclude),
    )
    wanted, store, sources = parse_url_output(
        run.output, sources, format=request.write.format, suffix=request.suffix
    )
    if settings.shard is not None:
        sources = filter(settings.shard.contains, sources)
    if run.dry_run:
        return _dry_run(request, sources)
    models = open_models(request)
    if models[0].name != request.models[0].name:  # What `auto` stands for is missing.
        replacement = find_model(models[0].name)
        request = replace(request, models=(replacement, *request.models[1:]))
    settings = replace(batch_settings(request, models[0].architecture.scale), shard=None)
    return _run(request, sources, TaskSettings(wanted, settings, store), models)


def _dry_run(request: UpscaleRequest, sources: Iterable[InputSource]) -> int:
    description = RunDescription(tuple(one.name for one in request.models), request.upscale)
    count = 0
    for source in sources:
        count += 1
        if request.style.json:
            print_json(record_to_plain(planned(Job(source)), description))
        else:
            click.echo(source.name)
    if request.style.json:
        print_json({"summary": {"planned": count}})
    else:
        click.echo(f"{count} to do or done already, which is not known before they are fetched")
    return 0


def _run(
    request: UpscaleRequest,
    tasks: Iterable[Task],
    settings: TaskSettings,
    models: Sequence[OpenedModel],
) -> int:
    names = tuple(one.name for one in (models or request.models))
    console = Console(request.style, RunDescription(names, request.upscale), unit="image")
    with (
        tempfile.TemporaryDirectory(prefix="realesr-") as spool,
        interruptible("" if request.style.quiet else _STOPPING) as interrupt,
    ):
        spec = WorkerSpec(
            functools.partial(build_upscaler, models),
            request.engine,
            # Workers of a cluster have other disks.
            replace(
                settings, spool=None if (request.run.on or "").startswith("ray") else Path(spool)
            ),
        )
        run_tasks(
            tasks,
            lambda: open_pool(request.run.on, spec, interrupt.stop_requested),
            console,
            stop_requested=interrupt.stop_requested,
            fail_fast=request.run.fail_fast,
        )
    code = interrupt.exit_code if interrupt.stop_requested() else console.tally.exit_code
    console.close(code)
    return code
