"""`realesr evaluate`: compute scores for models or folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from realesr_cli.cli.options import (
    PathType,
    models_option,
    offline_option,
    quiet_option,
    settings_from,
    settings_options,
)
from realesr_cli.cli.terminal import ProgressBar, say_error
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.errors import ConfigError
from realesr_cli.evaluate.settings import ImageSetSettings, ScoreSettings
from realesr_cli.settings import check, option, with_values

if TYPE_CHECKING:
    from realesr_cli.evaluate.evaluated_models import EvaluatedModel
    from realesr_cli.evaluate.evaluation import Evaluation

_STDOUT = "-"


@dataclass(frozen=True)
class ReportSettings:
    """What is printed and written."""

    per_image: bool = option(False, help="Print the scores of every image too.")
    json: str | None = option(None, help="Write everything as JSON to this file; - for stdout.")
    csv: str | None = option(None, help="Write the scores as CSV to this file; - for stdout.")
    precision: str = option(
        "fp32",
        help="Precision of the networks; fp32 gives the same scores on every machine.",
        choices=("auto", "fp32", "bf16", "fp16"),
    )

    def __post_init__(self) -> None:
        check(self)
        if self.json == _STDOUT and self.csv == _STDOUT:
            raise ConfigError("--json - and --csv - both write to stdout: give one of them a file")


@dataclass(frozen=True)
class EvaluateRequest:
    """A call of the command."""

    image_set: ImageSetSettings
    scores: ScoreSettings
    engine: EngineSettings
    report: ReportSettings
    models: tuple[str, ...]
    outputs: dict[str, Path]
    quiet: bool


@click.command("evaluate")
@click.argument("folders", nargs=-1, type=PathType())
@models_option()
@click.option(
    "--outputs",
    multiple=True,
    metavar="NAME=FOLDER",
    help="Finished images to score as a row NAME of the table; may be repeated.",
)
@settings_options(ImageSetSettings)
@settings_options(ScoreSettings, skip={"offline"})
@settings_options(ReportSettings)
@settings_options(EngineSettings, skip={"precision"}, short={"tile": ("-t",)})
@offline_option
@quiet_option
@click.pass_context
def evaluate_command(
    ctx: click.Context,
    folders: tuple[Path, ...],
    models: tuple[str, ...],
    outputs: tuple[str, ...],
    offline: bool | None,
    quiet: bool,
) -> int:
    """Compute PSNR, SSIM, NIQE and perceptual distances for models or folders.

    Each model upscales the low-quality images, which are given (--lq) or created from the ground
    truths (--degrade), and the results are compared with the ground truths (--gt). Bicubic is
    always the first row. FOLDERS contain finished images, scored beside the models; without --gt,
    only scores that need no ground truth are computed. Images are matched by file name, which may
    differ by a constant prefix or suffix.

    \b
    realesr evaluate --gt Set5/ --degrade bicubic -m x4plus -m esrgan --channel y8
    realesr evaluate --gt photos/ --degrade realesrgan -m general -m runs/mine --per-image
    realesr evaluate --gt Set14/HR --lq Set14/LR -m x4plus --outputs other=results/ --csv set14.csv
    realesr evaluate results/
    """
    report = settings_from(ctx, ReportSettings)
    engine = settings_from(ctx, EngineSettings)
    request = EvaluateRequest(
        image_set=settings_from(ctx, ImageSetSettings),
        scores=replace(settings_from(ctx, ScoreSettings), offline=offline),
        engine=with_values(engine, {"precision": report.precision}),
        report=report,
        models=models,
        outputs=_outputs(folders, outputs),
        quiet=quiet,
    )
    return _evaluate(request)


def _outputs(folders: Sequence[Path], named: Sequence[str]) -> dict[str, Path]:
    """Return the folders of finished images by the name of their row."""
    found: dict[str, Path] = {}
    given = [(path.resolve().name or str(path), path) for path in folders]
    for text in named:
        name, equals, folder = text.partition("=")
        if not (equals and name and folder):
            raise ConfigError(f"--outputs {text!r}: expected NAME=FOLDER, e.g. other=results/")
        given.append((name, Path(folder)))
    short = [name for name, _ in given]
    for name, path in given:
        label = name if short.count(name) == 1 else str(path)
        if label in found:
            raise ConfigError(f"two rows would be named {label}: omit one, or rename it")
        found[label] = path
    return found


def _evaluate(request: EvaluateRequest) -> int:
    from realesr_cli.evaluate.evaluation import evaluate

    _check_targets(request.report)
    models = _open(request)
    with ProgressBar("evaluating", unit="image", enabled=not request.quiet) as progress:
        evaluation = evaluate(
            request.image_set,
            models,
            outputs=request.outputs,
            settings=request.scores,
            engine=request.engine,
            progress=progress,
        )
    _report(evaluation, request.report)
    for failure in evaluation.failures:
        named = failure.name in failure.error
        say_error(failure.error if named else f"{failure.name}: {failure.error}")
    if evaluation.failures and not request.quiet:
        count = len(evaluation.failures)
        plural = "" if count == 1 else "s"
        click.echo(f"{count} image{plural} excluded, {len(evaluation.images)} evaluated", err=True)
    return 1 if evaluation.failures else 0


def _open(request: EvaluateRequest) -> tuple[EvaluatedModel, ...]:
    from realesr_cli.evaluate.evaluated_models import open_models

    with ProgressBar("models", bytes=True, enabled=not request.quiet) as progress:
        return open_models(
            request.models,
            request.engine,
            scale=request.image_set.scale,
            offline=request.scores.offline,
            progress=progress,
        )


def _report(evaluation: Evaluation, settings: ReportSettings) -> None:
    """Print the table first, so that it is seen even if a file cannot be written."""
    from realesr_cli.atomic import atomic_write_bytes
    from realesr_cli.evaluate import table

    if _STDOUT not in (settings.json, settings.csv):
        click.echo(table.to_text(evaluation, per_image=settings.per_image))
    for target, render in ((settings.json, table.to_json), (settings.csv, table.to_csv)):
        if target == _STDOUT:
            click.echo(render(evaluation), nl=False)
        elif target is not None:
            atomic_write_bytes(Path(target), render(evaluation).encode("utf-8", "replace"))


def _check_targets(settings: ReportSettings) -> None:
    """Raise ConfigError for a file that cannot be written, before the work is done."""
    for target in (settings.json, settings.csv):
        if target in (None, _STDOUT):
            continue
        path = os.path.abspath(str(target))
        if not os.path.isdir(os.path.dirname(path)):
            raise ConfigError(f"{target} is in a folder that does not exist: create it first")
        if os.path.isdir(path):
            raise ConfigError(f"{target} is a folder: expected a file to write to")
