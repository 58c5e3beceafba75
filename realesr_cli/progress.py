"""How running work reports progress and asks whether to stop; the only two protocols for it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""`progress(done, total)`, in the work's own unit; a total of 0 means that it is unknown."""

StopRequested = Callable[[], bool]
"""`stop_requested()`: whether the caller wants the work to stop. Called often: keep it cheap."""


def no_progress(done: int, total: int) -> None:
    """Ignore progress."""


def never() -> bool:
    """Never ask to stop."""
    return False
