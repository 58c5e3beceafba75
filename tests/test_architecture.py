"""Imports point down, third-party libraries stay at home, importing stays cheap, files stay small.

The table is that of docs/architecture.md; a change of it belongs there too.
"""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "realesr_cli"

ROWS = {
    "_version": 0,
    "errors": 0,
    "atomic": 1,
    "progress": 1,
    "settings": 1,
    "text": 0,
    "image": 2,
    "ops": 2,
    "nets": 3,
    "degrade": 3,
    "weights": 4,
    "metrics": 4,
    "engine": 5,
    "batch": 6,
    "compat": 6,
    "dataset": 6,
    "diagnostics": 6,
    "evaluate": 6,
    "export": 6,
    "train": 6,
    "cli": 7,
    "__init__": 8,
    "__main__": 8,
}

STRANGERS = {
    ("image", "ops"), ("nets", "degrade"), ("weights", "metrics"),
    *itertools.combinations(
        ("batch", "compat", "dataset", "diagnostics", "evaluate", "export"), 2
    ),
    *((part, "train") for part in ("batch", "compat", "diagnostics", "evaluate", "export")),
}  # fmt: skip
"""Parts of one row that do not know each other."""

NEVER = {("engine", "degrade"), ("compat", "degrade")}

HOMES = {
    "click": {"cli"},
    "tqdm": {"cli"},
    "requests": {"weights"},
    "platformdirs": {"weights"},
    "safetensors": {"weights", "train"},
    "cv2": {"image"},
    "PIL": {"image", "degrade", "evaluate", "train", "dataset"},
    "torch": {
        "ops", "nets", "degrade", "weights", "metrics", "engine", "batch", "compat", "dataset",
        "diagnostics", "evaluate", "export", "train",
    },
    "numpy": {
        "image", "ops", "nets", "degrade", "weights", "metrics", "engine", "batch", "cli", "compat",
        "dataset", "diagnostics", "evaluate", "export", "train",
    },
    "lpips": {"metrics"},
    "onnx": {"export"},
    "onnxruntime": {"export"},
    "tensorboard": {"train"},
}  # fmt: skip
"""Which parts may import a library, at top level or inside a function."""

NUMPY_ONLY = ("engine/tiling.py",)
LONGEST_FILE, LONGEST_FUNCTION = 400, 80


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = ["realesr_cli", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def part_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


NAMES = {name_of(path) for path in modules()}


def targets(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        assert node.level == 0, "relative imports hide what a file knows"
        found = []
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            found.append(full if full in NAMES else node.module)
        return found
    return []


def imports(path: Path, *, top_level: bool) -> Iterator[str]:
    """Modules imported by a file; `if TYPE_CHECKING` blocks do not count, nothing runs there."""
    stack: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            stack.extend(node.orelse)
            continue
        if top_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        yield from targets(node)
        stack.extend(ast.iter_child_nodes(node))


def test_every_part_has_a_row() -> None:
    assert {part_of(name) for name in NAMES} <= set(ROWS)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_down(path: Path) -> None:
    here = part_of(name_of(path))
    for target in imports(path, top_level=False):
        if not target.startswith("realesr_cli"):
            continue
        there = part_of(target)
        assert ROWS[there] <= ROWS[here], f"{name_of(path)} imports {target}, which is above it"
        assert (here, there) not in NEVER, f"{here} must never import {there}"
        pair = {(here, there), (there, here)}
        assert not pair & STRANGERS, f"{here} and {there} do not know each other"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_libraries_stay_at_home(path: Path) -> None:
    here = part_of(name_of(path))
    allowed_anywhere = set(sys.stdlib_module_names) | {"realesr_cli"}
    for target in imports(path, top_level=False):
        top = target.split(".")[0]
        if top in allowed_anywhere:
            continue
        assert top in HOMES, f"{name_of(path)} imports {top}, which has no home in the table"
        assert here in HOMES[top], f"{name_of(path)} imports {top}; its home is {HOMES[top]}"


@pytest.mark.parametrize("file", NUMPY_ONLY)
def test_numpy_only(file: str) -> None:
    found = {t.split(".")[0] for t in imports(PACKAGE / file, top_level=False)}
    assert found <= set(sys.stdlib_module_names) | {"numpy"}


def test_no_circles() -> None:
    graph = {name_of(p): set(imports(p, top_level=True)) & NAMES for p in modules()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name in done:
            return
        for target in graph[name]:
            visit(target, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_cheap_imports() -> None:
    """The help page and `import realesr_cli` load none of the heavy libraries."""
    heavy = ("torch", "numpy", "cv2", "PIL", "requests", "safetensors")
    code = (
        "import sys, realesr_cli, realesr_cli.cli.main\n"
        "from click.testing import CliRunner\n"
        "from realesr_cli.cli.main import cli\n"
        "result = CliRunner().invoke(cli, ['--help'])\n"
        "assert result.exit_code == 0 and 'upscale' in result.output, result.output\n"
        f"print(sorted(set({heavy!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_opencv_only_where_needed() -> None:
    """A server without libGL can still upscale 8-bit images: nothing loads cv2 at import."""
    for path in modules():
        tops = {target.split(".")[0] for target in imports(path, top_level=True)}
        assert "cv2" not in tops, name_of(path)


def test_files_and_functions_fit() -> None:
    too_long = []
    for path in modules():
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > LONGEST_FILE:
            too_long.append(f"{name_of(path)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                size = (node.end_lineno or 0) - node.lineno + 1
                if size > LONGEST_FUNCTION:
                    too_long.append(f"{name_of(path)}.{node.name}: {size} lines")
    assert not too_long, too_long


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_files_open_with_their_purpose(path: Path) -> None:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert doc, f"{path} has no sentence of purpose"
    assert doc.splitlines()[0].endswith((".", ":")) or len(doc.splitlines()) > 1


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_only_the_command_line_prints(path: Path) -> None:
    if part_of(name_of(path)) == "cli":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        assert not (called and node.func.id == "print"), f"{name_of(path)} prints"
