"""Imports point down, libraries stay at home, importing is cheap, files are short, words are plain.

The table is that of docs/architecture.md; a change of it belongs there too. Each test looks at all
files and names every offender.
"""

from __future__ import annotations

import ast
import collections
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click

PACKAGE = Path(__file__).resolve().parent.parent / "realesr_cli"

ROWS = {
    "_version": 0,
    "errors": 0,
    "text": 0,
    "atomic": 1,
    "progress": 1,
    "plain": 1,
    "settings": 1,
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
    "video": 6,
    "cli": 7,
    "__init__": 8,
    "__main__": 8,
}

STRANGERS = {
    ("image", "ops"), ("nets", "degrade"), ("weights", "metrics"),
    *itertools.combinations(
        ("batch", "compat", "dataset", "diagnostics", "evaluate", "export", "train", "video"), 2
    ),
}  # fmt: skip
"""Parts of one row that do not know each other."""

NEVER = {("engine", "degrade"), ("compat", "degrade")}

HOMES = {
    "click": {"cli"},
    "tqdm": {"cli"},
    "requests": {"weights"},
    "urllib3": {"weights"},
    "threadpoolctl": {"engine"},
    "filelock": {"weights"},
    "platformdirs": {"weights"},
    "safetensors": {"weights", "train"},
    "cv2": {"image"},
    "av": {"video"},
    "PIL": {"image", "degrade", "evaluate", "train", "dataset", "video"},
    "torch": {
        "ops", "nets", "degrade", "weights", "metrics", "engine", "batch", "compat", "dataset",
        "diagnostics", "evaluate", "export", "train", "video",
    },
    "numpy": {
        "image", "ops", "nets", "degrade", "weights", "metrics", "engine", "batch", "cli", "compat",
        "dataset", "diagnostics", "evaluate", "export", "train", "video",
    },
    "lpips": {"metrics"},
    "DISTS_pytorch": {"metrics"},
    "fsspec": {"batch"},
    "ray": {"batch"},
    "onnx": {"engine", "export"},
    "onnxruntime": {"engine", "export"},
    "openvino": {"engine"},
    "ncnn": {"engine"},
    "tensorboard": {"train"},
    "tomli_w": {"plain"},
}  # fmt: skip
"""Which parts may import a library, at top level or inside a function."""

NUMPY_ONLY = ("engine/tiling.py",)
LONGEST_FILE, LONGEST_FUNCTION = 350, 60
MODULES_FOR_ONE_IMAGE = 82
"""Modules of ours, packages included, that upscaling one PNG loads; may only fall."""

ONCE = (
    "weights.locate.locate", "weights.checkpoints.read_state", "nets.detection.detect",
    "nets.detection.canonical", "image.probe.probe", "image.read.read_image",
    "engine.policy.machine_info",
)  # fmt: skip
"""Functions that upscaling one image calls once: nothing is resolved, read or measured again."""

TYPE_IGNORES = 15
"""`# type: ignore` comments in the package; may only fall."""

SHARED_MODULE_NAMES = {"__init__", "config", "settings", "color", "reference"}
"""Module names that may occur in several packages, where the role is the same in each."""

WORDS = re.compile(
    r"""\b(
      pictures? | (number|working)\s+format | no\s+numbers | mended | to\s+mend | told | tells
    | keeper | contenders? | fooled | landing | lands?\s+whole | leave\s+(it|one|--\S+)\s+away
    | leave\s+one\s+of\s+them\s+away | here\s+are: | by\s+what,\s+at | chance\s+in\s+the\s+run
    | of\s+all\s+chance | want\s+of\s+memory | sow | blots? | heeded | which\s+is\s+taken
    | searched\s+deeply | whereabouts | thereabouts | to\s+the\s+(last\s+)?bit | judges? | judged
    | receptive\s+radius | core\s+of\s+a\s+tile | structure\s+loss | one\s+less
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""Words and phrases for which the field has others."""

NAME_PARTS = {
    "picture", "pictures", "keeper", "keepers", "contender", "contenders", "fooled", "landing",
    "mended", "told", "judge", "judges", "judged", "sow", "sown", "blot", "blots", "dice", "grain",
}  # fmt: skip


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


def file_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


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
    stack: list[ast.AST] = [tree_of(path)]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            stack.extend(node.orelse)
            continue
        if top_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        yield from targets(node)
        stack.extend(ast.iter_child_nodes(node))


def docstrings(tree: ast.Module) -> set[int]:
    """Ids of the constants that document a module, class, function, field or name."""
    found = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                found.add(id(statement.value))
    return found


def strings(path: Path) -> Iterator[ast.Constant]:
    """String constants of a file, without its docstrings."""
    left_out = docstrings(tree_of(path))
    for node in ast.walk(tree_of(path)):
        text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if text and id(node) not in left_out:
            yield node


def names_in(path: Path) -> Iterator[tuple[int, str]]:
    """Every name a file defines: classes, functions, parameters, variables and attributes."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def test_every_part_has_a_row() -> None:
    assert {part_of(name) for name in NAMES} <= set(ROWS)


def test_imports_point_down() -> None:
    wrong = []
    for path in modules():
        here = part_of(name_of(path))
        for target in imports(path, top_level=False):
            if not target.startswith("realesr_cli"):
                continue
            there = part_of(target)
            pair = {(here, there), (there, here)}
            if ROWS[there] > ROWS[here] or (here, there) in NEVER or pair & STRANGERS:
                wrong.append(f"{file_of(path)} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_libraries_stay_at_home() -> None:
    anywhere = set(sys.stdlib_module_names) | {"realesr_cli"}
    wrong = []
    for path in modules():
        tops = {target.split(".")[0] for target in imports(path, top_level=False)} - anywhere
        here = part_of(name_of(path))
        wrong += [f"{file_of(path)} imports {t}" for t in tops if here not in HOMES.get(t, ())]
    assert not wrong, "\n".join(wrong)


def test_numpy_only() -> None:
    for file in NUMPY_ONLY:
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
    wrong = [file_of(p) for p in modules() if "cv2" in tops_of(p)]
    assert not wrong


def tops_of(path: Path) -> set[str]:
    return {target.split(".")[0] for target in imports(path, top_level=True)}


def test_files_and_functions_fit() -> None:
    too_long = []
    for path in modules():
        lines = text_of(path).count("\n")
        if lines > LONGEST_FILE:
            too_long.append(f"{file_of(path)}: {lines} lines")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                size = (node.end_lineno or 0) - node.lineno + 1
                if size > LONGEST_FUNCTION:
                    too_long.append(f"{file_of(path)}:{node.lineno} {node.name}: {size} lines")
    assert not too_long, "\n".join(too_long)


def test_files_open_with_their_purpose() -> None:
    wrong = []
    for path in modules():
        doc = ast.get_docstring(tree_of(path)) or ""
        if not doc or not (doc.splitlines()[0].endswith((".", ":")) or "\n" in doc):
            wrong.append(file_of(path))
    assert not wrong


def test_only_the_command_line_prints() -> None:
    wrong = []
    for path in modules():
        for node in ast.walk(tree_of(path)):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if called and node.func.id == "print" and part_of(name_of(path)) != "cli":
                wrong.append(f"{file_of(path)}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


def test_one_name_one_class() -> None:
    homes = collections.defaultdict(set)
    for path in modules():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(file_of(path))
    assert not {name: files for name, files in homes.items() if len(files) > 1}


def test_one_name_one_module() -> None:
    counts = collections.Counter(path.stem for path in modules())
    assert {stem for stem, count in counts.items() if count > 1} <= SHARED_MODULE_NAMES


def test_type_checks_are_not_silenced_more_than_before() -> None:
    count = sum(text_of(path).count("# type: ignore") for path in modules())
    assert count <= TYPE_IGNORES, f"{count} comments"


def own_flags() -> tuple[set[str], set[str]]:
    """Every option of every command that the help shows: long names, short names."""
    from realesr_cli.cli.main import cli

    found: set[str] = {"--help"}

    def collect(command: click.Command) -> None:
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                found.update(parameter.opts, parameter.secondary_opts)
        if isinstance(command, click.Group):
            ctx = click.Context(command)
            for name in command.list_commands(ctx):
                below = command.get_command(ctx, name)
                assert below is not None
                collect(below)

    collect(cli)
    return {f for f in found if f.startswith("--")}, {f for f in found if not f.startswith("--")}


def test_only_the_command_line_names_its_flags() -> None:
    """A caller of the library has no flags: an error carries a key of `cli/advice.py` instead."""
    long, short = own_flags()
    wrong = []
    for path in modules():
        if part_of(name_of(path)) == "cli":
            continue
        for node in strings(path):
            flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", node.value)) & long
            # A lone "-L" is an argument of another program; in a sentence it is a flag of ours.
            if " " in node.value:
                flags |= set(re.findall(r"(?<![\w-])-[a-zA-Z](?![\w-])", node.value)) & short
            if flags and "pip install" not in node.value:
                wrong.append(f"{file_of(path)}:{node.lineno} {sorted(flags)} in {node.value!r}")
    assert not wrong, "\n".join(wrong)


def test_words_are_those_of_the_field() -> None:
    """In names, strings, docstrings and comments of the package, and in the documentation."""
    wrong = []
    for path in modules():
        for line, name in names_in(path):
            parts = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower().split("_")
            if set(parts) & NAME_PARTS:
                wrong.append(f"{file_of(path)}:{line} the name {name!r}")
    root = PACKAGE.parent
    pages = (*root.glob("*.md"), *root.glob("docs/*.md"), *PACKAGE.rglob("*.md"))
    for path in (*modules(), *pages, *PACKAGE.rglob("*.toml")):
        text = text_of(path)
        for match in WORDS.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            wrong.append(f"{path.relative_to(root)}:{line} {match[0]!r}")
    assert not wrong, "\n".join(wrong)


def test_one_image_does_nothing_twice_and_loads_few_modules(tmp_path: Path) -> None:
    """What an 8-bit PNG and a model file need, and nothing of training, evaluation or downloads."""
    from PIL import Image as pillow
    from upscale_cli import save_tiny

    pillow.new("RGB", (12, 8), "gray").save(tmp_path / "a.png")
    save_tiny(tmp_path / "tiny.pth")
    code = (
        "import collections, sys, threading\n"
        "calls = collections.Counter()\n"
        "def count(frame, event, argument):\n"
        "    if event == 'call':\n"
        "        code = frame.f_code\n"
        "        calls[frame.f_globals.get('__name__', '') + '.' + code.co_name] += 1\n"
        "sys.setprofile(count)\n"
        "threading.setprofile(count)\n"
        "from realesr_cli.cli.main import run\n"
        "try:\n"
        "    run(['upscale', 'a.png', '-m', 'tiny.pth', '--device', 'cpu', '-q'])\n"
        "except SystemExit as ended:\n"
        "    assert not ended.code, ended.code\n"
        "sys.setprofile(None)\n"
        "assert 'torch._dynamo' not in sys.modules\n"  # Its import takes a second.
        "print(*sorted(name for name in sys.modules if name.startswith('realesr_cli')))\n"
        f"print(*(calls['realesr_cli.' + name] for name in {ONCE!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    modules_line, calls_line = done.stdout.splitlines()
    loaded = modules_line.split()
    assert (tmp_path / "a_x4.png").is_file()
    assert dict(zip(ONCE, map(int, calls_line.split()), strict=True)) == dict.fromkeys(ONCE, 1)
    assert len(loaded) <= MODULES_FOR_ONE_IMAGE, loaded
    needless = {
        "compat", "dataset", "degrade", "diagnostics", "evaluate", "export", "metrics", "train",
        "video",
    }  # fmt: skip
    assert not {part_of(name) for name in loaded} & needless
    rare = {
        "engine.api", "engine.row_correction", "ops.back_projection", "ops.color",
        "ops.filters", "ops.resize", "weights.download", "weights.fetch", "weights.torchscript",
    }  # fmt: skip
    assert not {name.removeprefix("realesr_cli.") for name in loaded} & rare
