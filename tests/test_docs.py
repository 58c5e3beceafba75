"""Generated pages equal what generates them, and tables in the docs equal those of the tests."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import test_architecture

from realesr_cli.cli.main import cli
from realesr_cli.cli.reference import PAGE, render

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")) if path.name != "cli.md"
)


def test_command_reference_is_current(root: Path) -> None:
    written = (root / PAGE).read_text(encoding="utf-8")
    assert written == render(), "run `python -m realesr_cli.cli.reference`"


def test_the_import_table_is_the_one_that_is_enforced(root: Path) -> None:
    text = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    documented = {}
    for row, parts in re.findall(r"^\| (\d) \| ([^|(]*)", text, re.MULTILINE):
        documented |= dict.fromkeys(re.findall(r"`(\w+)`", parts), int(row))
    assert documented == test_architecture.ROWS


def commands(page: Path) -> list[str]:
    """Return the `realesr` commands of indented and fenced blocks."""
    found, fenced = [], False
    for line in page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        fenced ^= line.startswith("```")
        if (fenced or line.startswith("    ")) and line.strip().startswith("realesr "):
            found.append(line.strip())
    return found


@pytest.mark.parametrize(
    ("page", "command"),
    [(page.name, command) for page in PAGES for command in commands(page)],
)
def test_every_command_of_the_docs_parses(page: str, command: str) -> None:
    """The command, its options and their values exist; nothing is run."""
    words = shlex.split(command, comments=True)[1:]
    parent: click.Context | None = None
    found: click.Command = cli
    while isinstance(found, click.Group):
        parent = click.Context(found, parent=parent)
        name, below, words = found.resolve_command(parent, words)
        assert below is not None, name
        found = below
    found.make_context(found.name, words, parent=parent)
