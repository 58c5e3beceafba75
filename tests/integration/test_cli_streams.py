"""Standard streams that are closed or full, and other things a shell script does by mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from upscale_cli import Shell, make_image, size_of

from realesr_cli.batch.jobs import Record
from realesr_cli.cli.console import Console
from realesr_cli.cli.terminal import StandardOutputError

FULL = Path("/dev/full")
REALESR = f"{sys.executable} -m realesr_cli"


def sh(command: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a line of shell; what it prints goes through pipes of ours unless it says otherwise."""
    return subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("models list >&-", "Bad file descriptor"),
        pytest.param(
            "models list >/dev/full",
            "No space left",
            marks=pytest.mark.skipif(not FULL.exists(), reason="Linux only"),
        ),
    ],
)
def test_output_that_cannot_be_written_is_an_error_in_one_line(arguments: str, reason: str):
    done = sh(f"{REALESR} {arguments}")
    assert (done.returncode, done.stdout) == (1, "")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
def test_a_missing_error_stream_or_input_changes_nothing(redirection: str):
    expected = sh(f"{REALESR} completion zsh").stdout
    done = sh(f"{REALESR} completion zsh {redirection}")
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def test_files_never_take_the_number_of_a_closed_stream(tmp_path: Path):
    """What is printed to a closed stream must not end up in the next file that is opened."""
    code = (
        "import sys, os\n"
        "from realesr_cli.cli.terminal import open_standard_streams\n"
        "open_standard_streams()\n"
        f"number = os.open({str(tmp_path / 'result')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "print('message', file=sys.stderr, flush=True)\n"
        "sys.exit(number)"
    )
    done = sh(f'{sys.executable} -c "{code}" <&- >&- 2>&-')
    assert done.returncode == 3
    assert (tmp_path / "result").read_bytes() == b""


def test_a_result_is_written_although_nothing_can_be_printed(tiny: Path, tmp_path: Path):
    make_image(tmp_path / "a.png")
    done = sh(f"cd {tmp_path} && {REALESR} upscale a.png -m {tiny} --device cpu <&- >&- 2>&-")
    assert done.returncode == 0
    assert size_of(tmp_path / "a_x4.png") == (48, 32)


def test_an_image_that_cannot_be_printed(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    def write(self: Console, record: Record) -> None:
        raise StandardOutputError("cannot write to stdout: No space left on device")

    make_image("a.png")
    monkeypatch.setattr(Console, "finished", write)
    outcome = shell("a.png", "-o", "-")
    assert outcome.code == 1
    assert "No space left" in outcome.err
    assert "Traceback" not in outcome.err


def test_empty_standard_input_is_one_line(shell: Shell):
    outcome = shell("-", "-o", "b.png", stdin=b"")
    assert outcome.code == 1
    assert "empty" in outcome.err
    assert os.listdir() == []


@pytest.mark.parametrize("arguments", [[""], ["a.png", ""], ["a.png", "-o", ""]])
def test_an_unset_shell_variable_is_no_folder(shell: Shell, arguments: list[str]):
    make_image("a.png")
    make_image("b.png")
    outcome = shell(*arguments)
    assert outcome.code == 2
    assert "empty" in outcome.err
    assert sorted(os.listdir()) == ["a.png", "b.png"]


def test_an_unset_model(shell: Shell):
    make_image("a.png")
    outcome = shell("a.png", model="")
    assert outcome.code == 2
    assert "empty" in outcome.err


def test_a_name_too_long_for_the_file_system(shell: Shell):
    long = "a" * 250 + ".png"
    make_image(long)
    make_image("b.png")
    outcome = shell(long, "b.png")
    assert outcome.code == 1
    assert "255" in outcome.err
    assert "-o" in outcome.err
    assert sorted(os.listdir()) == sorted([long, "b.png", "b_x4.png"])
    assert shell(long, "-o", "{width}.png").code == 0


def test_paths_that_no_system_takes(shell: Shell):
    make_image("a.png")
    long = "x" * 5000
    for arguments in ([long], ["a.png", "-o", f"{long}.png"], ["--from-file", long]):
        outcome = shell(*arguments)
        assert outcome.code in (1, 2)
        assert "Traceback" not in outcome.err
        assert len(outcome.err) < 12_000
    assert os.listdir() == ["a.png"]


def test_a_pipe_among_the_inputs_is_not_waited_for(shell: Shell):
    make_image("in/a.png")
    os.mkfifo("in/pipe.png")
    os.symlink("/dev/zero", "in/zero.png")
    assert shell("in", "-o", "out/").code == 0
    assert os.listdir("out") == ["a_x4.png"]
    assert shell("in/*.png", "-o", "out/").code == 0
    outcome = shell("in/pipe.png")
    assert outcome.code == 2
    assert "regular file" in outcome.err
    assert "give -" in outcome.err
