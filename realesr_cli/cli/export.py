"""`realesr export`: a model as a file for other programs, checked against the model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from realesr_cli.cli.card import check_card_target, tell_missing, write_card
from realesr_cli.cli.options import (
    ModelType,
    check_targets,
    given_settings,
    is_folder,
    json_option,
    offline_option,
    quiet_option,
    settings_from,
    settings_options,
)
from realesr_cli.cli.terminal import ProgressBar
from realesr_cli.errors import ConfigError
from realesr_cli.export.settings import ENDINGS, ExportSettings
from realesr_cli.settings import check, option, to_plain
from realesr_cli.weights.openmodeldb import CardSettings

if TYPE_CHECKING:
    from realesr_cli.export.exporter import ExportResult, Parity
    from realesr_cli.weights.locate import LocatedModel


@dataclass(frozen=True)
class ExportRunSettings:
    """What goes beside the settings of the export itself."""

    output: str | None = option(
        None, help="File or folder; a file here, called as the model, if not given."
    )
    denoise: float | None = option(
        None, help="1 cleans most, 0 keeps the grain (realesr-general-x4v3 only).", low=0, high=1
    )
    card: bool = option(False, help="Write a card for OpenModelDB (.json) beside the file.")
    overwrite: bool = option(False, help="Replace files that are there already.")

    def __post_init__(self) -> None:
        check(self)


@click.command("export")
@click.argument("model", type=ModelType())
@click.option(
    "--to",
    required=True,
    type=click.Choice(tuple(ENDINGS)),
    help="onnx, safetensors (fp32), pth (as other tools read it), or half (fp16 safetensors).",
)
@settings_options(ExportRunSettings, only={"output"}, short={"output": ("-o",)})
@settings_options(ExportSettings, skip={"to"})
@settings_options(ExportRunSettings, only={"denoise", "card"})
@settings_options(CardSettings, skip={"license"})
@settings_options(ExportRunSettings, only={"overwrite"})
@offline_option
@quiet_option
@json_option
@click.pass_context
def export_command(
    ctx: click.Context, model: str, to: str, offline: bool | None, quiet: bool, as_json: bool
) -> None:
    """Write MODEL (a name, a file, a training run or A:B@0.8) as a file for other programs.

    The file is run and compared with the model on three test images before it gets its name.
    An ONNX file takes images of any size and number; writing one needs realesr-cli[onnx].

    \b
    realesr export x4plus --to onnx                     RealESRGAN_x4plus.onnx here
    realesr export runs/mine --to pth -o mine.pth --license MIT --card --author jane-doe
    realesr export x4plus:realesrnet@0.3 --to half -o softer.safetensors
    """
    from realesr_cli.export.exporter import export_model
    from realesr_cli.export.onnx_file import require_onnx
    from realesr_cli.weights.load import open_model
    from realesr_cli.weights.locate import AUTO, denoise_partner, locate

    settings = settings_from(ctx, ExportSettings, ExportSettings(to))
    run = settings_from(ctx, ExportRunSettings)
    words = _card_words(ctx, run, settings.license)
    located = locate(model)
    if run.denoise is not None:
        denoise_partner(located)
    target = _target(located, settings, run)
    if to == "onnx":
        require_onnx()
    if model.lower() == AUTO:  # another network must not take its name where it cannot be fetched
        model = located.name
    with ProgressBar(located.name, bytes=True, enabled=not quiet) as progress:
        opened = open_model(model, denoise=run.denoise, offline=offline, report=progress)
    done = export_model(opened, target, settings, overwrite=run.overwrite)
    if as_json:
        click.echo(json.dumps(to_plain(done), ensure_ascii=False, indent=2))
    elif not quiet:
        click.echo("\n".join(_lines(done, opened.architecture.describe())))
    if run.card:
        _write_card(model, done, words)


def _card_words(ctx: click.Context, run: ExportRunSettings, license: str | None) -> CardSettings:
    given = given_settings(ctx, CardSettings)
    if given and not run.card:
        raise ConfigError(f"--{next(iter(given))} is for a card: give --card too")
    return settings_from(ctx, CardSettings, CardSettings(license=license))


def _target(located: LocatedModel, settings: ExportSettings, run: ExportRunSettings) -> Path:
    """The file to write, looked over before anything is fetched."""
    from realesr_cli.export.exporter import check_target

    name = located.name + ENDINGS[settings.to]
    target = Path(name)
    if run.output is not None:
        target = Path(run.output) / name if is_folder(run.output) else Path(run.output)
    check_target(target, settings, overwrite=run.overwrite)
    sources = [part.path for part in located.parts if part.path is not None]
    check_targets([target], overwrite=run.overwrite, inputs=sources)
    if run.card:
        check_card_target(target.with_suffix(".json"), overwrite=run.overwrite)
    return target


def _lines(done: ExportResult, network: str) -> list[str]:
    opset = "" if done.opset is None else f", opset {done.opset}"
    numbers = done.description["numbers"]
    sources = done.description["sources"]
    made_of = ", ".join(f"{s['name']} (sha256 {s['sha256'][:12]})" for s in sources)
    return [
        f"{done.path}: {network}, {numbers}{opset}, {done.bytes:,} bytes",
        f"  of {made_of}, license {done.description['license']}",
        *(f"  {_parity_text(one)}" for one in done.parity),
    ]


def _parity_text(one: Parity) -> str:
    count = f"{one.batch} images of " if one.batch > 1 else ""
    size = f"{count}{one.width}x{one.height}"
    if one.psnr is None:
        return f"{size}: the same numbers as the model's"
    return f"{size}: differs from the model by at most {one.max_abs:.1e}, PSNR {one.psnr:.1f} dB"


def _write_card(model: str, done: ExportResult, words: CardSettings) -> None:
    from realesr_cli.weights.inspect import inspect
    from realesr_cli.weights.openmodeldb import make_card, resource

    file: dict[str, Any] = resource(done.path, done.bytes, done.sha256)
    card = make_card(inspect(model), words, [file])
    write_card(done.path.with_suffix(".json"), card)
    tell_missing(card)
