"""Generated pages equal what generates them."""

from __future__ import annotations

from pathlib import Path

from realesr_cli.cli.reference import PAGE, render


def test_command_reference_is_current(root: Path) -> None:
    written = (root / PAGE).read_text(encoding="utf-8")
    assert written == render(), "run `python -m realesr_cli.cli.reference`"
