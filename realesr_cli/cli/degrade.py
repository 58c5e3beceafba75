"""`realesr degrade`: what training would show the network, for one photo."""

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
    flag_name,
    given_settings,
    json_option,
    quiet_option,
    settings_from,
    settings_options,
)
from realesr_cli.errors import ConfigError, RealesrWarning
from realesr_cli.plain import merge, parse_override, read_toml
from realesr_cli.settings import check, option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from realesr_cli.degrade.config import DegradationConfig
    from realesr_cli.degrade.recipe import Recipe
    from realesr_cli.image.types import Image

DEFAULT_PRESET = "realesrgan"

_LARGEST_GRID = 400

_IDLE = "{} has no effect with --recipe, which says everything: drop one of them"


@dataclass(frozen=True)
class DegradeSettings:
    """What the command is asked for."""

    output: Path | None = option(None, help="Image to write.")
    preset: str | None = option(
        None, help=f"A known degradation (--list tells which); {DEFAULT_PRESET} if not given."
    )
    config: Path | None = option(
        None, help="TOML file with the settings of a degradation, or of a training run."
    )
    scale: int = option(4, help="How many times smaller the result is.", low=1, high=16)
    seed: int | None = option(
        None, help="For the same choices again; drawn and told if not given.", low=0
    )
    grid: str | None = option(
        None, help="COLUMNSxROWS: the middle of the photo, then degraded versions, enlarged."
    )
    crop: int = option(256, help="Side of the grid's crop, pixels of the photo.", low=16, high=4096)
    recipe: Path | None = option(None, help="Do what this JSON file says, to the last bit.")
    save_recipe: Path | None = option(None, help="Write what was done to this JSON file.")
    overwrite: bool = option(False, help="Replace files that are there already.")

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
@click.option("--list", "list_only", is_flag=True, help="List the known degradations.")
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
    """Make PHOTO worse as training does, and tell what was done to it.

    The result is an image --scale times smaller. With --grid it is a sheet for looking at: what
    the network will be shown.

    \b
    realesr degrade photo.png -o preview.png --grid 4x4 --seed 1
    realesr degrade photo.png -o small.png --preset light --save-recipe r.json
    realesr degrade photo.png -o again.png --recipe r.json
    """
    if list_only:
        _list(as_json)
        return
    settings = settings_from(ctx, DegradeSettings)
    if photo is None or settings.output is None:
        raise click.UsageError("name a photo, and with -o the image to write", ctx)
    _check(settings, photo)
    if settings.recipe is not None:
        for key in ("preset", "config", "seed", "scale", "crop"):
            if key in given_settings(ctx, DegradeSettings):
                raise ConfigError(_IDLE.format(flag_name(key)))
        if assignments:
            raise ConfigError(_IDLE.format("--set"))
    told = _degrade(photo, settings, assignments)
    if as_json:
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
    elif not quiet:
        _tell(told)


def _list(as_json: bool) -> None:
    from realesr_cli.degrade.presets import DESCRIPTIONS

    if as_json:
        click.echo(json.dumps(DESCRIPTIONS, indent=2))
        return
    width = max(len(name) for name in DESCRIPTIONS)
    for name, text in DESCRIPTIONS.items():
        click.echo(f"{name:{width}}  {text}")


def _check(settings: DegradeSettings, photo: Path) -> None:
    """ConfigError for options that contradict each other or would destroy a file."""
    if settings.preset is not None and settings.config is not None:
        raise ConfigError("--preset and --config: give one (a TOML file may name a preset itself)")
    for path in (settings.output, settings.save_recipe):
        if path is None:
            continue
        if path.resolve() == photo.resolve():
            raise ConfigError(f"{path} is the photo itself: write to another file")
        if path.exists() and not settings.overwrite:
            raise ConfigError(f"{path} is there already: --overwrite replaces it")
    if settings.output == settings.save_recipe:
        raise ConfigError("-o and --save-recipe name the same file")


def _degrade(photo: Path, settings: DegradeSettings, assignments: Sequence[str]) -> dict[str, Any]:
    from realesr_cli.degrade import preview
    from realesr_cli.image.read import from_array, read_image
    from realesr_cli.image.write import write_image

    assert settings.output is not None
    grid = _grid(settings.grid)
    image = read_image(photo)
    _warn_of_losses(image, photo)
    recipes, seed = _recipes(image, settings, assignments, grid)
    if grid is None:
        pixels = preview.degraded(image.pixels, recipes[0])
    else:
        crop = preview.central_crop(image.pixels, (recipes[0].height, recipes[0].width))
        pixels = preview.sheet(crop, recipes, grid[0])
    write_image(from_array(pixels), settings.output)
    if settings.save_recipe is not None:
        _save(settings.save_recipe, recipes)
    return {
        "input": str(photo),
        "output": str(settings.output),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "seed": seed,
        "recipes": [recipe.to_plain() for recipe in recipes],
    }


def _grid(text: str | None) -> tuple[int, int] | None:
    """Columns and rows."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,3})[xX](\d{1,3})", text.strip())
    columns, rows = (int(number) for number in found.groups()) if found else (0, 0)
    if not 1 < columns * rows <= _LARGEST_GRID:
        raise ConfigError(
            f"--grid {text!r}: expected COLUMNSxROWS, as in 4x4, with 2 to {_LARGEST_GRID} cells"
        )
    return columns, rows


def _warn_of_losses(image: Image, photo: Path) -> None:
    if image.has_alpha:
        warnings.warn(
            f"{photo}: transparency is left out, as in training", RealesrWarning, stacklevel=2
        )
    if image.bits > 8:
        warnings.warn(
            f"{photo}: {image.bits} bits a channel become 8, as in training",
            RealesrWarning,
            stacklevel=2,
        )


def _recipes(
    image: Image,
    settings: DegradeSettings,
    assignments: Sequence[str],
    grid: tuple[int, int] | None,
) -> tuple[tuple[Recipe, ...], int | None]:
    """What is to be done, from a file or drawn, and the seed it was drawn from."""
    import numpy as np

    from realesr_cli.degrade.pipeline import sample_batch
    from realesr_cli.degrade.preview import crop_size

    count = 1 if grid is None else grid[0] * grid[1] - 1
    if settings.recipe is not None:
        return _load(settings.recipe, count), None
    config = _config(settings, assignments)
    seed = secrets.randbits(32) if settings.seed is None else settings.seed
    size = image.height, image.width
    if grid is not None:
        size = crop_size(image.pixels, settings.crop, settings.scale)
    rng = np.random.default_rng(seed)
    return sample_batch(config, rng, count, scale=settings.scale, size=size), seed


def _config(settings: DegradeSettings, assignments: Sequence[str]) -> DegradationConfig:
    from realesr_cli.degrade.presets import from_table

    table: dict[str, Any] = {"preset": settings.preset or DEFAULT_PRESET}
    if settings.config is not None:
        table = _table(settings.config)
    for text in assignments:
        table = merge(table, parse_override(text))
    return from_table(table)


def _table(path: Path) -> dict[str, Any]:
    """The settings of a degradation in a file of its own, or in that of a training run."""
    from realesr_cli.train.recipes import recipe_data

    table = read_toml(path)
    if "extends" in table:
        table = recipe_data(str(path.resolve()))
    found = table.get("degradation", table)
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: degradation = {found!r}: expected a table")
    return found


def _load(path: Path, count: int) -> tuple[Recipe, ...]:
    from realesr_cli.degrade.recipe import recipes_from_json

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        recipes = recipes_from_json(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if len(recipes) != count:
        fitting = f"a --grid of {len(recipes) + 1} cells" if len(recipes) > 1 else "no --grid"
        raise ConfigError(
            f"{path}: {count} recipes are needed and {len(recipes)} there: give {fitting}"
        )
    return recipes


def _save(path: Path, recipes: Sequence[Recipe]) -> None:
    from realesr_cli.atomic import atomic_write_bytes
    from realesr_cli.degrade.recipe import recipes_to_json

    atomic_write_bytes(path, recipes_to_json(recipes).encode())


def _tell(told: dict[str, Any]) -> None:
    from realesr_cli.degrade.describe import describe
    from realesr_cli.degrade.recipe import Recipe

    seed = "" if told["seed"] is None else f", seed {told['seed']}"
    click.echo(f"{told['output']}: {told['width']}x{told['height']}{seed}")
    for number, plain in enumerate(told["recipes"], start=1):
        if len(told["recipes"]) > 1:
            click.echo(f"version {number}")
        for line in describe(Recipe.from_plain(plain)):
            click.echo(f"  {line}")
