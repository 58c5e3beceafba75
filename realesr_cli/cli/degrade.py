"""`realesr degrade`: apply the training degradation to an image."""

from __future__ import annotations

import json
import re
import secrets
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from realesr_cli.cli.options import (
    check_targets,
    flag_name,
    given_settings,
    json_option,
    quiet_option,
    settings_from,
    settings_options,
)
from realesr_cli.errors import ConfigError, RealesrWarning
from realesr_cli.plain import merge, parse_override, read_json, read_toml
from realesr_cli.settings import check, option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from realesr_cli.degrade.config import DegradationConfig
    from realesr_cli.degrade.recipe import Recipe
    from realesr_cli.image.types import Image

DEFAULT_PRESET = "realesrgan"

_MAX_CELLS = 400


@dataclass(frozen=True)
class DegradeSettings:
    """Options of the command."""

    output: Path | None = option(None, help="Image to write.")
    preset: str | None = option(
        None, help=f"Named degradation (--list shows them); default: {DEFAULT_PRESET}."
    )
    config: Path | None = option(
        None, help="TOML file with the settings of a degradation or of a training run."
    )
    scale: int = option(4, help="Ground-truth size over low-quality size.", low=1, high=16)
    seed: int | None = option(None, help="Random seed; default: a new one, printed.", low=0)
    grid: str | None = option(
        None, help="COLUMNSxROWS: write a sheet with a crop and its degraded versions."
    )
    crop: int = option(256, help="Side of the grid's crop in pixels.", low=16, high=4096)
    recipe: Path | None = option(None, help="JSON recipe to replay, bit-exactly.")
    save_recipe: Path | None = option(None, help="Write the recipe to this JSON file.")
    overwrite: bool = option(False, help="Replace existing files.")

    def __post_init__(self) -> None:
        check(self)


@click.command("degrade")
@click.argument("photo", required=False, type=click.Path(path_type=Path))
@settings_options(DegradeSettings, short={"output": ("-o",)})
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the degradation, as in --set final.sinc=0.5; may be repeated.",
)
@click.option("--list", "list_only", is_flag=True, help="List the named degradations.")
@json_option
@quiet_option
@click.pass_context
def degrade_command(
    ctx: click.Context,
    photo: Path | None,
    assignments: tuple[str, ...],
    list_only: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Apply the training degradation to PHOTO and print its steps.

    The result is --scale times smaller. With --grid it is a sheet: the photo and what the network
    is trained on.

    \b
    realesr degrade photo.png -o preview.png --grid 4x4 --seed 1
    realesr degrade photo.png -o small.png --preset light --save-recipe r.json
    realesr degrade photo.png -o again.png --recipe r.json
    """
    if list_only:
        _list_presets(as_json)
        return
    settings = settings_from(ctx, DegradeSettings)
    if photo is None or settings.output is None:
        raise click.UsageError("expected a photo, and -o with the image to write", ctx)
    _check_options(settings, photo)
    if settings.recipe is not None:
        ignored = [
            flag_name(key)
            for key in ("preset", "config", "seed", "scale", "crop")
            if key in given_settings(ctx, DegradeSettings)
        ]
        for flag in [*ignored, *(["--set"] if assignments else [])]:
            raise ConfigError(f"{flag} has no effect with --recipe; omit one of them")
    summary = _degrade(photo, settings, assignments)
    if as_json:
        click.echo(json.dumps(summary, ensure_ascii=False, indent=2))
    elif not quiet:
        _print_summary(summary)


def _list_presets(as_json: bool) -> None:
    from realesr_cli.degrade.presets import DESCRIPTIONS

    if as_json:
        click.echo(json.dumps(DESCRIPTIONS, indent=2))
        return
    width = max(len(name) for name in DESCRIPTIONS)
    for name, text in DESCRIPTIONS.items():
        click.echo(f"{name:{width}}  {text}")


def _check_options(settings: DegradeSettings, photo: Path) -> None:
    """Raise ConfigError for options that contradict each other or would destroy a file."""
    if settings.preset is not None and settings.config is not None:
        raise ConfigError("--preset and --config: omit one of them (a TOML file can name a preset)")
    targets = [path for path in (settings.output, settings.save_recipe) if path is not None]
    if len(set(targets)) < len(targets):
        raise ConfigError(f"-o and --save-recipe name the same file, {settings.output}")
    check_targets(targets, overwrite=settings.overwrite, inputs=[photo])


def _degrade(photo: Path, settings: DegradeSettings, assignments: Sequence[str]) -> dict[str, Any]:
    """Degrade the photo, write the result and return what was done as plain data."""
    from realesr_cli.degrade import preview
    from realesr_cli.image.read import from_array, read_image
    from realesr_cli.image.write import write_image

    assert settings.output is not None
    grid = _parse_grid(settings.grid)
    image = read_image(photo)
    _warn_of_losses(image, photo)
    recipes, seed = _make_recipes(image, settings, assignments, grid)
    if grid is None:
        pixels = preview.degrade_image(image.pixels, recipes[0])
    else:
        crop = preview.crop_center(image.pixels, (recipes[0].height, recipes[0].width))
        pixels = preview.make_sheet(crop, recipes, grid[0])
    write_image(from_array(pixels), settings.output)
    if settings.save_recipe is not None:
        _save_recipes(settings.save_recipe, recipes)
    return {
        "input": str(photo),
        "output": str(settings.output),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "seed": seed,
        "recipes": [recipe.to_plain() for recipe in recipes],
    }


def _parse_grid(text: str | None) -> tuple[int, int] | None:
    """Parse COLUMNSxROWS."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,3})[xX](\d{1,3})", text.strip())
    columns, rows = (int(number) for number in found.groups()) if found else (0, 0)
    if not 1 < columns * rows <= _MAX_CELLS:
        raise ConfigError(
            f"--grid {text!r}: expected COLUMNSxROWS, as in 4x4, with 2 to {_MAX_CELLS} cells"
        )
    return columns, rows


def _warn_of_losses(image: Image, photo: Path) -> None:
    lost = []
    if image.has_alpha:
        lost.append("transparency is dropped")
    if image.bits > 8:
        lost.append(f"{image.bits} bits per channel are reduced to 8")
    for text in lost:
        warnings.warn(f"{photo}: {text}, as in training", RealesrWarning, stacklevel=2)


def _make_recipes(
    image: Image,
    settings: DegradeSettings,
    assignments: Sequence[str],
    grid: tuple[int, int] | None,
) -> tuple[tuple[Recipe, ...], int | None]:
    """Read the recipes from a file, or draw them; return them and the seed they were drawn from."""
    import numpy as np

    from realesr_cli.degrade.degradation import sample_batch
    from realesr_cli.degrade.preview import largest_crop_size

    count = 1 if grid is None else grid[0] * grid[1] - 1
    if settings.recipe is not None:
        return _load_recipes(settings.recipe, count), None
    config = _load_config(settings, assignments)
    seed = secrets.randbits(32) if settings.seed is None else settings.seed
    size = image.height, image.width
    if grid is not None:
        size = largest_crop_size(image.pixels, settings.crop, settings.scale)
    rng = np.random.default_rng(seed)
    return sample_batch(config, rng, count, scale=settings.scale, size=size), seed


def _load_config(settings: DegradeSettings, assignments: Sequence[str]) -> DegradationConfig:
    from realesr_cli.degrade.presets import parse_degradation

    table: dict[str, Any] = {"preset": settings.preset or DEFAULT_PRESET}
    if settings.config is not None:
        table = _read_table(settings.config)
    for text in assignments:
        table = merge(table, parse_override(text))
    return parse_degradation(table)


def _read_table(path: Path) -> dict[str, Any]:
    """Read the degradation settings of a file: the whole file, or those of a training run."""
    from realesr_cli.train.recipes import read_recipe

    table = read_toml(path)
    if "extends" in table:
        table = read_recipe(str(path.resolve()))
    found = table.get("degradation", table)
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: degradation: expected a table, got {found!r}")
    return found


def _load_recipes(path: Path, count: int) -> tuple[Recipe, ...]:
    from realesr_cli.degrade.recipe import recipes_from_plain

    data = read_json(path)
    try:
        recipes = recipes_from_plain(data)
    except ConfigError as error:
        raise error.prefixed(str(path)) from None
    if len(recipes) != count:
        fitting = f"--grid with {len(recipes) + 1} cells" if len(recipes) > 1 else "no --grid"
        raise ConfigError(f"{path}: expected {count} recipes, got {len(recipes)}; use {fitting}")
    return recipes


def _save_recipes(path: Path, recipes: Sequence[Recipe]) -> None:
    from realesr_cli.atomic import atomic_write_bytes
    from realesr_cli.degrade.recipe import recipes_to_plain

    atomic_write_bytes(path, json.dumps(recipes_to_plain(recipes), indent=1).encode())


def _print_summary(summary: dict[str, Any]) -> None:
    from realesr_cli.degrade.recipe import Recipe, describe

    seed = "" if summary["seed"] is None else f", seed {summary['seed']}"
    click.echo(f"{summary['output']}: {summary['width']}x{summary['height']}{seed}")
    for number, plain in enumerate(summary["recipes"], start=1):
        if len(summary["recipes"]) > 1:
            click.echo(f"version {number}")
        for line in describe(Recipe.from_plain(plain)):
            click.echo(f"  {line}")
