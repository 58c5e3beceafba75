"""What goes to the terminal's error stream: colored labels, warnings, progress bars."""

from __future__ import annotations

import os
import sys
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import click

from realesr_cli.errors import RealesrWarning

if TYPE_CHECKING:
    from tqdm import tqdm


def wants_color(stream: TextIO) -> bool:
    """Whether color is welcome: never with NO_COLOR or TERM=dumb, always with FORCE_COLOR."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


def say(label: str, text: str, color: str) -> None:
    """One line `label: text` on stderr."""
    shown = (
        click.style(f"{label}:", fg=color, bold=True) if wants_color(sys.stderr) else f"{label}:"
    )
    # With color=True click leaves the codes alone; whether there are any was decided above.
    click.echo(f"{shown} {text}", err=True, color=True)


def say_error(text: str) -> None:
    """`error: text` on stderr."""
    say("error", text, "red")


def say_warning(text: str) -> None:
    """`warning: text` on stderr."""
    say("warning", text, "yellow")


def show_warnings() -> None:
    """From now on show our warnings as `warning: ...`, each text once; others as Python does."""
    usual = warnings.showwarning
    told: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, RealesrWarning):
            usual(message, category, filename, lineno, file, line)
        elif str(message) not in told:
            told.add(str(message))
            say_warning(str(message))

    warnings.showwarning = show
    # Python's own memory of what was shown is lost whenever anyone enters `catch_warnings`.
    warnings.simplefilter("always", RealesrWarning)


class ProgressBar:
    """A progress bar on stderr, drawn only where that is a terminal; call it with (done, total).

    Usable as a context manager; `close` leaves no line behind. Safe to call from any thread that
    is the only one calling.
    """

    def __init__(
        self, label: str = "", *, unit: str = "it", bytes: bool = False, enabled: bool = True
    ) -> None:
        self.enabled = enabled and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._label = label
        self._unit = "B" if bytes else unit
        self._bytes = bytes
        self._bar: tqdm[Any] | None = None

    def __call__(self, done: int, total: int) -> None:
        """Show `done` of `total` (0: not known); a smaller `done` than before starts again."""
        if not self.enabled:
            return
        if self._bar is None:
            self._bar = self._open(total)
        if self._bar.total != (total or None):
            self._bar.total = total or None
            self._bar.refresh()
        self._bar.update(done - self._bar.n)

    def _open(self, total: int) -> tqdm[Any]:
        from tqdm import tqdm

        return tqdm(
            total=total or None,
            desc=self._label or None,
            unit=self._unit,
            unit_scale=self._bytes,
            unit_divisor=1024 if self._bytes else 1000,
            leave=False,
            dynamic_ncols=True,
            file=sys.stderr,
        )

    def relabel(self, label: str) -> None:
        """Change the text in front of the bar."""
        self._label = label
        if self._bar is not None:
            self._bar.set_description(label or None)

    def write(self, text: str) -> None:
        """A line on stderr that does not break the bar."""
        if self._bar is None:
            click.echo(text, err=True)
        else:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Take the bar away; the next call opens a new one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
