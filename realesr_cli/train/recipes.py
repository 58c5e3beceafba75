"""Recipes: TOML files laid over one another, with `a.b=c` on top, to a TrainConfig."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from realesr_cli.degrade.presets import parse_degradation
from realesr_cli.errors import ConfigError
from realesr_cli.plain import merge, parse_override, read_toml, to_toml
from realesr_cli.settings import from_plain, to_plain
from realesr_cli.text import did_you_mean
from realesr_cli.train.config import StageConfig, TrainConfig

Plain = dict[str, Any]

_LOSSES = ("pixel", "structure", "perceptual", "gan")
_STAGE_KEYS = ("iterations", "optimizer", "schedule", *_LOSSES)


def recipe_names() -> list[str]:
    """The recipes that come with the package, sorted."""
    folder = resources.files("realesr_cli.train") / "recipes"
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".toml"))


def recipe_about(name: str) -> str:
    """The first line of a recipe's comment: what it is."""
    file = resources.files("realesr_cli.train") / "recipes" / f"{name}.toml"
    return file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def load_config(
    recipe: str, assignments: Sequence[str] = (), values: Mapping[str, Any] | None = None
) -> TrainConfig:
    """The configuration of a recipe, or of a TOML file, with `a.b=c` assignments on top.

    A stage's settings are reached by `stages.NAME.key=value`. Without a stage, `iterations`,
    `optimizer` and `schedule` go to every stage, and a loss (`pixel`, `structure`, ...) to the
    stages that use it, or to the last one if none does. `values` are further settings by dotted
    key, laid on before the assignments. ConfigError for anything unknown.
    """
    return changed(recipe_data(recipe), assignments, values)


def changed(
    data: Mapping[str, Any], assignments: Sequence[str], values: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Plain data of a configuration with values and assignments on top; see `load_config`."""
    plain: Plain = to_plain(data)
    # A preset first: other keys of `degradation` are laid on what it stands for.
    chosen = [text for text in assignments if text.replace(" ", "").startswith(_PRESET)]
    for text in chosen:
        plain = merge(plain, parse_override(text))
    plain["degradation"] = to_plain(_degradation(plain.get("degradation", {})))
    for key, value in (values or {}).items():
        put(plain, key.split("."), value)
    for text in assignments:
        if text not in chosen:
            assign(plain, text)
    return from_plain(TrainConfig, plain)


def per_stage(data: Mapping[str, Any], key: str, items: Sequence[Any]) -> dict[str, Any]:
    """One value for every stage, or one for each, as values by dotted key for `changed`.

    ConfigError where there are neither one nor as many as stages.
    """
    names = [stage.get("name", str(i)) for i, stage in enumerate(data.get("stages", []))]
    if len(items) not in (1, len(names)):
        raise ConfigError(
            f"{key}: {len(items)} values for {len(names)} stages ({', '.join(names)}); give one, "
            "or one for each"
        )
    each = list(items) * len(names) if len(items) == 1 else list(items)
    return {f"stages.{name}.{key}": item for name, item in zip(names, each, strict=True)}


_PRESET = "degradation.preset="


def _degradation(table: Any) -> Any:
    if not isinstance(table, Mapping):
        raise ConfigError(f"degradation: expected a table, got {table!r}")
    try:
        return parse_degradation(table)
    except ConfigError as error:
        raise ConfigError(f"degradation: {error}") from None


def recipe_data(recipe: str) -> Plain:
    """Plain data of a recipe by name or file, with what it extends below it.

    Tables merge key by key; lists, the stages among them, replace what they extend.
    """
    seen: list[str] = []
    layers: list[Plain] = []
    name: str | None = recipe
    beside = Path()
    while name is not None:
        path = _find(name, beside)
        if str(path) in seen:
            raise ConfigError(f"{path}: extends itself, through {' and '.join(seen)}")
        seen.append(str(path))
        layer = read_toml(path)
        name = layer.pop("extends", None)
        if name is not None and not isinstance(name, str):
            raise ConfigError(f"{path}: extends = {name!r}: expected the name of a recipe")
        layers.append(layer)
        beside = path.parent
    data: Plain = {}
    for layer in reversed(layers):
        data = merge(data, layer)
    return data


def _find(recipe: str, beside: Path) -> Path:
    """A recipe's file: the package's by name, else a path, first beside the one extending."""
    known = recipe_names()
    if recipe in known:
        return Path(str(resources.files("realesr_cli.train") / "recipes" / f"{recipe}.toml"))
    if recipe.endswith(".toml") or "/" in recipe:
        inside = beside / recipe
        return inside if inside.is_file() else Path(recipe)
    near = did_you_mean(recipe, known)
    raise ConfigError(f"unknown recipe {recipe!r}{near} (known: {', '.join(known)}; or a .toml)")


def assign(data: Plain, text: str) -> None:
    """Apply one `a.b=c` to plain data of a TrainConfig, in place."""
    value: Any = parse_override(text)
    path = [key.strip() for key in text.partition("=")[0].split(".")]
    for key in path:
        value = value[key]
    put(data, path, value)


def put(data: Plain, path: Sequence[str], value: Any) -> None:
    """Set the value at a path in plain data of a TrainConfig, in place."""
    if path[0] in _STAGE_KEYS:
        for stage in _stages_using(data, path[0]):
            _put(stage, path, value)
    else:
        _put(data, path, value)


def _stages_using(data: Plain, key: str) -> list[Plain]:
    stages: list[Plain] = data.get("stages", [])
    if key not in _LOSSES:
        return stages
    default = from_plain(StageConfig, {"name": "x", "iterations": 0})
    unset = getattr(default, key).weight
    using = [stage for stage in stages if stage.get(key, {}).get("weight", unset)]
    return using or stages[-1:]


def _put(data: Any, path: Sequence[str], value: Any) -> None:
    """Set the value at a path through tables and lists; list items by number or by `name`."""
    for depth, key in enumerate(path[:-1]):
        if isinstance(data, list):
            data = data[_index(data, key)]
            continue
        below = data.get(key)
        if below is None:
            below = data[key] = {}
        if not isinstance(below, (dict, list)):
            raise ConfigError(f"{'.'.join(path)}: {'.'.join(path[: depth + 1])} is no table")
        data = below
    if isinstance(data, list):
        data[_index(data, path[-1])] = value
    else:
        data[path[-1]] = value


def _index(items: list[Any], key: str) -> int:
    names = [item.get("name") if isinstance(item, Mapping) else None for item in items]
    if key in names:
        return names.index(key)
    if key.isdigit() and int(key) < len(items):
        return int(key)
    known = [str(name or i) for i, name in enumerate(names)]
    near = did_you_mean(key, known)
    raise ConfigError(f"no {key!r} in the list{near} (there are {', '.join(known)})")


def config_toml(config: TrainConfig) -> str:
    """A configuration as TOML that loads again to the same; empty optional values are left out."""
    return to_toml(to_plain(config))


def differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """What differs between two configurations, one `key: old -> new` each, sorted by key."""
    a, b = _flat(to_plain(old)), _flat(to_plain(new))
    return [
        f"{key}: {a.get(key, 'absent')} -> {b.get(key, 'absent')}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    ]


def _flat(value: Any, prefix: str = "") -> Plain:
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = {item.get("name", str(i)): item for i, item in enumerate(value)}.items()
    else:
        return {prefix.rstrip("."): value}
    parts = [_flat(item, f"{prefix}{key}.") for key, item in items]
    return dict(itertools.chain.from_iterable(part.items() for part in parts))
