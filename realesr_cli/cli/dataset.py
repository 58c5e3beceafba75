"""`realesr dataset`: look over training images and cut large ones."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from realesr_cli.cli.options import (
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
    from realesr_cli.dataset.prepare import Prepared

SHOWN = 10
"""Lines of one kind that are printed without --verbose."""

PathType = click.Path(path_type=Path)


@click.group("dataset")
def dataset_group() -> None:
    """Look over training images, and cut large ones into training files."""


@dataset_group.command("check")
@click.argument("folders", nargs=-1, required=True, type=PathType)
@click.option(
    "--lq",
    multiple=True,
    type=PathType,
    help="Folder of the low-quality partners; one for each FOLDER, in the same order.",
)
@click.option("--val", multiple=True, type=PathType, help="Folder of validation images.")
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
    """Look over the images in FOLDERS before training on them.

    Every image is decoded. Told are: unreadable files, names that are not unique, pairs that do
    not match in name, size, channels or content, images that are too small, copies and
    near-copies, hard JPEG compression, and validation images that are trained on.
    Ends with exit code 1 if anything was found.

    \b
    realesr dataset check DIV2K/ --val Set14/
    realesr dataset check hr/ --lq lr/ --scale 4 --lq-suffix x4
    """
    from realesr_cli.dataset.check import Folders, check_dataset

    settings = settings_from(ctx, CheckSettings)
    with ProgressBar("checking", unit="file", enabled=not quiet) as progress:
        checked = check_dataset(Folders(folders, lq, val), settings, report=progress)
    if as_json:
        _print_json(_plain(checked))
    elif not quiet or checked.faults:
        _tell_checked(checked, verbose=verbose)
    return 1 if checked.faults else 0


def _print_json(data: Any) -> None:
    click.echo(json.dumps(data, ensure_ascii=False, indent=2))


def _plain(checked: DatasetReport) -> dict[str, Any]:
    faults = [
        {
            "kind": fault.kind,
            "path": str(fault.path),
            "other": None if fault.other is None else str(fault.other),
            "text": fault.text,
        }
        for fault in checked.faults
    ]
    return {
        "format": 1,
        "images": checked.images,
        "counts": checked.counts(),
        "faults": faults,
    }


def _tell_checked(checked: DatasetReport, *, verbose: bool) -> None:
    from realesr_cli.dataset.check import ADVICE

    for kind, group in groupby(checked.faults, key=lambda fault: fault.kind):
        faults = list(group)
        click.echo(f"{kind}: {len(faults)} ({ADVICE[kind]})")
        for fault in faults if verbose else faults[:SHOWN]:
            click.echo(f"  {fault.path}: {fault.text}")
        if len(faults) > SHOWN and not verbose:
            click.echo(f"  and {len(faults) - SHOWN} more; --verbose lists all")
    found = sum(checked.counts().values())
    click.echo(f"{checked.images} images looked at, {found or 'no'} faults")


@dataset_group.command("prepare")
@click.argument("folder", type=PathType)
@click.option("-o", "--output", required=True, type=PathType, help="Folder to write into.")
@click.option("--lq", type=PathType, help="Folder of the low-quality partners: both are cut alike.")
@settings_options(PrepareSettings)
@click.option("--overwrite", is_flag=True, help="Make files again that are there already.")
@click.option("--dry-run", is_flag=True, help="Only count what would be made.")
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
    """Make training files of the images in FOLDER.

    Each image is taken at several sizes and cut into overlapping squares, as PNG files that
    training reads quickly. Transparency is left out. A run that was stopped goes on where it was.
    Ends with exit code 1 if an image had to be left out.

    \b
    realesr dataset prepare DIV2K/ -o DIV2K_sub/ --least-detail 2
    realesr dataset prepare hr/ --lq lr/ -o pairs/ --side 480 --step 240
    """
    from realesr_cli.dataset.crops import count, find_sources
    from realesr_cli.dataset.prepare import prepare

    settings = _prepare_settings(ctx, paired=lq is not None)
    _refuse_inside(output, folder, lq)
    sources = find_sources(folder, lq, settings)
    if dry_run:
        _tell_plan(len(sources), count(sources, settings), settings, as_json=as_json)
        return 0
    with ProgressBar("preparing", unit="image", enabled=not quiet) as progress:
        done = prepare(sources, output, settings, overwrite=overwrite, report=progress)
    if as_json:
        _print_json(_plain_prepared(done))
    elif not quiet or done.left_out:
        _tell_prepared(done, output, verbose=verbose)
    return 1 if done.left_out else 0


def _prepare_settings(ctx: click.Context, *, paired: bool) -> PrepareSettings:
    """Pairs have no smaller versions: for them that is the default."""
    if not paired:
        return settings_from(ctx, PrepareSettings)
    base = PrepareSettings(scales=(), shortest=0)
    return settings_from(ctx, PrepareSettings, base)


def _refuse_inside(output: Path, folder: Path, lq: Path | None) -> None:
    """What is written below a folder that is read would be read itself the next time."""
    for source in (folder, lq):
        if source is not None and output.resolve().is_relative_to(source.resolve()):
            raise ConfigError(f"{output} lies within {source}: choose a folder outside of it")


def _tell_plan(images: int, files: int, settings: PrepareSettings, *, as_json: bool) -> None:
    if as_json:
        _print_json({"format": 1, "images": images, "files": files})
    else:
        most = "at most " if settings.least_detail else ""
        click.echo(f"{images} images would give {most}{files} files")


def _plain_prepared(done: Prepared) -> dict[str, Any]:
    left = [{"path": str(one.path), "reason": one.reason} for one in done.left_out]
    return {
        "format": 1,
        "images": done.images,
        "written": done.written,
        "present": done.present,
        "plain": done.plain,
        "left_out": left,
    }


def _tell_prepared(done: Prepared, output: Path, *, verbose: bool) -> None:
    for one in done.left_out if verbose else done.left_out[:SHOWN]:
        click.echo(f"left out: {one.path}: {one.reason}")
    if len(done.left_out) > SHOWN and not verbose:
        click.echo(f"and {len(done.left_out) - SHOWN} more; --verbose lists all")
    present = f", {done.present} were there already" if done.present else ""
    plain = f", {done.plain} squares had too little detail" if done.plain else ""
    click.echo(f"{output}: {done.written} files made of {done.images} images{present}{plain}")
