"""`realesr models info` and `card`: a model described for people and for OpenModelDB."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from realesr_cli.cli.options import (
    ModelType,
    check_targets,
    json_option,
    settings_from,
    settings_options,
)
from realesr_cli.cli.terminal import print_indented_json, say_warning
from realesr_cli.errors import ConfigError
from realesr_cli.weights.openmodeldb import CardSettings

_LONGEST_RECORD = 100
"""Characters of a recorded value that `info` shows."""


@click.command("info")
@click.argument("model", type=ModelType())
@json_option
def info_command(model: str, as_json: bool) -> None:
    """Show everything known about MODEL: a name, a weight file, or a training run's folder."""
    from realesr_cli.weights.provenance import inspect_model

    info = inspect_model(model)
    if as_json:
        print_indented_json(info)
        return
    where = str(info.path or ("mixed when it is used" if info.cached else "not in the cache"))
    rows = [
        ("name", info.name),
        ("also", ", ".join(info.aliases)),
        ("for", info.about),
        ("kind", info.kind),
        ("network", info.description or ""),
        ("parameters", f"{info.parameters:,}" if info.parameters else ""),
        ("scale", f"x{info.scale}" if info.scale else ""),
        ("quality", info.quality or ""),
        ("speed", f"{info.speed:g} times RealESRGAN_x4plus" if info.speed else ""),
        ("license", info.license),
        ("file", where),
        ("size", f"{info.bytes:,} bytes" if info.bytes else "unknown"),
        ("sha256", info.sha256 or "unknown"),
        *(("address", url) for url in info.urls),
        ("samples", info.samples or ""),
        *recorded_rows(info.recorded),
    ]
    for label, text in rows:
        if text:
            click.echo(f"{label + ':':12}{text}")
    if info.problem:
        say_warning(f"{where}: {info.problem}")


def recorded_rows(recorded: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a file records of itself as labels and texts, a line for each of its sources."""
    rows = []
    for key, value in recorded.items():
        if key == "sources" and isinstance(value, list) and all(isinstance(s, dict) for s in value):
            rows += [("made of", recorded_text(_summarize_source(source))) for source in value]
        else:
            rows.append((key, recorded_text(value)))
    return rows


def _summarize_source(source: dict[str, Any]) -> dict[str, Any]:
    """Return what one line shows of a source: the start of its hash, its own sources counted."""
    shown = {key: source[key] for key in ("name", "share", "license", "sha256") if source.get(key)}
    if "sha256" in shown:
        shown["sha256"] = str(shown["sha256"])[:12]
    parts = source.get("sources")
    return shown | ({"made of": len(parts)} if parts and isinstance(parts, list) else {})


def recorded_text(value: Any) -> str:
    """Return one line for what a file records of itself; a whole configuration is only counted."""
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, dict) and not any(isinstance(v, (dict, list)) for v in value.values()):
        text = ", ".join(f"{key} {recorded_text(item)}" for key, item in value.items())
    else:
        # As JSON, so that a file from elsewhere cannot send control characters to the terminal.
        text = json.dumps(value, ensure_ascii=False)
        text = text[1:-1] if isinstance(value, str) else text
    return text if len(text) <= _LONGEST_RECORD else f"{len(text):,} characters (--json shows all)"


@click.command("card")
@click.argument("model", type=ModelType())
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file; default: stdout.")
@settings_options(CardSettings)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.pass_context
def card_command(ctx: click.Context, model: str, output: Path | None, overwrite: bool) -> None:
    """Describe MODEL as JSON in the format of OpenModelDB, the public list of models.

    Known fields are filled in from the registry and the file; options add the rest. Nothing is
    downloaded or sent.
    """
    from realesr_cli.weights.openmodeldb import make_card
    from realesr_cli.weights.provenance import inspect_model

    settings = settings_from(ctx, CardSettings)
    if output is not None:
        check_card_target(output, overwrite=overwrite)
    info = inspect_model(model)
    if info.kind != "generator":
        raise ConfigError(f"{info.name} cannot upscale images, it is a {info.kind} file: no card")
    card = make_card(info, settings)
    if output is None:
        click.echo(format_card(card))
    else:
        write_card(output, card)
        click.echo(str(output))
    warn_of_missing_fields(card)


def check_card_target(target: Path, *, overwrite: bool) -> None:
    """Raise ConfigError where a card cannot be written to `target`."""
    if target.suffix.lower() != ".json":
        raise ConfigError(f"{target}: expected a name that ends in .json for a card")
    check_targets([target], overwrite=overwrite)


def format_card(card: Mapping[str, Any]) -> str:
    """Return a card as text, laid out as the list's own files."""
    return json.dumps(card, ensure_ascii=False, indent=4)


def write_card(target: Path, card: Mapping[str, Any]) -> None:
    """Write a card atomically. Raises WeightsWriteError."""
    from realesr_cli.weights.model_files import make_folder, write_text

    make_folder(target)
    write_text(target, format_card(card) + "\n")


def warn_of_missing_fields(card: Mapping[str, Any]) -> None:
    """Print the options for fields that the list requires and the card lacks."""
    from realesr_cli.weights.openmodeldb import missing_fields

    keys = missing_fields(card)
    if keys:
        flags = ", ".join("--tag" if key == "tags" else f"--{key}" for key in keys)
        say_warning(f"the card lacks {', '.join(keys)}: use {flags}")
