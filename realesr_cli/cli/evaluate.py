"""`realesr evaluate`: models judged by numbers on a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from realesr_cli.cli.options import (
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
from realesr_cli.settings import check, option

if TYPE_CHECKING:
    from realesr_cli.evaluate.evaluated_models import EvaluatedModel
    from realesr_cli.evaluate.evaluation import Evaluation

_STDOUT = "-"


@dataclass(frozen=True)
class ReportSettings:
    """How the numbers are told."""

    per_image: bool = option(False, help="Every image's scores too, not the means alone.")
    json: str | None = option(None, help="Write everything as JSON to this file; - for stdout.")
    csv: str | None = option(None, help="Write the scores as CSV to this file; - for stdout.")
    precision: str = option(
        "fp32",
        help="Number format inside the networks; fp32 gives the same scores on every machine.",
        choices=("auto", "fp32", "bf16", "fp16"),
    )

    def __post_init__(self) -> None:
        check(self)
        if self.json == _STDOUT and self.csv == _STDOUT:
            raise ConfigError("--json - and --csv - both write to stdout: give one of them a file")


@dataclass(frozen=True)
class EvaluateRequest:
    """A call of the command."""

    which: ImageSetSettings
    judge: ScoreSettings
    engine: EngineSettings
    tell: ReportSettings
    models: tuple[str, ...]
    outputs: dict[str, Path]
    offline: bool | None
    quiet: bool


@click.command("evaluate")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@models_option()
@click.option(
    "--outputs",
    multiple=True,
    metavar="NAME=FOLDER",
    help="Finished images to judge as a row NAME of the table; may be repeated.",
)
@settings_options(ImageSetSettings)
@settings_options(ScoreSettings)
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
    """Judge models by numbers.

    Every image of --gt is compared with what each model makes of its small version, which is
    given (--lq) or made (--degrade). Plain bicubic is always the first row. FOLDERS hold finished
    images, which are judged beside the models; without --gt there are only scores that need no
    ground truth. Files belong together by name, apart from a constant beginning or end.

    \b
    realesr evaluate --gt Set5/ --degrade bicubic -m x4plus -m esrgan --channel y8
    realesr evaluate --gt photos/ --degrade realesrgan -m general -m runs/mine --per-image
    realesr evaluate --gt Set14/HR --lq Set14/LR -m x4plus --outputs other=results/ --csv set14.csv
    realesr evaluate results/
    """
    request = EvaluateRequest(
        which=settings_from(ctx, ImageSetSettings),
        judge=settings_from(ctx, ScoreSettings),
        engine=settings_from(ctx, EngineSettings),
        tell=settings_from(ctx, ReportSettings),
        models=models,
        outputs=_outputs(folders, outputs),
        offline=offline,
        quiet=quiet,
    )
    precision = {"precision": request.tell.precision}
    request = replace(request, engine=replace(request.engine, **precision))  # type: ignore[arg-type]
    return _evaluate(request)


def _outputs(folders: Sequence[Path], named: Sequence[str]) -> dict[str, Path]:
    """Folders of finished images by the name of their row."""
    found: dict[str, Path] = {}
    given = [(path.resolve().name or str(path), path) for path in folders]
    for text in named:
        name, equals, folder = text.partition("=")
        if not (equals and name and folder):
            raise ConfigError(f"--outputs {text!r}: expected NAME=FOLDER, as in other=results/")
        given.append((name, Path(folder)))
    short = [name for name, _ in given]
    for name, path in given:
        label = name if short.count(name) == 1 else str(path)
        if label in found:
            raise ConfigError(f"{label} is given twice: each row needs a name of its own")
        found[label] = path
    return found


def _evaluate(request: EvaluateRequest) -> int:
    from realesr_cli.evaluate.evaluation import evaluate

    shown = not request.quiet
    _check_targets(request.tell)
    models = _open(request)
    with ProgressBar("evaluating", unit="image", enabled=shown) as progress:
        evaluation = evaluate(
            request.which,
            models,
            outputs=request.outputs,
            settings=request.judge,
            engine=request.engine,
            offline=request.offline,
            report=progress,
        )
    _tell(evaluation, request.tell)
    for failure in evaluation.failures:
        named = failure.name in failure.error
        say_error(failure.error if named else f"{failure.name}: {failure.error}")
    if evaluation.failures and not request.quiet:
        count = len(evaluation.failures)
        click.echo(f"{count} left out, {len(evaluation.images)} judged", err=True)
    return 1 if evaluation.failures else 0


def _open(request: EvaluateRequest) -> tuple[EvaluatedModel, ...]:
    from realesr_cli.evaluate.evaluated_models import open_models

    with ProgressBar("models", bytes=True, enabled=not request.quiet) as progress:
        return open_models(
            request.models,
            request.engine,
            scale=request.which.scale,
            offline=request.offline,
            report=progress,
        )


def _tell(evaluation: Evaluation, tell: ReportSettings) -> None:
    """The table first, so that it is seen even where a file cannot be written."""
    from realesr_cli.evaluate import table

    made = ((tell.json, table.to_json), (tell.csv, table.to_csv))
    if _STDOUT not in (tell.json, tell.csv):
        click.echo(table.text(evaluation, per_image=tell.per_image))
    for target, render in made:
        if target == _STDOUT:
            click.echo(render(evaluation), nl=False)
        elif target is not None:
            _write(Path(target), render(evaluation))


def _check_targets(tell: ReportSettings) -> None:
    """ConfigError for a file that could not be written, before the work is done."""
    for target in (tell.json, tell.csv):
        if target in (None, _STDOUT):
            continue
        path = Path(str(target))
        if path.is_dir() or not path.absolute().parent.is_dir():
            what = "is a folder" if path.is_dir() else "lies in a folder that does not exist"
            raise ConfigError(f"{path} {what}: name a file to write to")


def _write(path: Path, text: str) -> None:
    from realesr_cli.atomic import atomic_write_bytes

    atomic_write_bytes(path, text.encode())
