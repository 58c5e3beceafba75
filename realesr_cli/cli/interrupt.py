"""Ctrl-C and a request to terminate, as a question that running work can ask."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM")
_BASE = 128
"""A shell gives 128 + the signal's number as the exit code of what a signal ended."""


class Interrupt:
    """Whether a signal asked the work to stop, and which."""

    def __init__(self) -> None:
        self._number = 0

    def asked(self) -> bool:
        """Whether to stop."""
        return self._number != 0

    def ask(self, number: int) -> None:
        """Note that signal `number` came."""
        self._number = number

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after a request to terminate."""
        return _BASE + self._number


@contextmanager
def interruptible(notice: str = "") -> Iterator[Interrupt]:
    """While inside, the first signal only sets the flag; the second acts as it usually does.

    `notice` is told on stderr at the first signal. Outside the main thread, where Python takes no
    signals, the flag stays unset.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    usual: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        interrupt.ask(number)
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
