"""Settings: strict, round-trip, overrides, limits."""

from __future__ import annotations

import os
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from realesr_cli.errors import ConfigError
from realesr_cli.plain import merge, parse_override, read_json, read_toml, to_toml
from realesr_cli.settings import check, from_plain, option, to_plain, type_name, walk, with_values


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
    free: float = option(0.0, help="Any number.")

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
        ({}, "'name'"),
        ({"nme": "x"}, "'nme'.*'name'"),
        ({"name": "x", "part": {"rat": 1}}, "part.rat'.*'rate'"),
        ({"name": 3}, "name: expected string, got 3"),
        ({"name": "x", "where": ""}, "where: expected .*path, got ''"),
        ({"name": "x", "part": 3}, "part: expected a table"),
        ({"name": "x", "part": {"rate": 2.0}}, "part.rate: expected 0 to 1, got 2"),
        ({"name": "x", "part": {"rate": -1}}, "part.rate: expected 0 to 1, got -1"),
        ({"name": "x", "part": {"rate": float("nan")}}, "nan"),
        ({"name": "x", "part": {"rate": True}}, "expected number"),
        ({"name": "x", "part": {"kind": "gren"}}, "one of red, green, got 'gren'.*'green'"),
        ({"name": "x", "part": {"sizes": [0]}}, "at least 1, got 0"),
        ({"name": "x", "part": {"sizes": ["1"]}}, r"part.sizes\[0\]: expected integer"),
        ({"name": "x", "part": {"sizes": 3}}, "expected a list"),
        ({"name": "x", "count": "many"}, "expected integer or auto, got 'many'"),
        ({"name": "x", "count": "3"}, "expected integer or auto"),
        ({"name": "x", "flag": 1}, "expected true or false"),
        ({"name": "x", "free": float("inf")}, "a finite number"),
        ({"name": "x", "count": 2**63}, "count"),
        ({"name": "x", "count": 10**5000}, "very large int"),
        ({"name": "x" * 5000, "flag": "y" * 5000}, "yyy...$"),
        ({"x" * 100_000: 1}, "unknown setting"),
    ],
)
def test_wrong_data_is_named(data, words):
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=words) as caught:
        from_plain(Whole, data)
    assert time.perf_counter() - start < 1
    assert len(str(caught.value)) < 400


def test_data_nested_without_end_is_no_crash():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for data in ({"name": deep}, {"name": "x", "parts": deep}, {"name": "x", "where": deep}):
        with pytest.raises(ConfigError):
            from_plain(Whole, data)


def test_settings_made_in_python_are_as_strict():
    with pytest.raises(ConfigError, match="rate: expected 0 to 1"):
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
    bad = tmp_path / "bad.toml"
    bad.write_text("a = = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml.*line 1"):
        read_toml(bad)


@pytest.mark.parametrize("read", [read_toml, read_json])
@pytest.mark.parametrize(
    "data",
    [
        b"a" + b".a" * 100_000 + b" = 1",
        (b"a" + b".a" * 299 + b" = 1\n") * 2,
        b"a = " + b"[" * 50_000,
        b"a = " + b"9" * 50_000,
        b'{"a": ' + b"[" * 100_000,
        b'{"a": ' + b"9" * 100_000 + b"}",
        b"{",
        b"\xff\xfe",
        None,
    ],
    ids=[
        "many-dots",
        "dots",
        "nested",
        "digits",
        "JSON-nested",
        "JSON-digits",
        "cut",
        "no-text",
        "missing",
    ],
)
def test_hostile_files_are_refused_soon(tmp_path, read, data):
    path = tmp_path / "x.toml"
    if data is not None:
        path.write_bytes(data)
    start = time.perf_counter()
    with pytest.raises(ConfigError):  # What is deep, but within the limit, is refused afterwards.
        from_plain(Whole, read(path))
    assert time.perf_counter() - start < 2


def test_a_pipe_is_no_file_of_settings(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="regular file"):
        read_toml(tmp_path / "pipe")


def test_a_path_that_no_system_takes():
    with pytest.raises(ConfigError):
        read_toml(Path("x" * 5000))


def test_values_by_dotted_key():
    whole = Whole("x")
    changed = with_values(whole, {"part.rate": 0.25, "flag": True, "part.kind": "green"})
    assert (changed.part.rate, changed.part.kind, changed.flag) == (0.25, "green", True)
    assert whole.part.rate == 0.5
    with pytest.raises(ConfigError, match=r"part\.rate: expected 0 to 1, got 3"):
        with_values(whole, {"part.rate": 3.0})


def test_walk_lists_every_leaf():
    keys = [s.key for s in walk(Whole)]
    assert keys[:4] == ["name", "part.rate", "part.kind", "part.sizes"]
    limits = {s.key: s.limits for s in walk(Whole)}
    assert limits["part.rate"].help == "A rate."


def test_type_names_are_for_people():
    assert type_name(int | None) == "integer or none"
    assert type_name(tuple[int, ...]) == "list of integer"
    assert type_name(Literal["a", "b"]) == "a or b"


def test_mutable_defaults_are_refused():
    with pytest.raises(TypeError, match="immutable"):
        option([], help="x")
