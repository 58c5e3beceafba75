"""`realesr export`: a model as a file for other programs, checked against the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from realesr_cli.cli.model_info import check_card_target, warn_of_missing_fields, write_card
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
from realesr_cli.cli.terminal import ProgressBar, print_indented_json
from realesr_cli.errors import ConfigError
from realesr_cli.export.settings import SUFFIXES, ExportSettings
from realesr_cli.settings import check, option
from realesr_cli.weights.openmodeldb import CardSettings

if TYPE_CHECKING:
    from realesr_cli.export.exporter import ExportResult, Parity
    from realesr_cli.weights.locate import LocatedModel


@dataclass(frozen=True)
class ExportRunSettings:
    """Settings of a run besides those of the export itself."""

    output: str | None = option(
        None, help="File or folder; default: the current folder, named as the model."
    )
    denoise: float | None = option(
        None,
        help="Denoising strength: 1 removes most noise, 0 least (realesr-general-x4v3 only).",
        low=0,
        high=1,
    )
    card: bool = option(False, help="Write a card for OpenModelDB (.json) beside the file.")
    overwrite: bool = option(False, help="Replace existing files.")

    def __post_init__(self) -> None:
        check(self)


@click.command("export")
@click.argument("model", type=ModelType())
@click.option(
    "--to",
    required=True,
    type=click.Choice(tuple(SUFFIXES)),
    help="onnx, safetensors (fp32), pth (as other tools read it), half (fp16 safetensors), or ncnn "
    "(.param and .bin for realesrgan-ncnn-vulkan and Upscayl).",
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
    An ONNX file takes batches of any size and images of any size; writing one needs
    realesr-cli[onnx].

    \b
    realesr export x4plus --to onnx                     RealESRGAN_x4plus.onnx here
    realesr export runs/mine --to pth -o mine.pth --license MIT --card --author jane-doe
    realesr export x4plus:realesrnet@0.3 --to half -o softer.safetensors
    realesr export x4plus --to ncnn --half              for Upscayl's folder of custom models
    """
    from dataclasses import replace

    from realesr_cli.export.exporter import export_model, require_library
    from realesr_cli.weights.load import open_model
    from realesr_cli.weights.locate import locate

    settings = settings_from(ctx, ExportSettings, ExportSettings(to))
    run = settings_from(ctx, ExportRunSettings)
    card = _card_settings(ctx, run, settings.license)
    # Without a spare: another network must not take the name of one that cannot be fetched.
    located = replace(locate(model, denoise=run.denoise), spare=None)
    target = _choose_target(located, settings, run)
    require_library(settings)
    with ProgressBar(located.name, bytes=True, enabled=not quiet) as progress:
        opened = open_model(located, offline=offline, progress=progress)
    done = export_model(opened, target, settings, overwrite=run.overwrite)
    if as_json:
        print_indented_json(done)
    elif not quiet:
        click.echo("\n".join(_format_result(done, opened.architecture.describe())))
    if run.card:
        _write_card(located, done, card)


def _card_settings(ctx: click.Context, run: ExportRunSettings, license: str | None) -> CardSettings:
    given = given_settings(ctx, CardSettings)
    if given and not run.card:
        raise ConfigError(f"--{next(iter(given))} is for a card: add --card")
    return settings_from(ctx, CardSettings, CardSettings(license=license))


def _choose_target(located: LocatedModel, settings: ExportSettings, run: ExportRunSettings) -> Path:
    """Return the file to write, checked before anything is fetched."""
    from realesr_cli.export.exporter import check_target

    name = located.name + SUFFIXES[settings.to]
    target = Path(name)
    if run.output is not None:
        target = Path(run.output) / name if is_folder(run.output) else Path(run.output)
    check_target(target, settings, overwrite=run.overwrite)
    sources = [part.path for part in located.parts if part.path is not None]
    check_targets([target], overwrite=run.overwrite, inputs=sources)
    if run.card:
        check_card_target(target.with_suffix(".json"), overwrite=run.overwrite)
    return target


def _format_result(done: ExportResult, network: str) -> list[str]:
    opset = "" if done.opset is None else f", opset {done.opset}"
    dtype = done.description["dtype"]
    sources = done.description["sources"]
    made_of = ", ".join(f"{s['name']} (sha256 {s['sha256'][:12]})" for s in sources)
    return [
        f"{done.path}: {network}, {dtype}{opset}, {done.bytes:,} bytes",
        f"  of {made_of}, license {done.description['license']}",
        *(f"  {_format_parity(one)}" for one in done.parity),
    ]


def _format_parity(one: Parity) -> str:
    count = f"{one.batch} images of " if one.batch > 1 else ""
    size = f"{count}{one.width}x{one.height}"
    if one.psnr is None:
        return f"{size}: equal to the model's output"
    return f"{size}: differs from the model by at most {one.max_abs:.1e}, PSNR {one.psnr:.1f} dB"


def _write_card(located: LocatedModel, done: ExportResult, settings: CardSettings) -> None:
    from realesr_cli.weights.openmodeldb import make_card, resource
    from realesr_cli.weights.provenance import inspect_model

    file: dict[str, Any] = resource(done.path, done.bytes, done.sha256)
    card = make_card(inspect_model(located), settings, [file])
    write_card(done.path.with_suffix(".json"), card)
    warn_of_missing_fields(card)
