"""Options derived from settings parse, check and document what the dataclass states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner

from realesr_cli.cli import options
from realesr_cli.settings import check, option


@dataclass(frozen=True)
class Part:
    blur: float = option(0.5, help="Blur.", low=0, high=1)
    table: dict[str, int] | None = option(None, help="No option.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Settings:
    tile: int | Literal["auto"] = option("auto", help="Tile.", low=0)
    pair: tuple[float, float] = option((0.2, 3.0), help="Pair.", low=0)
    names: tuple[str, ...] = option((), help="Names.")
    sides: tuple[int, ...] = option((), help="Sides.", low=1, high=1_000_000)
    fast: bool = option(False, help="Fast.")
    good: bool = option(True, help="Good.")
    maybe: bool | None = option(None, help="Maybe.")
    out: Path | None = option(None, help="Out.")
    mode: Literal["a", "b"] = option("a", help="Mode.")
    form: str = option("png", help="Form.", choices=("png", "jpg"))
    width: int | None = option(None, help="Width.", above=0)
    part: Part = Part()

    def __post_init__(self) -> None:
        check(self)


def invoke(args: list[str], base: Settings | None = None) -> tuple[Any, dict[str, Any], str]:
    seen: list[Any] = [None, {}]

    @click.command()
    @options.settings_options(Settings, short={"tile": ("-t",)}, skip=("names",))
    @click.pass_context
    def command(ctx: click.Context) -> None:
        seen[0] = options.settings_from(ctx, Settings, base)
        seen[1] = options.given_settings(ctx, Settings)

    result = CliRunner().invoke(command, args)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return seen[0], seen[1], result.output


def test_nothing_given_is_the_defaults() -> None:
    settings, given, _ = invoke([])
    assert settings == Settings()
    assert given == {}


def test_every_kind_is_read() -> None:
    args = "-t 5 --pair 1,2 --fast --no-good --maybe yes --out a/b --mode b --form jpg"
    settings, given, output = invoke([*args.split(), "--width", "4", "--part-blur", "1"])
    assert output == ""
    assert settings == Settings(
        tile=5,
        pair=(1.0, 2.0),
        fast=True,
        good=False,
        maybe=True,
        out=Path("a/b"),
        mode="b",
        form="jpg",
        width=4,
        part=Part(blur=1.0),
    )
    assert given["part.blur"] == 1.0
    assert invoke(["--sides", "3,4", "--sides", "5"])[0] == Settings(sides=(3, 4, 5))
    assert invoke(["--maybe", "no", "-t", "auto", "--width", "none"])[0] == Settings(maybe=False)


def test_only_what_is_given_changes_the_base() -> None:
    base = Settings(tile=7, part=Part(blur=0.1))
    assert invoke(["--fast"], base)[0] == Settings(tile=7, fast=True, part=Part(blur=0.1))
    # A flag given with the default's value still counts as given.
    assert invoke(["--tile", "auto"], base)[0].tile == "auto"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-t", "foo"], "expected integer or auto, got 'foo'"),
        (["-t", "-4"], "expected at least 0, got -4"),
        (["--mode", "c"], "expected one of a, b, got 'c'"),
        (["--form", "gif"], "expected one of png, jpg, got 'gif'"),
        (["--part-blur", "2"], "expected 0 to 1, got 2"),
        (["--part-blur", "nan"], "got nan"),
        (["--width", "0"], "expected more than 0, got 0"),
        (["--pair", "1"], "expected 2 items"),
        (["--pair", "1,-1"], "at least 0, got -1"),
        (["--sides", "3", "--sides", "0"], "1 to 1000000, got 0"),
        (["--sides", "x"], "expected integer, got 'x'"),
        (["--maybe", "perhaps"], "expected yes or no, got 'perhaps'"),
        (["--names", "x"], "No such option"),
    ],
)
def test_wrong_values_are_usage_errors(args: list[str], said: str) -> None:
    assert said in invoke(args)[2]


def test_help_shows_limits_and_defaults() -> None:
    output = " ".join(invoke(["--help"])[2].split())
    assert "-t, --tile auto|INTEGER Tile. [at least 0; default: auto]" in output
    assert "--pair NUMBER,NUMBER Pair. [at least 0; default: 0.2,3]" in output
    assert "--sides INTEGER,... Sides. [1 to 1000000]" in output
    assert "--good / --no-good Good. [default: on]" in output
    assert "--fast Fast." in output
    assert "--part-blur NUMBER Blur. [0 to 1; default: 0.5]" in output
    assert "--part-table" not in output


def test_only_chooses_keys() -> None:
    @click.command()
    @options.settings_options(Settings, only=("tile",))
    def command() -> None:
        """Nothing."""

    names = [name for param in command.params for name in param.opts]
    assert names == ["--tile"]


def test_completion_of_words_and_files() -> None:
    @click.command()
    @options.settings_options(Settings)
    def command() -> None:
        """Nothing."""

    ctx = click.Context(command)
    found = {p.name: p.type.shell_complete(ctx, p, "") for p in command.params}
    assert [item.value for item in found["setting_mode"]] == ["a", "b"]
    assert [item.type for item in found["setting_out"]] == ["file"]
    assert [item.value for item in found["setting_tile"]] == ["auto"]
