"""Every error's advice is worded by the command line, and no advice is left without an error."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from realesr_cli import errors
from realesr_cli.cli.advice import ADVICE, message_with_advice
from realesr_cli.errors import RealesrError

PACKAGE = Path(errors.__file__).parent

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, RealesrError)
]


def used_keys() -> set[str]:
    """Find the keys given as `advice="..."` anywhere in the package."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "advice":
                found |= {n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)}
    return found - {""}


def test_every_key_is_worded_and_used() -> None:
    assert used_keys() == set(ADVICE)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_carries_advice_and_takes_a_prefix(cls: type[RealesrError]) -> None:
    error = cls("no room", advice="key").prefixed("a.png")
    assert type(error) is cls
    assert (str(error), error.advice) == ("a.png: no room", "key")


def test_advice_follows_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADVICE, "key", "Use --other.")
    assert message_with_advice(RealesrError("no room", advice="key")) == "no room. Use --other."
    assert message_with_advice(RealesrError("no room")) == "no room"
    assert message_with_advice(RealesrError("is it x?", advice="key")) == "is it x? Use --other."
    assert message_with_advice(RealesrError("2:\n  a", advice="key")) == "2:\n  a\nUse --other."
