"""Plain data (dicts, lists, strings, numbers) from TOML and JSON of unknown origin, and to TOML."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realesr_cli.errors import ConfigError
from realesr_cli.text import format_bytes, format_value

MAX_TOML_BYTES = 64 * 1024

_MAX_DOTS = 300
"""Dots in a line of TOML: `tomllib` takes time quadratic in the number of parts of a key."""

MAX_JSON_BYTES = 16 * 2**20


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge plain data: tables key by key, everything else of `over` replaces that of `base`."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = merge(old, value)
        else:
            result[key] = value
    return result


def parse_override(text: str) -> dict[str, Any]:
    """Parse `a.b=c` to nested plain data; the value is TOML, or else a bare string."""
    key, equals, raw = text.partition("=")
    parts = [p.strip() for p in key.split(".")]
    if not equals or not all(parts):
        raise ConfigError(f"{format_value(text)}: expected key=value, as in data.patch=64")
    try:
        value = _parse_toml(f"v = {raw.strip()}")["v"]
    except ConfigError:
        value = raw.strip()
    for part in reversed(parts):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises ConfigError naming the file, and the line where it is malformed."""
    try:
        return _parse_toml(_read_text(path, MAX_TOML_BYTES))
    except ConfigError as error:
        raise error.prefixed(str(path)) from error.__cause__


def read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file of unknown origin. Raises ConfigError for whatever is wrong with it."""
    try:
        return parse_json(_read_text(path, max_bytes))
    except ConfigError as error:
        raise error.prefixed(str(path)) from error.__cause__


def parse_json(text: str) -> Any:
    """Parse JSON of unknown origin. Raises ConfigError for whatever is wrong with it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ConfigError("nested too deeply") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of limited size. Raises ConfigError naming the file."""
    try:
        return _read(path, max_bytes)
    except ConfigError as error:
        raise error.prefixed(str(path)) from error.__cause__


def _read(path: Path, limit: int) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise ConfigError("not a regular file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise ConfigError("no such file") from None
    except OSError as error:
        raise ConfigError(str(error.strerror or error)) from error
    if len(data) > limit:
        raise ConfigError(f"larger than {format_bytes(limit)}, the limit for such files")
    return data


def _read_text(path: Path, limit: int) -> str:
    try:
        return _read(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8: {error}") from None


def _parse_toml(text: str) -> dict[str, Any]:
    if any(line.count(".") > _MAX_DOTS for line in text.splitlines()):
        raise ConfigError(f"a line with more than {_MAX_DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError("nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, or an integer of too many digits.
        raise ConfigError(str(error)) from None


def to_toml(data: Mapping[str, Any]) -> str:
    """Format plain data as TOML; values that are None are left out, as TOML has no null."""
    import tomli_w

    return tomli_w.dumps(_without_none(data))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, (list, tuple)) else value
