"""Settings: strict, round-trip, overrides, limits."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from realesr_cli.errors import ConfigError
from realesr_cli.settings import (
    check,
    from_plain,
    merge,
    option,
    parse_override,
    read_toml,
    to_plain,
    to_toml,
    type_name,
    walk,
)


@dataclass(frozen=True)
class Part:
    rate: float = option(0.5, help="A rate.", low=0, high=1)
    kind: Literal["red", "green"] = option("red", help="A kind.")
    sizes: tuple[int, ...] = option((1, 2), help="Sizes.", low=1)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Whole:
    name: str = option(help="Needed.")
    part: Part = Part()
    parts: tuple[Part, ...] = ()
    where: Path | None = None
    count: int | Literal["auto"] = option("auto", help="A count.", low=1)
    flag: bool = option(False, help="A flag.")

    def __post_init__(self) -> None:
        check(self)


FULL = {
    "name": 'x "y" \\ z',
    "part": {"rate": 1, "kind": "green", "sizes": [3]},
    "parts": [{"rate": 0.25, "kind": "red", "sizes": []}, {"kind": "green"}],
    "where": "a/b",
    "count": 7,
    "flag": True,
}


def test_round_trip_through_toml():
    whole = from_plain(Whole, FULL)
    assert whole.part.rate == 1.0
    assert isinstance(whole.part.rate, float)
    assert whole.where == Path("a/b")
    text = to_toml(to_plain(whole))
    assert from_plain(Whole, tomllib.loads(text)) == whole


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "missing setting 'name'"),
        ({"nme": "x"}, "unknown setting 'nme'; did you mean 'name'"),
        ({"name": "x", "part": {"rat": 1}}, "part.rat'; did you mean 'rate'"),
        ({"name": 3}, "expected str"),
        ({"name": "x", "part": 3}, "expected a table"),
        ({"name": "x", "part": {"rate": 2.0}}, "part.rate = 2.0: must be at most 1"),
        ({"name": "x", "part": {"rate": -1}}, "at least 0"),
        ({"name": "x", "part": {"rate": float("nan")}}, "not a number"),
        ({"name": "x", "part": {"rate": True}}, "expected float"),
        ({"name": "x", "part": {"kind": "gren"}}, "did you mean 'green'"),
        ({"name": "x", "part": {"sizes": [0]}}, "at least 1"),
        ({"name": "x", "part": {"sizes": 3}}, "expected a list"),
        ({"name": "x", "count": "many"}, "expected int or auto"),
        ({"name": "x", "flag": 1}, "expected bool"),
    ],
)
def test_wrong_data_is_named(data, words):
    with pytest.raises(ConfigError, match=words):
        from_plain(Whole, data)


def test_settings_made_in_python_are_as_strict():
    with pytest.raises(ConfigError, match="at most 1"):
        Part(rate=3.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1", {"a": 1}),
        ("a.b = [1, 2]", {"a": {"b": [1, 2]}}),
        ("a.b=word", {"a": {"b": "word"}}),
        ("a=true", {"a": True}),
        ('a="1"', {"a": "1"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=1e-4", {"a": 1e-4}),
    ],
)
def test_overrides_are_toml_values(text, expected):
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["a", "=1", "a..b=1"])
def test_malformed_overrides(text):
    with pytest.raises(ConfigError, match="expected key=value"):
        parse_override(text)


def test_merge_keeps_what_is_not_named():
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}


def test_toml_files(tmp_path):
    good = tmp_path / "ä.toml"
    good.write_text("a = 1", encoding="utf-8")
    assert read_toml(good) == {"a": 1}
    with pytest.raises(ConfigError, match="no such file"):
        read_toml(tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("a = = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml.*line 1"):
        read_toml(bad)


def test_walk_lists_every_leaf():
    keys = [s.key for s in walk(Whole)]
    assert keys[:4] == ["name", "part.rate", "part.kind", "part.sizes"]
    limits = {s.key: s.limits for s in walk(Whole)}
    assert limits["part.rate"].help == "A rate."


def test_type_names_are_for_people():
    assert type_name(int | None) == "int or none"
    assert type_name(tuple[int, ...]) == "list of int"
    assert type_name(Literal["a", "b"]) == "a or b"


def test_mutable_defaults_are_refused():
    with pytest.raises(TypeError, match="immutable"):
        option([], help="x")
