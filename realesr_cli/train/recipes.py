"""Recipes: TOML files layered over each other, with overrides `a.b=c` on top, to a TrainConfig."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from realesr_cli.degrade.presets import parse_degradation
from realesr_cli.errors import ConfigError
from realesr_cli.plain import merge, parse_override, read_toml, to_toml
from realesr_cli.settings import from_plain, to_plain
from realesr_cli.text import did_you_mean, format_value
from realesr_cli.train.config import StageConfig, TrainConfig
from realesr_cli.train.losses import LOSSES

Plain = dict[str, Any]

_RUN_KEYS = [field.name for field in dataclasses.fields(TrainConfig)]
_STAGE_KEYS = [field.name for field in dataclasses.fields(StageConfig) if field.name != "name"]

_PRESET = "degradation.preset="


def recipe_names() -> list[str]:
    """Return the names of the built-in recipes, sorted."""
    folder = resources.files("realesr_cli.train") / "recipes"
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".toml"))


def describe_recipe(name: str) -> str:
    """Return the first line of a built-in recipe's comment."""
    file = resources.files("realesr_cli.train") / "recipes" / f"{name}.toml"
    return file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def load_config(
    recipe: str | Mapping[str, Any],
    assignments: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """Build the configuration of a recipe (name, TOML file or plain data) with overrides on top.

    `assignments` are texts `a.b=c`; `values` are given by dotted key and applied before them. A
    setting of a stage is `stages.NAME.key`. Without a stage, a loss (`pixel`, `gan`, ...) is set in
    the stages that use it, or in the last one if none does, and other settings of stages in all of
    them. Raises ConfigError for anything unknown.
    """
    data = read_recipe(recipe) if isinstance(recipe, str) else recipe
    plain: Plain = to_plain(data)
    # The preset first: other keys of `degradation` override it, whatever the order.
    presets = [text for text in assignments if text.replace(" ", "").startswith(_PRESET)]
    for text in presets:
        plain = merge(plain, parse_override(text))
    plain["degradation"] = to_plain(_parse_degradation(plain.get("degradation", {})))
    for key, value in (values or {}).items():
        _put(plain, key.split("."), value)
    for text in assignments:
        if text not in presets:
            _assign(plain, text)
    _check_keys(plain)
    return from_plain(TrainConfig, plain)


def per_stage(data: Mapping[str, Any], key: str, items: Sequence[Any]) -> dict[str, Any]:
    """Return one value for every stage, or one for each, as `values` of `load_config`.

    Raises ConfigError if there are neither one nor as many values as stages.
    """
    names = [str(stage.get("name", i)) for i, stage in enumerate(_stages(data))]
    if len(items) not in (1, len(names)):
        raise ConfigError(
            f"{key}: expected 1 value or one for each stage ({', '.join(names)}), got {len(items)}"
        )
    each = list(items) * len(names) if len(items) == 1 else list(items)
    return {f"stages.{name}.{key}": item for name, item in zip(names, each, strict=True)}


def read_recipe(recipe: str) -> Plain:
    """Read a recipe by name or file, layered over the recipes that it extends.

    Tables are merged key by key; lists, the stages among them, replace those of the base.
    """
    seen: list[str] = []
    layers: list[Plain] = []
    name: str | None = recipe
    folder = Path()
    while name is not None:
        path = _find_recipe(name, folder)
        if str(path) in seen:
            raise ConfigError(f"{path}: extends itself, through {' and '.join(seen)}")
        seen.append(str(path))
        layer = read_toml(path)
        name = layer.pop("extends", None)
        if name is not None and not isinstance(name, str):
            raise ConfigError(f"{path}: extends: expected the name of a recipe, got {name!r}")
        layers.append(layer)
        folder = path.parent
    data: Plain = {}
    for layer in reversed(layers):
        data = merge(data, layer)
    return data


def _find_recipe(recipe: str, folder: Path) -> Path:
    """Return the file of a recipe: built in, or a path relative to the extending recipe."""
    known = recipe_names()
    if recipe in known:
        return Path(str(resources.files("realesr_cli.train") / "recipes" / f"{recipe}.toml"))
    if recipe.endswith(".toml") or "/" in recipe:
        try:
            inside = folder / recipe
            return inside if inside.is_file() else Path(recipe)
        except (OSError, ValueError) as error:  # a name too long, or with a null byte
            raise ConfigError(f"recipe {format_value(recipe)}: {error}") from None
    raise ConfigError(
        f"unknown recipe {format_value(recipe)}{did_you_mean(recipe, known)} (available: "
        f"{', '.join(known)}, or a TOML file)"
    )


def _parse_degradation(table: Any) -> Any:
    if not isinstance(table, Mapping):
        raise ConfigError(f"degradation: expected a table, got {format_value(table)}")
    try:
        return parse_degradation(table)
    except ConfigError as error:
        raise error.prefixed("degradation") from None


def _check_keys(data: Plain) -> None:
    """Raise ConfigError for an unknown top-level key, with the nearest key of run or stage."""
    for key in data:
        if key in _STAGE_KEYS:
            raise ConfigError(f"{key}: is a setting of a stage; expected it in [[stages]]")
        if key not in _RUN_KEYS:
            near = did_you_mean(key, [*_RUN_KEYS, *_STAGE_KEYS])
            raise ConfigError(f"unknown setting {format_value(key)}{near}")


def _assign(data: Plain, text: str) -> None:
    """Apply one `a.b=c` to plain data in place."""
    value: Any = parse_override(text)
    path = [key.strip() for key in text.partition("=")[0].split(".")]
    for key in path:
        value = value[key]
    _put(data, path, value)


def _put(data: Plain, path: Sequence[str], value: Any) -> None:
    """Set the value at a path in plain data in place."""
    if path[0] in _STAGE_KEYS:
        for stage in _stages_using(data, path[0]):
            _put_below(stage, path, value)
    else:
        _put_below(data, path, value)


def _stages(data: Mapping[str, Any]) -> list[Plain]:
    stages = data.get("stages", [])
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise ConfigError(f"stages: expected a list of tables, got {format_value(stages)}")
    return stages


def _stages_using(data: Plain, key: str) -> list[Plain]:
    """Return the stages that a setting without a stage is meant for."""
    stages = _stages(data)
    if key not in LOSSES:
        return stages
    default = from_plain(StageConfig, {"name": "x", "iterations": 0})
    unset = {"weight": getattr(default, key).weight}
    tables = [stage.get(key, unset) for stage in stages]
    using = [
        stage
        for stage, table in zip(stages, tables, strict=True)
        if isinstance(table, Mapping) and table.get("weight", unset["weight"])
    ]
    return using or stages[-1:]


def _put_below(data: Any, path: Sequence[str], value: Any) -> None:
    """Set the value at a path through tables and lists; list items by index or by `name`."""
    for depth, key in enumerate(path[:-1]):
        if isinstance(data, list):
            data = data[_index(data, key)]
        else:
            if data.get(key) is None:
                data[key] = {}
            data = data[key]
        if not isinstance(data, (dict, list)):
            raise ConfigError(f"{'.'.join(path)}: {'.'.join(path[: depth + 1])} is not a table")
    if isinstance(data, list):
        data[_index(data, path[-1])] = value
    else:
        data[path[-1]] = value


def _index(items: list[Any], key: str) -> int:
    names = [item.get("name") if isinstance(item, Mapping) else None for item in items]
    if key in names:
        return names.index(key)
    if key.isdecimal() and len(key) < 9 and int(key) < len(items):
        return int(key)
    known = [str(name or i) for i, name in enumerate(names)]
    near = did_you_mean(key, known)
    raise ConfigError(f"no {format_value(key)} in the list{near} (available: {', '.join(known)})")


def config_to_toml(config: TrainConfig) -> str:
    """Return a configuration as TOML that loads again to the same; values of None are omitted."""
    return to_toml(to_plain(config))


def differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Return what differs between two configurations as `key: old -> new`, sorted by key."""
    a, b = _flatten(to_plain(old)), _flatten(to_plain(new))
    return [
        f"{key}: {a.get(key, 'absent')} -> {b.get(key, 'absent')}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    ]


def _flatten(value: Any, prefix: str = "") -> Plain:
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = {item.get("name", str(i)): item for i, item in enumerate(value)}.items()
    else:
        return {prefix.rstrip("."): value}
    parts = [_flatten(item, f"{prefix}{key}.") for key, item in items]
    return dict(itertools.chain.from_iterable(part.items() for part in parts))
