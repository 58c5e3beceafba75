"""The code of docs/extending.md, as a reader would put it into the package."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "extending.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[str]:
    """Return the code blocks of the page in one language, in order."""
    return [code for found, code in _BLOCK.findall(PAGE.read_text("utf-8")) if found == language]


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what the page says: new files become modules, entries change the registries."""
    for code in blocks("python"):
        first = code.splitlines()[0]
        name = first.removeprefix("# ").removesuffix(".py").replace("/", ".")
        name = name.removesuffix(".__init__")
        module = sys.modules.get(name)
        if module is None:
            module = types.ModuleType(name)
            monkeypatch.setitem(sys.modules, name, module)
            exec(compile(code, first, "exec"), vars(module))
            continue
        before = dict(vars(module))
        exec(compile(code, first, "exec"), vars(module))
        changed = {
            key: value for key, value in vars(module).items() if before.get(key) is not value
        }
        for key, value in changed.items():
            if key in before:
                setattr(module, key, before[key])
                monkeypatch.setattr(module, key, value)
            else:
                delattr(module, key)
                monkeypatch.setattr(module, key, value, raising=False)
