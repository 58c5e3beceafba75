"""`realesr compare`: show photos by several models side by side, on a page or a sheet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from realesr_cli.cli.options import (
    PathType,
    check_targets,
    json_option,
    models_option,
    offline_option,
    quiet_option,
    settings_from,
    settings_options,
)
from realesr_cli.cli.terminal import ProgressBar, interruptible, say_error
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.errors import CancelledError, ConfigError, ImageError
from realesr_cli.evaluate.settings import (
    CompareSettings,
    CropRegion,
    PageSettings,
    SheetSettings,
)
from realesr_cli.settings import check, option
from realesr_cli.text import format_bytes

if TYPE_CHECKING:
    from realesr_cli.evaluate.comparison import Comparison
    from realesr_cli.evaluate.evaluated_models import EvaluatedModel
    from realesr_cli.evaluate.side_by_side import CompareCallbacks

_STOPPING = "stopping after the current tile; nothing will be written"
_PAGE_ENDINGS = (".html", ".htm")


@dataclass(frozen=True)
class TargetSettings:
    """Which files are written."""

    output: Path | None = option(None, help="HTML page to write, self-contained.")
    sheet: Path | None = option(
        None, help="Image to write: crops of the photos at full size, with labels."
    )
    overwrite: bool = option(False, help="Replace existing files.")

    def __post_init__(self) -> None:
        check(self)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the files that are written."""
        return tuple(path for path in (self.output, self.sheet) if path is not None)


@dataclass(frozen=True)
class CompareRequest:
    """A call of the command."""

    photos: tuple[Path, ...]
    originals: tuple[Path, ...]
    models: tuple[str, ...]
    target: TargetSettings
    compare: CompareSettings
    page: PageSettings
    sheet: SheetSettings
    engine: EngineSettings


class CropType(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A crop on the command line, X,Y,WIDTH,HEIGHT."""

    name = "X,Y,W,H"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> CropRegion:
        """Convert text; a usage error says what was expected."""
        try:
            return value if isinstance(value, CropRegion) else CropRegion.parse(str(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


@click.command("compare")
@click.argument("photos", nargs=-1, type=PathType())
@models_option(default=("auto",), show_default="auto")
@settings_options(TargetSettings, only={"output"}, short={"output": ("-o",)})
@settings_options(TargetSettings, only={"sheet"})
@click.option(
    "--gt",
    "originals",
    multiple=True,
    type=PathType(),
    metavar="FILE",
    help="Original that a photo was downscaled from; one for each photo, in the same order.",
)
@settings_options(PageSettings)
@click.option(
    "--crop",
    "regions",
    multiple=True,
    type=CropType(),
    help="Crop that the sheet shows, in pixels of the photo; may be repeated.",
)
@settings_options(SheetSettings, skip={"regions"})
@settings_options(CompareSettings, skip={"offline"})
@settings_options(EngineSettings, short={"tile": ("-t",)})
@settings_options(TargetSettings, only={"overwrite"})
@offline_option
@json_option
@quiet_option
@click.pass_context
def compare_command(
    ctx: click.Context,
    photos: tuple[Path, ...],
    models: tuple[str, ...],
    originals: tuple[Path, ...],
    regions: tuple[CropRegion, ...],
    offline: bool | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Show PHOTOS upscaled by several models side by side.

    The HTML page has a slider between two versions, a side-by-side view, zoom, scores and settings;
    it is one file that needs no network. The input and MATLAB's bicubic are always included. All
    models must have the same scale.

    \b
    realesr compare photo.jpg -m x4plus -m general -o report.html
    realesr compare small.png --gt original.png -m x4plus -m runs/mine -o report.html
    realesr compare a.jpg b.jpg -m x4plus -m bsrgan --sheet sheet.png
    realesr compare photo.jpg -m x4plus --sheet sheet.png --crop 120,80,64,48
    """
    sheet = replace(settings_from(ctx, SheetSettings), regions=regions)
    compare = replace(settings_from(ctx, CompareSettings), offline=offline)
    request = CompareRequest(
        photos=photos,
        originals=originals,
        models=models,
        target=settings_from(ctx, TargetSettings),
        compare=compare,
        page=settings_from(ctx, PageSettings),
        sheet=sheet,
        engine=settings_from(ctx, EngineSettings),
    )
    if not photos:
        raise click.UsageError("expected at least one photo", ctx)
    _check(request)
    return _compare(request, as_json=as_json, quiet=quiet)


def _check(request: CompareRequest) -> None:
    """Raise ConfigError, before any work, for what cannot be written."""
    from realesr_cli.batch.output_paths import known_format
    from realesr_cli.image.formats import WRITABLE

    target = request.target
    if not target.paths:
        raise ConfigError(
            "no output: name a page with -o report.html, or an image with --sheet sheet.png"
        )
    if target.output is not None and target.output.suffix.lower() not in _PAGE_ENDINGS:
        raise ConfigError(
            f"-o {target.output}: the page is HTML, so expected a name that ends in .html; --sheet "
            "writes an image"
        )
    if target.sheet is not None and known_format(target.sheet) is None:
        raise ConfigError(
            f"--sheet {target.sheet}: expected one of the extensions {', '.join(WRITABLE)}"
        )
    inputs = (*request.photos, *request.originals)
    check_targets(target.paths, overwrite=target.overwrite, inputs=inputs)
    _check_crops(request)


def _check_crops(request: CompareRequest) -> None:
    """Raise ConfigError for a crop that is outside a photo."""
    for photo, size in _sizes(request) if request.sheet.regions else ():
        for crop in request.sheet.regions:
            crop.require_inside(str(photo), size)


def _sizes(request: CompareRequest) -> Iterator[tuple[Path, tuple[int, int]]]:
    """Yield photos and their (height, width); those that cannot be read are reported later."""
    from realesr_cli.image.probe import probe

    for photo in request.photos:
        try:
            header = probe(photo, max_pixels=request.compare.max_pixels)
        except ImageError:
            continue
        yield photo, (header.height, header.width)


def _compare(request: CompareRequest, *, as_json: bool, quiet: bool) -> int:
    from realesr_cli.evaluate.side_by_side import CompareCallbacks, compare

    models = _open(request, quiet=quiet)
    _warn_about_size(request, models)
    notice = "" if quiet else _STOPPING
    with ProgressBar(unit="tile", enabled=not quiet) as bar, interruptible(notice) as interrupt:
        callbacks = CompareCallbacks(bar.relabel, bar, interrupt.stop_requested)
        try:
            comparison = compare(
                request.photos,
                models,
                originals=request.originals,
                settings=request.compare,
                callbacks=callbacks,
            )
        except CancelledError:
            return interrupt.exit_code
        written = _write(comparison, request, callbacks)
    if as_json:
        click.echo(json.dumps(_plain(comparison, written), ensure_ascii=False, indent=2))
    elif not quiet:
        for path, size in written:
            click.echo(f"{path}: {_contents(comparison)}, {format_bytes(size)}")
    for failure in comparison.failures:
        named = failure.name in failure.error
        say_error(failure.error if named else f"{failure.name}: {failure.error}")
    return 1 if comparison.failures else 0


def _open(request: CompareRequest, *, quiet: bool) -> Sequence[EvaluatedModel]:
    from realesr_cli.evaluate.evaluated_models import common_scale, open_models
    from realesr_cli.evaluate.side_by_side import photo_names

    photo_names(request.photos, request.originals)  # Fails before anything is downloaded.
    with ProgressBar("models", bytes=True, enabled=not quiet) as progress:
        opened = open_models(
            request.models, request.engine, offline=request.compare.offline, progress=progress
        )
    common_scale(opened, None)
    return opened


def _warn_about_size(request: CompareRequest, models: Sequence[EvaluatedModel]) -> None:
    """Warn about a large page before hours of work go into it."""
    from realesr_cli.evaluate.page import warn_about_size

    if request.target.output is not None:
        pixels = sum(height * width for _, (height, width) in _sizes(request))
        versions = 1 + len(models) + bool(request.originals)
        warn_about_size(pixels * models[0].upscaler.scale ** 2 * versions, request.page)


def _write(
    comparison: Comparison, request: CompareRequest, callbacks: CompareCallbacks
) -> Sequence[tuple[Path, int]]:
    """Write the files; return them with their sizes in bytes."""
    from realesr_cli.atomic import write_errors
    from realesr_cli.evaluate.page import write_page
    from realesr_cli.evaluate.sheet import write_sheet

    target = request.target
    for path in target.paths:
        callbacks.step(f"writing {path}")
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        if path == target.output:
            write_page(comparison, path, request.page)
        else:
            write_sheet(comparison, path, request.sheet)
    return [(path, path.stat().st_size) for path in target.paths]


def _contents(comparison: Comparison) -> str:
    count = len(comparison.photos)
    versions = [version.name for version in comparison.photos[0].versions]
    return f"{count} photo{'s' if count > 1 else ''} x{comparison.scale}, {', '.join(versions)}"


def _plain(comparison: Comparison, written: Sequence[tuple[Path, int]]) -> dict[str, Any]:
    """Return what `--json` prints: the files, scores and times."""
    photos = [
        {
            "name": photo.name,
            "width": photo.width,
            "height": photo.height,
            "notes": list(photo.notes),
            "versions": [
                {"name": v.name, "kind": v.kind, "seconds": v.seconds, "scores": dict(v.scores)}
                for v in photo.versions
            ],
        }
        for photo in comparison.photos
    ]
    return {
        "scale": comparison.scale,
        "models": [{**vars(m), "files": [vars(f) for f in m.files]} for m in comparison.models],
        "photos": photos,
        "failures": [vars(failure) for failure in comparison.failures],
        "written": [{"path": str(path), "bytes": size} for path, size in written],
        "version": comparison.version,
    }
