"""The terminal: standard streams, colored labels, warnings, progress bars, Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import click

from realesr_cli.cli.advice import message_with_advice
from realesr_cli.errors import RealesrError, RealesrWarning
from realesr_cli.settings import to_plain

if TYPE_CHECKING:
    from tqdm import tqdm

_SIGNALS = ("SIGINT", "SIGTERM")
_SIGNAL_EXIT_CODE = 128
"""A shell gives 128 + the signal's number as the exit code of what a signal ended."""


class StandardOutputError(RealesrError):
    """Standard output was closed by the caller, or its disk is full."""


class _Stdout(io.FileIO):
    """Standard output whose failures have their own class."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StandardOutputError(f"cannot write to stdout: {error.strerror}") from error


class _Stderr(io.FileIO):
    """Standard error whose failures are ignored: messages are lost, but not the work."""

    def write(self, data: Any) -> int:
        with suppress(OSError):
            super().write(data)
        return len(data)


def open_standard_streams() -> None:
    """Open stdin, stdout and stderr so that no failure of theirs is a traceback.

    Streams that the caller closed (`2>&-`) become the null device. Otherwise the next file that is
    opened, perhaps a result, would take the descriptor's number, and whatever prints would write
    into it. Writing to a closed stdout is still an error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # The lowest free number is taken. Read-only refuses what is written.
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
    sys.stdout = _wrap(_Stdout(1, "w", closefd=False), sys.stdout)
    sys.stderr = _wrap(_Stderr(2, "w", closefd=False), sys.stderr)


def _wrap(raw: io.FileIO, like: TextIO | None) -> io.TextIOWrapper:
    encoding = "utf-8" if like is None else like.encoding
    errors = "backslashreplace" if like is None else like.errors
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffer,
        encoding=encoding,
        errors=errors,
        line_buffering=raw.isatty() or isinstance(raw, _Stderr),
    )


def discard_stdout() -> None:
    """Send what is left in the buffers of stdout nowhere, so that Python's exit is silent."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def wants_color(stream: TextIO) -> bool:
    """Return whether to use color: never with NO_COLOR or TERM=dumb, always with FORCE_COLOR."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


def say(label: str, text: str, color: str) -> None:
    """Print one line `label: text` on stderr."""
    shown = (
        click.style(f"{label}:", fg=color, bold=True) if wants_color(sys.stderr) else f"{label}:"
    )
    # With color=True click leaves the codes alone; whether there are any was decided above.
    click.echo(f"{shown} {text}", err=True, color=True)


def say_error(text: str) -> None:
    """Print `error: text` on stderr."""
    say("error", text, "red")


def print_indented_json(data: Any) -> None:
    """Print settings, records or plain data on stdout as indented JSON."""
    click.echo(json.dumps(to_plain(data), ensure_ascii=False, indent=2))


def say_warning(text: str) -> None:
    """Print `warning: text` on stderr."""
    say("warning", text, "yellow")


def show_warnings() -> None:
    """From now on show our warnings as `warning: ...`, each text once; others as Python does."""
    usual = warnings.showwarning
    shown: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not isinstance(message, RealesrWarning):
            usual(message, category, filename, lineno, file, line)
        elif str(message) not in shown:
            shown.add(str(message))
            say_warning(message_with_advice(message))

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
        """Show `done` of `total` (0: unknown); a smaller `done` than before starts again."""
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
        """Print a line on stderr without breaking the bar."""
        if self._bar is None:
            click.echo(text, err=True)
        else:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Remove the bar; the next call opens a new one."""
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


class Interrupt:
    """Whether a signal asked the work to stop, and which."""

    def __init__(self) -> None:
        self._number = 0

    def stop_requested(self) -> bool:
        """Return whether to stop."""
        return self._number != 0

    def receive(self, number: int) -> None:
        """Note that signal `number` came."""
        self._number = number

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after a request to terminate."""
        return _SIGNAL_EXIT_CODE + self._number


@contextmanager
def interruptible(notice: str = "") -> Iterator[Interrupt]:
    """While inside, the first signal only sets the flag; the second acts as it usually does.

    `notice` is printed on stderr at the first signal. Outside the main thread, where Python takes
    no signals, the flag stays unset.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    usual: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        interrupt.receive(number)
        signal.signal(number, usual[number])
        if notice:
            # Not through sys.stderr: the signal may have come in the middle of a write to it.
            with suppress(OSError, ValueError):
                os.write(sys.stderr.fileno(), f"\n{notice}\n".encode())

    for name in _SIGNALS:
        number = getattr(signal, name)
        usual[number] = signal.getsignal(number)
        signal.signal(number, note)
    try:
        yield interrupt
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
