"""Frozen dataclasses as settings: plain data in and out, strict, with limits, overrides and TOML.

A setting is written once, as a dataclass field made by `option()`: its type, default, help and
limits. The command line, the TOML reader, `--set a.b=c` and the reference pages derive from it.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from realesr_cli.errors import ConfigError
from realesr_cli.text import did_you_mean

T = TypeVar("T")

_META = "realesr"


@dataclass(frozen=True)
class Limits:
    """What a field accepts beyond its type; both ends of a range are inclusive."""

    help: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[Any, ...] | None = None


def option(
    default: Any = MISSING,
    *,
    help: str,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:
    """A dataclass field with its help and limits.

    `low` and `high` are inclusive, `above` is exclusive; for a tuple they hold for every item.
    """
    limits = Limits(help, low, high, above, tuple(choices) if choices is not None else None)
    metadata = {_META: limits}
    if default is MISSING:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, (list, dict)):
        raise TypeError("defaults of frozen settings are immutable: use a tuple or a dataclass")
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Setting:
    """One leaf of a settings class, as the command line and the reference pages need it."""

    key: str
    type: Any
    default: Any
    limits: Limits


def limits_of(field: dataclasses.Field[Any]) -> Limits:
    """The limits given to `option()`, or none."""
    found = field.metadata.get(_META)
    return found if isinstance(found, Limits) else Limits()


def walk(cls: type, prefix: str = "") -> Iterator[Setting]:
    """Every leaf setting of a class, parts flattened to dotted keys, in order of definition."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        key = prefix + field.name
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from walk(kind, key + ".")
            continue
        default = field.default
        if default is MISSING and field.default_factory is not MISSING:
            default = field.default_factory()
        yield Setting(key, kind, default, limits_of(field))


def check(instance: Any) -> None:
    """Raise ConfigError where a value lies outside the limits of its field.

    Meant for `__post_init__`, so that settings made in Python are as strict as those from a file.
    """
    for field in dataclasses.fields(instance):
        limits = limits_of(field)
        value = getattr(instance, field.name)
        for item in value if isinstance(value, (tuple, list)) else (value,):
            _check_item(field.name, item, limits)


def _check_item(name: str, value: Any, limits: Limits) -> None:
    if value is None:
        return
    if limits.choices is not None and value not in limits.choices:
        listed = ", ".join(str(c) for c in limits.choices)
        raise ConfigError(f"{name} = {value!r}: must be one of {listed}{_nearest(value, limits)}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if value != value:
        raise ConfigError(f"{name} = {value}: not a number")
    if limits.low is not None and value < limits.low:
        raise ConfigError(f"{name} = {value}: must be at least {limits.low:.15g}")
    if limits.above is not None and value <= limits.above:
        raise ConfigError(f"{name} = {value}: must be greater than {limits.above:.15g}")
    if limits.high is not None and value > limits.high:
        raise ConfigError(f"{name} = {value}: must be at most {limits.high:.15g}")


def _nearest(value: Any, limits: Limits) -> str:
    return did_you_mean(str(value), [str(c) for c in limits.choices or ()])


def from_plain(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build a settings object from plain data (of TOML or JSON).

    Raises ConfigError for an unknown key (with the nearest known one), a missing value or a wrong
    type; integers are accepted where floats are wanted, nothing else is converted.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in fields:
            raise ConfigError(f"unknown setting {where + key!r}{did_you_mean(key, list(fields))}")
        values[key] = _convert(hints[key], value, where + key)
    missing = [
        name
        for name, f in fields.items()
        if name not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise ConfigError(f"missing setting {where + missing[0]!r}")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from None


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(kind, value, where)
    if origin is Literal:
        if value in get_args(kind):
            return value
        listed = [str(a) for a in get_args(kind)]
        near = did_you_mean(str(value), listed)
        raise ConfigError(f"{where} = {value!r}: must be one of {', '.join(listed)}{near}")
    if origin is tuple:
        return _convert_tuple(kind, value, where)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a table, got {value!r}")
        return from_plain(kind, value, where + ".")
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a table, got {value!r}")
        item = get_args(kind)[1]
        return {str(k): _convert(item, v, f"{where}.{k}") for k, v in value.items()}
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Any or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
        return value
    raise ConfigError(f"{where} = {value!r}: expected {type_name(kind)}")


def _convert_union(kind: Any, value: Any, where: str) -> Any:
    arms = get_args(kind)
    if value is None and type(None) in arms:
        return None
    reasons = []
    for arm in arms:
        if arm is type(None):
            continue
        try:
            return _convert(arm, value, where)
        except ConfigError as error:
            reasons.append(error)
    raise (
        reasons[0]
        if len(reasons) == 1
        else ConfigError(f"{where} = {value!r}: expected {type_name(kind)}")
    )


def _convert_tuple(kind: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} = {value!r}: expected a list")
    arms = get_args(kind)
    if len(arms) == 2 and arms[1] is Ellipsis:
        return tuple(_convert(arms[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if len(arms) != len(value):
        raise ConfigError(f"{where} = {value!r}: expected {len(arms)} items, got {len(value)}")
    return tuple(
        _convert(arm, v, f"{where}[{i}]")
        for i, (arm, v) in enumerate(zip(arms, value, strict=True))
    )


def type_name(kind: Any) -> str:
    """A type as a person would write it: `int`, `float or none`, `list of str`."""
    origin = get_origin(kind)
    if kind is type(None):
        return "none"
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(a) for a in get_args(kind))
    if origin is Literal:
        return " or ".join(str(a) for a in get_args(kind))
    if origin is tuple:
        arms = [a for a in get_args(kind) if a is not Ellipsis]
        return "list of " + " and ".join(dict.fromkeys(type_name(a) for a in arms))
    return getattr(kind, "__name__", str(kind))


def to_plain(value: Any) -> Any:
    """The inverse of `from_plain`: dicts, lists, strings and numbers only."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: to_plain(v) for k, v in value.items()}
    return str(value) if isinstance(value, Path) else value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on it; tables merge key by key, everything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return result


def parse_override(text: str) -> dict[str, Any]:
    """`"a.b=c"` as nested plain data; the value is read as TOML, and else as a bare string."""
    key, equals, raw = text.partition("=")
    parts = [p.strip() for p in key.split(".")]
    if not equals or not all(parts):
        raise ConfigError(f"--set {text!r}: expected key=value, as in data.patch=64")
    try:
        value = tomllib.loads(f"v = {raw.strip()}")["v"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    for part in reversed(parts):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """Plain data of a TOML file; ConfigError names the file and line where it is malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def to_toml(data: Mapping[str, Any], prefix: str = "") -> str:
    """Plain data as TOML text; values that are None are left out, as TOML has no null."""
    lines, tables = [], []
    for key, value in data.items():
        if isinstance(value, Mapping):
            tables.append(f"\n[{prefix}{key}]\n" + to_toml(value, f"{prefix}{key}."))
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            for item in value:
                tables.append(f"\n[[{prefix}{key}]]\n" + to_toml(item, f"{prefix}{key}."))
        elif value is not None:
            lines.append(f"{key} = {_toml_value(value)}\n")
    return "".join(lines + tables)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    return repr(value)
