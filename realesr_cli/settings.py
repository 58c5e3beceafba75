"""Settings as frozen dataclasses: defaults, limits, and strict conversion of plain data and text.

A setting is written once, as a dataclass field made by `option()`: its type, default, help and
limits. Command-line options, TOML files, `a.b=c` overrides and the reference pages derive from it.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from realesr_cli.errors import ConfigError
from realesr_cli.text import did_you_mean, format_bytes, format_value, parse_bytes

T = TypeVar("T")

_META = "realesr"
_MAX_INTEGER = 2**63 - 1

_TYPE_NAMES: dict[Any, str] = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "true or false",
    Path: "path",
    type(None): "none",
}


@dataclass(frozen=True)
class Limits:
    """What a field accepts beyond its type: choices, or a range whose `above` is exclusive."""

    help: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[Any, ...] | None = None
    size: bool = False
    """A number of bytes, which text may give with a unit."""

    def describe(self) -> str:
        """Return the range as text, `0 to 1` or `at least 0`; empty where there is none."""
        # Not "g": the short form of a million would be 1e+06.
        if self.size and self.low is not None:
            return f"at least {format_bytes(int(self.low))}"
        ends = (self.low, self.high, self.above)
        low, high, above = (None if end is None else f"{end:.15g}" for end in ends)
        if low is not None and high is not None:
            return f"{low} to {high}"
        if above is not None:
            return f"above {above}" + (f", at most {high}" if high is not None else "")
        if low is not None:
            return f"at least {low}"
        return f"at most {high}" if high is not None else ""

    def check(self, value: Any, where: str = "") -> None:
        """Raise ConfigError where a value, or an item of a tuple, is outside the limits."""
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if item is None:
                continue
            if self.choices is not None and item not in self.choices:
                raise _expected(_one_of(self.choices), item, where, self.choices)
            if isinstance(item, bool) or not isinstance(item, (int, float)):
                continue
            below = self.low is not None and item < self.low
            under = self.above is not None and item <= self.above
            over = self.high is not None and item > self.high
            if below or under or over or item != item:
                expected = self.describe().replace("above", "more than") or "a number"
                raise _expected(expected, item, where)
            if isinstance(item, float) and math.isinf(item):
                raise _expected("a finite number", item, where)


def option(
    default: Any = MISSING,
    *,
    help: str,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: Sequence[Any] | None = None,
    size: bool = False,
) -> Any:
    """Make a dataclass field with its help and limits.

    `low` and `high` are inclusive, `above` is exclusive; for a tuple they hold for every item.
    `size` marks a number of bytes, which the command line takes as `1.5G` too.
    """
    limits = Limits(help, low, high, above, tuple(choices) if choices is not None else None, size)
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

    def parse(self, text: str) -> Any:
        """Convert text to the setting's type. Raises ConfigError, without the setting's name."""
        if self.limits.size:
            text = parse_bytes(text)
        value = _convert(self.type, text, "", text=True)
        self.limits.check(value)
        return value


def walk(cls: type, prefix: str = "") -> Iterator[Setting]:
    """Yield every leaf setting of a class in order of definition; keys of parts are dotted."""
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
        yield Setting(key, kind, default, _limits_of(field))


def check(instance: Any) -> None:
    """Raise ConfigError where a value is outside the limits of its field.

    Meant for `__post_init__`, so that settings made in Python are as strict as those from a file.
    """
    for field in dataclasses.fields(instance):
        _limits_of(field).check(getattr(instance, field.name), field.name)


def from_plain(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build a settings object from plain data (of TOML or JSON).

    Raises ConfigError for an unknown key (with the nearest known one), a missing value or a wrong
    type; integers are accepted where floats are expected, nothing else is converted.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in fields:
            name = format_value(where + key)
            raise ConfigError(f"unknown setting {name}{did_you_mean(key, list(fields))}")
        values[key] = _convert(hints[key], value, where + key)
    for name, field in fields.items():
        needed = field.default is MISSING and field.default_factory is MISSING
        if needed and name not in values:
            raise ConfigError(f"missing setting {where + name!r}")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}", advice=error.advice, values=error.values) from None


def with_values(settings: T, values: Mapping[str, Any], where: str = "") -> T:
    """Return settings with other values, given by dotted key and already of the right types."""
    changed: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        name, _, rest = key.partition(".")
        if rest:
            below.setdefault(name, {})[rest] = value
        else:
            changed[name] = value
    for name, inner in below.items():
        changed[name] = with_values(getattr(settings, name), inner, f"{where}{name}.")
    try:
        return dataclasses.replace(settings, **changed)  # type: ignore[type-var]
    except ConfigError as error:
        raise ConfigError(f"{where}{error}", advice=error.advice, values=error.values) from None


def _limits_of(field: dataclasses.Field[Any]) -> Limits:
    found = field.metadata.get(_META)
    return found if isinstance(found, Limits) else Limits()


def _one_of(choices: Sequence[Any]) -> str:
    return "one of " + ", ".join(str(choice) for choice in choices)


def _expected(what: str, value: Any, where: str, choices: Sequence[Any] = ()) -> ConfigError:
    near = did_you_mean(value, [str(c) for c in choices]) if isinstance(value, str) else ""
    # A bare number reads better than the quotes and suffixes of its repr.
    shown = f"{value:.15g}" if isinstance(value, float) else format_value(value)
    text = f"expected {what}, got {shown}{near}"
    return ConfigError(f"{where}: {text}" if where else text)


def _convert(kind: Any, value: Any, where: str, *, text: bool = False) -> Any:
    """Convert plain data to a type; with `text`, numbers and lists are read from a string."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(kind, value, where, text)
    if origin is Literal:
        for choice in get_args(kind):
            if value == choice or (text and value == str(choice)):
                return choice
        raise _expected(_one_of(get_args(kind)), value, where, get_args(kind))
    if origin is tuple:
        return _convert_tuple(kind, value, where, text)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise _expected("a table", value, where)
        return from_plain(kind, value, where + ".")
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _expected("a table", value, where)
        item = get_args(kind)[1]
        return {str(k): _convert(item, v, f"{where}.{k}") for k, v in value.items()}
    return _convert_scalar(kind, value, where, text)


def _convert_scalar(kind: Any, value: Any, where: str, text: bool) -> Any:
    if text and kind in (int, float, bool):
        value = _read_scalar(kind, value, where)
    if kind is Path and isinstance(value, str):
        # Path("") is the current folder, which nobody means by an unset variable of a shell.
        if not value:
            raise _expected("a path", value, where)
        return Path(value)
    if kind is Any:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > _MAX_INTEGER:
            raise _expected("a 64-bit integer", value, where)
        if kind is float:
            return float(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise _expected(type_name(kind), value, where)


def _read_scalar(kind: Any, value: str, where: str) -> Any:
    """Read a number or truth value from text of the command line."""
    try:
        if kind is bool:
            return {"yes": True, "true": True, "no": False, "false": False}[value.lower()]
        return kind(value)
    except (ValueError, KeyError):
        raise _expected("yes or no" if kind is bool else type_name(kind), value, where) from None


def _convert_union(kind: Any, value: Any, where: str, text: bool) -> Any:
    arms = [arm for arm in get_args(kind) if arm is not type(None)]
    if len(arms) < len(get_args(kind)) and (
        value is None or (text and value.lower() == "none" and str not in arms)
    ):
        return None
    if len(arms) == 1:
        return _convert(arms[0], value, where, text=text)
    for arm in arms:
        try:
            return _convert(arm, value, where, text=text)
        except ConfigError:
            continue
    raise _expected(type_name(kind), value, where)


def _convert_tuple(kind: Any, value: Any, where: str, text: bool) -> tuple[Any, ...]:
    if text and isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if not isinstance(value, (list, tuple)):
        raise _expected("a list", value, where)
    arms = get_args(kind)
    if len(arms) == 2 and arms[1] is Ellipsis:
        arms = (arms[0],) * len(value)
    if len(arms) != len(value):
        raise _expected(f"{len(arms)} items", value, where)
    pairs = enumerate(zip(arms, value, strict=True))
    return tuple(
        _convert(arm, v, f"{where}[{i}]" if where else "", text=text) for i, (arm, v) in pairs
    )


def type_name(kind: Any) -> str:
    """Return a type in words: `integer`, `number or none`, `list of string`."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(a) for a in get_args(kind))
    if origin is Literal:
        return " or ".join(str(a) for a in get_args(kind))
    if origin is tuple:
        arms = [a for a in get_args(kind) if a is not Ellipsis]
        return "list of " + " and ".join(dict.fromkeys(type_name(a) for a in arms))
    return _TYPE_NAMES.get(kind, str(getattr(kind, "__name__", kind)))


def to_plain(value: Any) -> Any:
    """Return settings as dicts, lists, strings and numbers; the inverse of `from_plain`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: to_plain(v) for k, v in value.items()}
    return str(value) if isinstance(value, Path) else value
