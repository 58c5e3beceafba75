"""Inputs of a run: files, folders, patterns, lists and standard input, as a list of sources."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from realesr_cli.errors import ConfigError, ImageError, UnreadableImageError
from realesr_cli.image.folders import is_regular, walk_files
from realesr_cli.image.formats import is_image
from realesr_cli.text import format_names, format_value

STDIN = "-"


@dataclass(frozen=True)
class InputSource:
    """One image to read: a file, or the bytes that came through standard input."""

    path: Path | None
    data: bytes | None = field(default=None, repr=False)
    below: Path = Path()
    """Folder of the file relative to the searched folder; empty for a file named by itself."""
    searched: bool = False
    """Whether a folder or pattern was searched for it, rather than the file being named."""
    error: ImageError | None = field(default=None, compare=False)
    """Why there is nothing to read."""

    @property
    def name(self) -> str:
        """The source as a person typed or would type it."""
        return STDIN if self.path is None else str(self.path)

    @property
    def stem(self) -> str:
        """File name without its extension; `stdin` for standard input."""
        return "stdin" if self.path is None else self.path.stem

    @property
    def extension(self) -> str:
        """Extension with its dot; empty for standard input."""
        return "" if self.path is None else self.path.suffix

    @property
    def content(self) -> Path | bytes:
        """What `read_image` and `probe` take: the path, or the bytes."""
        content = self.data if self.path is None else self.path
        assert content is not None
        return content


def find_sources(
    arguments: Sequence[str],
    *,
    listed: Iterable[str] = (),
    recursive: bool = False,
    avoid: Path | None = None,
    stdin: bytes | None = None,
) -> list[InputSource]:
    """Return the images that arguments name, in the order given, folders sorted by name.

    A folder yields its image files, with `recursive` those of its subfolders too; hidden files
    and special files such as pipes are skipped. `avoid` is a folder that is not searched: the
    output folder. `stdin` holds the bytes for `-`. `listed` are paths of a list: each is one file,
    whether it exists or not, and the folders of relative ones are kept in the output.

    Raises ConfigError for an argument that names nothing or a special file, and where no image
    is left.
    """
    found: dict[str, InputSource] = {}
    named = (_expand(a, recursive=recursive, avoid=avoid, stdin=stdin) for a in arguments)
    for source in itertools.chain(*named, map(_listed, listed)):
        key = STDIN if source.path is None else os.path.abspath(source.path)
        found.setdefault(key, source)
    if not found:
        raise ConfigError(
            f"no image found in {format_names(arguments) or 'the list'}",
            advice="" if recursive or not arguments else "search-subfolders",
        )
    return list(found.values())


def _expand(
    argument: str, *, recursive: bool, avoid: Path | None, stdin: bytes | None
) -> Iterator[InputSource]:
    if argument == STDIN:
        yield InputSource(None, data=stdin or b"")
        return
    if not argument:
        raise ConfigError("an input is empty; is a shell variable unset?")
    path = Path(argument)
    if os.path.isdir(path):
        yield from _in_folder(path, recursive=recursive, avoid=avoid)
    elif os.path.lexists(path):
        if os.path.exists(path) and not is_regular(path):
            raise ConfigError(f"{path}: not a regular file", advice="pipe-to-stdin")
        yield InputSource(path)
    elif glob.has_magic(argument):
        yield from _in_glob(argument, recursive=recursive, avoid=avoid)
    else:
        raise ConfigError(f"{format_value(argument)}: no such file or folder")


def _listed(name: str) -> InputSource:
    path = Path(name)
    inside = not path.is_absolute() and ".." not in path.parts
    return InputSource(path, below=path.parent if inside else Path())


def _in_glob(pattern: str, *, recursive: bool, avoid: Path | None) -> Iterator[InputSource]:
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise ConfigError(f"{pattern}: no file matches")
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    for match in matches:
        path = Path(match)
        if path.is_dir():
            if recursive:
                yield from _in_folder(path, recursive=True, avoid=avoid, root=root)
        elif is_image(path) and is_regular(path):
            yield InputSource(path, below=path.parent.relative_to(root), searched=True)


def _in_folder(
    folder: Path, *, recursive: bool, avoid: Path | None, root: Path | None = None
) -> Iterator[InputSource]:
    unreadable: list[OSError] = []
    files = walk_files(folder, recursive=recursive, skip=avoid, on_error=unreadable.append)
    for path in files:
        if is_image(path):
            yield InputSource(path, below=path.parent.relative_to(root or folder), searched=True)
    for error in unreadable:
        reason = f"{error.filename}: cannot be read: {error.strerror or error}"
        yield InputSource(Path(error.filename), searched=True, error=UnreadableImageError(reason))


def read_list(data: bytes) -> list[str]:
    """Return the paths of a list: one a line, or separated by NUL as `find -print0` does it."""
    separator = b"\0" if b"\0" in data else b"\n"
    names = (os.fsdecode(line.removesuffix(b"\r")) for line in data.split(separator))
    return [name for name in names if name]
