"""Generated pages equal what generates them, and tables in the docs equal those of the tests."""

from __future__ import annotations

import re
from pathlib import Path

import test_architecture

from realesr_cli.cli.reference import PAGE, render


def test_command_reference_is_current(root: Path) -> None:
    written = (root / PAGE).read_text(encoding="utf-8")
    assert written == render(), "run `python -m realesr_cli.cli.reference`"


def test_the_import_table_is_the_one_that_is_enforced(root: Path) -> None:
    text = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    documented = {}
    for row, parts in re.findall(r"^\| (\d) \| ([^|(]*)", text, re.MULTILINE):
        documented |= dict.fromkeys(re.findall(r"`(\w+)`", parts), int(row))
    assert documented == test_architecture.ROWS
