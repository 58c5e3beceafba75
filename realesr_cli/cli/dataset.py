"""`realesr dataset`: check training images and cut large ones."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from realesr_cli.cli.options import (
    PathType,
    json_option,
    quiet_option,
    settings_from,
    settings_options,
    verbose_option,
)
from realesr_cli.cli.terminal import ProgressBar
from realesr_cli.dataset.settings import CheckSettings, PrepareSettings
from realesr_cli.errors import ConfigError

if TYPE_CHECKING:
    from realesr_cli.dataset.check import DatasetReport
    from realesr_cli.dataset.prepare import PrepareResult

_SHOWN = 10
"""Lines of one kind that are printed without --verbose."""


@click.group("dataset")
def dataset_group() -> None:
    """Check training images, and cut large ones into training crops."""


@dataset_group.command("check")
@click.argument("folders", nargs=-1, required=True, type=PathType())
@click.option(
    "--lq",
    multiple=True,
    type=PathType(),
    help="Folder of low-quality images; one for each FOLDER, in the same order.",
)
@click.option("--val", multiple=True, type=PathType(), help="Folder of validation images.")
@settings_options(CheckSettings)
@json_option
@quiet_option
@verbose_option
@click.pass_context
def check_command(
    ctx: click.Context,
    folders: tuple[Path, ...],
    lq: tuple[Path, ...],
    val: tuple[Path, ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Check the images in FOLDERS before training on them.

    Every image is decoded. Reported are unreadable files, names that are not unique, pairs that do
    not match in name, size, channels or content, images that are too small, duplicates and
    near-duplicates, strong JPEG compression, and validation images that are trained on. The exit
    code is 1 if there is any problem.

    \b
    realesr dataset check DIV2K/ --val Set14/
    realesr dataset check hr/ --lq lr/ --scale 4
    """
    from realesr_cli.dataset.check import DatasetFolders, check_dataset

    settings = settings_from(ctx, CheckSettings)
    with ProgressBar("checking", unit="file", enabled=not quiet) as progress:
        report = check_dataset(DatasetFolders(folders, lq, val), settings, progress=progress)
    if as_json:
        _print_json(_report_to_plain(report))
    elif not quiet or report.problems:
        _print_report(report, verbose=verbose)
    return 1 if report.problems else 0


def _print_json(data: Any) -> None:
    click.echo(json.dumps(data, ensure_ascii=False, indent=2))


def _report_to_plain(report: DatasetReport) -> dict[str, Any]:
    problems = [
        {
            "kind": problem.kind,
            "path": str(problem.path),
            "other": None if problem.other is None else str(problem.other),
            "text": problem.text,
        }
        for problem in report.problems
    ]
    return {
        "format": 1,
        "images": report.images,
        "counts": report.counts(),
        "problems": problems,
    }


def _print_report(report: DatasetReport, *, verbose: bool) -> None:
    from realesr_cli.dataset.check import SUGGESTIONS

    for kind, group in groupby(report.problems, key=lambda problem: problem.kind):
        problems = list(group)
        click.echo(f"{kind}: {len(problems)} ({SUGGESTIONS[kind]})")
        for problem in problems if verbose else problems[:_SHOWN]:
            click.echo(f"  {problem.path}: {problem.text}")
        if len(problems) > _SHOWN and not verbose:
            click.echo(f"  and {len(problems) - _SHOWN} more; --verbose lists all")
    count = len(report.problems)
    found = f"{count or 'no'} problem{'' if count == 1 else 's'}"
    click.echo(f"{report.images} images checked, {found}")


@dataset_group.command("prepare")
@click.argument("folder", type=PathType())
@click.option("-o", "--output", required=True, type=PathType(), help="Folder to write to.")
@click.option("--lq", type=PathType(), help="Folder of low-quality images, to cut pairs.")
@settings_options(PrepareSettings)
@click.option("--overwrite", is_flag=True, help="Write existing files again.")
@click.option("--dry-run", is_flag=True, help="Only count the files that would be written.")
@json_option
@quiet_option
@verbose_option
@click.pass_context
def prepare_command(
    ctx: click.Context,
    folder: Path,
    output: Path,
    lq: Path | None,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Cut the images in FOLDER into training crops.

    Each image is cut into overlapping crops at several sizes, as PNG files that training reads
    quickly. Transparency is dropped. A stopped run continues where it stopped. The exit code is 1
    if an image was excluded.

    \b
    realesr dataset prepare DIV2K/ -o DIV2K_sub/ --min-detail 2
    realesr dataset prepare hr/ --lq lr/ -o pairs/ --crop-size 480 --step 240
    """
    from realesr_cli.dataset.crops import count_crops, find_source_images
    from realesr_cli.dataset.prepare import prepare

    # Pairs have no downscaled versions, so for them the default is none.
    base = PrepareSettings() if lq is None else PrepareSettings(scales=(), shortest_edge=0)
    settings = settings_from(ctx, PrepareSettings, base)
    for source in (folder, lq):
        # Training on the folder would read what is written into it.
        if source is not None and output.resolve().is_relative_to(source.resolve()):
            raise ConfigError(f"{output} is inside {source}: choose a folder outside of it")
    sources = find_source_images(folder, lq, settings)
    if dry_run:
        files = count_crops(sources, settings)
        if as_json:
            _print_json({"format": 1, "images": len(sources), "files": files})
        else:
            most = "at most " if settings.min_detail else ""
            click.echo(f"would write {most}{files} files from {len(sources)} images")
        return 0
    with ProgressBar("preparing", unit="image", enabled=not quiet) as progress:
        result = prepare(sources, output, settings, overwrite=overwrite, progress=progress)
    if as_json:
        _print_json(_result_to_plain(result))
    elif not quiet or result.excluded:
        _print_result(result, output, verbose=verbose)
    return 1 if result.excluded else 0


def _result_to_plain(result: PrepareResult) -> dict[str, Any]:
    return {
        "format": 1,
        "images": result.images,
        "written": result.written,
        "existing": result.existing,
        "low_detail": result.low_detail,
        "excluded": [{"path": str(one.path), "reason": one.reason} for one in result.excluded],
    }


def _print_result(result: PrepareResult, output: Path, *, verbose: bool) -> None:
    for one in result.excluded if verbose else result.excluded[:_SHOWN]:
        click.echo(f"excluded: {one.path}: {one.reason}")
    if len(result.excluded) > _SHOWN and not verbose:
        click.echo(f"and {len(result.excluded) - _SHOWN} more; --verbose lists all")
    existing = f", {result.existing} existed already" if result.existing else ""
    low = f", {result.low_detail} crops had too little detail" if result.low_detail else ""
    click.echo(
        f"{output}: {result.written} files written from {result.images} images{existing}{low}"
    )
