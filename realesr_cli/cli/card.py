"""`realesr models card`: a model described as OpenModelDB wants it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from realesr_cli.cli.options import ModelType, check_targets, settings_from, settings_options
from realesr_cli.cli.terminal import say_warning
from realesr_cli.errors import ConfigError
from realesr_cli.weights.openmodeldb import CardSettings


@click.command("card")
@click.argument("model", type=ModelType())
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="JSON file; stdout if not given."
)
@settings_options(CardSettings)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there already.")
@click.pass_context
def card_command(ctx: click.Context, model: str, output: Path | None, overwrite: bool) -> None:
    """Describe MODEL as OpenModelDB, the public list of models, wants it: as JSON.

    What the registry and the file say is filled in; the rest is for you to say. Nothing is
    fetched or sent.
    """
    from realesr_cli.weights.inspect import inspect
    from realesr_cli.weights.openmodeldb import make_card

    settings = settings_from(ctx, CardSettings)
    if output is not None:
        check_card_target(output, overwrite=overwrite)
    info = inspect(model)
    if info.kind != "generator":
        raise ConfigError(f"{info.name} is no network to upscale with ({info.kind}): no card")
    card = make_card(info, settings)
    if output is None:
        click.echo(card_text(card))
    else:
        write_card(output, card)
        click.echo(str(output))
    tell_missing(card)


def check_card_target(target: Path, *, overwrite: bool) -> None:
    """Raise ConfigError where a card cannot go."""
    if target.suffix.lower() != ".json":
        raise ConfigError(f"{target}: a card is a .json file; call it so")
    check_targets([target], overwrite=overwrite)


def card_text(card: Mapping[str, Any]) -> str:
    """A card as the list's own files are laid out."""
    return json.dumps(card, ensure_ascii=False, indent=4)


def write_card(target: Path, card: Mapping[str, Any]) -> None:
    """Write a card, whole or not at all; WeightsWriteError where that cannot be."""
    from realesr_cli.weights.model_files import make_folder, write_text

    make_folder(target)
    write_text(target, card_text(card) + "\n")


def tell_missing(card: Mapping[str, Any]) -> None:
    """Say what the list will ask for."""
    from realesr_cli.weights.openmodeldb import missing

    keys = missing(card)
    if keys:
        flags = ", ".join("--tag" if key == "tags" else f"--{key}" for key in keys)
        say_warning(f"the card says nothing of {', '.join(keys)}: give {flags}")
