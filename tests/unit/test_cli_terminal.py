"""Progress is drawn on a terminal only, and follows the calls."""

from __future__ import annotations

import io
import sys

import pytest

from realesr_cli.cli.terminal import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_bar_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("x") as progress:
        progress(1, 2)
        progress.relabel("y")
        progress.write("a line")
    assert capsys.readouterr().err == "a line\n"


def test_bar_on_a_terminal_and_none_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressBar("x", enabled=False) as progress:
        progress(1, 2)
    assert terminal.getvalue() == ""
    with ProgressBar("model", bytes=True) as progress:
        progress(512, 0)
        progress(1024, 2048)
        progress.relabel("other")
        progress.write("a line")
        assert progress._bar is not None
        assert (progress._bar.n, progress._bar.total) == (1024, 2048)
        progress(100, 2048)
        assert progress._bar.n == 100
    assert progress._bar is None
    assert "model" in terminal.getvalue()
    assert "a line" in terminal.getvalue()


def test_dumb_terminal_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert not ProgressBar("x").enabled
