"""The command's boundary: exit codes, messages on stderr, commands that exist, quick help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import click
import pytest
from click.testing import CliRunner

from realesr_cli import errors
from realesr_cli.cli import main
from realesr_cli.cli.main import COMMANDS, cli, run

HEAVY = ("torch", "numpy", "cv2", "PIL", "requests", "safetensors")


def run_code(args: list[str] | None = None) -> int:
    with pytest.raises(SystemExit) as caught:
        run(args or ["boom"])
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def boom(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | int | None]:
    """A command `boom` that raises or returns the first item of the list."""
    effect: list[BaseException | int | None] = [None]

    def callback() -> int | None:
        if isinstance(effect[0], BaseException):
            raise effect[0]
        return effect[0]

    monkeypatch.setattr(
        main.LazyGroup,
        "get_command",
        lambda self, ctx, name: click.Command("boom", callback=callback),
    )
    monkeypatch.setattr(main, "COMMANDS", {"boom": ("", "")})
    monkeypatch.setattr(main, "show_warnings", lambda: None)
    return effect


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RealesrError("why"), 1),
        (errors.ConfigError("why"), 2),
        (errors.UnknownModelError("why"), 3),
        (errors.OutOfMemoryError("why"), 4),
        (errors.CancelledError("why"), 130),
    ],
)
def test_our_errors_are_one_line_and_their_code(
    boom: list[BaseException | int | None],
    capsys: pytest.CaptureFixture[str],
    error: errors.RealesrError,
    code: int,
) -> None:
    boom[0] = error
    assert run_code() == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: why\n"


def test_memory_that_runs_out_anywhere_is_4(
    boom: list[BaseException | int | None], capsys: pytest.CaptureFixture[str]
) -> None:
    boom[0] = MemoryError()
    assert run_code() == 4
    assert capsys.readouterr().err.startswith("error: not enough memory")


def test_interrupt_is_130(
    boom: list[BaseException | int | None], capsys: pytest.CaptureFixture[str]
) -> None:
    boom[0] = KeyboardInterrupt()
    assert run_code() == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_command_may_return_its_code(boom: list[BaseException | int | None]) -> None:
    boom[0] = 1
    assert run_code() == 1
    boom[0] = None
    assert run_code() == 0


def test_usage_errors_are_2(
    boom: list[BaseException | int | None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_code(["boom", "--nonsense"]) == 2
    assert run_code(["bom"]) == 2
    assert "did you mean 'boom'" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(boom: list[BaseException | int | None]) -> None:
    boom[0] = ZeroDivisionError("bug")
    with pytest.raises(ZeroDivisionError, match="bug"):
        run(["boom"])


def test_color_only_where_wanted(
    boom: list[BaseException | int | None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boom[0] = errors.RealesrError("why")
    monkeypatch.setenv("FORCE_COLOR", "1")
    run_code()
    assert "\x1b[" in capsys.readouterr().err
    monkeypatch.setenv("NO_COLOR", "1")
    run_code()
    assert "\x1b[" not in capsys.readouterr().err


def test_usage_errors_look_like_all_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["models", "list", "--nothing"])
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert lines[0] == "Usage: realesr models list [OPTIONS]"
    assert lines[-1].startswith("error: no such option")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["my photo.jpg"], "did you mean `realesr upscale 'my photo.jpg'`?"),
        (["upscal"], "did you mean 'upscale'?"),
        (["upscale"], "realesr upscale photo.jpg -s 2 -o big.png"),
    ],
)
def test_the_first_attempts_of_a_new_user(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name of an image alone, a slip, and no input: a short answer that shows the way."""
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    printed = capsys.readouterr().err
    assert ended.value.code == 2
    assert words in printed
    assert len(printed.splitlines()) < 12


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_listed_command_exists_and_explains_itself(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name


def python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["models", "list"], ["completion", "zsh"]]
)
def test_light_commands_load_nothing_heavy(args: list[str]) -> None:
    code = (
        "import sys, json\n"
        "from realesr_cli.cli.main import run\n"
        "try:\n run(sys.argv[1:])\n"
        "except SystemExit as end:\n assert not end.code\n"
        f"print(json.dumps([m for m in {HEAVY} if m in sys.modules]), file=sys.stderr)"
    )
    result = python(code, *args)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stderr) == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, json, realesr_cli, realesr_cli.weights.registry, realesr_cli.errors\n"
        "dir(realesr_cli)\n"
        f"print(json.dumps([m for m in {HEAVY} + ('click', 'tqdm') if m in sys.modules]))"
    )
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == []


def test_module_runs_as_the_command(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "realesr_cli", "models", "info", "anme"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert result.returncode == 3
    assert result.stdout == ""
    assert result.stderr.startswith("error: unknown model 'anme'; did you mean 'anime'?")


def test_our_warnings_are_lines_shown_once() -> None:
    code = (
        "import warnings\n"
        "from realesr_cli.cli.terminal import show_warnings\n"
        "from realesr_cli.errors import RealesrWarning\n"
        "show_warnings()\n"
        "for _ in range(3):\n"
        "    with warnings.catch_warnings():\n"
        "        pass\n"
        "    warnings.warn('mind this', RealesrWarning)\n"
        "warnings.warn('and that', RealesrWarning)\n"
        "warnings.warn('foreign', RuntimeWarning)\n"
    )
    err = python(code).stderr
    assert err.startswith("warning: mind this\n")
    assert err.count("mind this") == 1
    assert "warning: and that\n" in err
    assert "RuntimeWarning: foreign" in err


def test_closed_stdout_is_no_error() -> None:
    command = f"{sys.executable} -m realesr_cli models list | head -n 1"
    result = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout.startswith("NAME")
    assert result.stderr == ""


def test_broken_pipe_is_quiet(
    boom: list[BaseException | int | None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    redirected: list[int] = []
    monkeypatch.setattr(os, "dup2", lambda source, target: redirected.append(target))
    monkeypatch.setattr(sys.stdout, "fileno", lambda: 77, raising=False)

    def broken(*args: object, **options: object) -> NoReturn:
        raise BrokenPipeError

    monkeypatch.setattr(cli, "main", broken)
    assert run_code() == 1
    assert redirected == [77]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import BashComplete

    monkeypatch.setattr(BashComplete, "_check_version", staticmethod(lambda: None))
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert "_REALESR_COMPLETE" in result.output


def test_completion_offers_commands_and_model_names() -> None:
    def words(line: str) -> list[str]:
        result = subprocess.run(
            [sys.executable, "-m", "realesr_cli"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={
                **os.environ,
                "_REALESR_COMPLETE": "bash_complete",
                "COMP_WORDS": line,
                "COMP_CWORD": str(len(line.split())),
            },
        )
        return [line.partition(",")[2] for line in result.stdout.splitlines()]

    assert "models" in words("realesr ")
    assert "animevideo" in words("realesr models info ")
