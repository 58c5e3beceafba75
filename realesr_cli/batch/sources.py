"""Which images the user means: files, folders, globs and standard input as a list of sources."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from realesr_cli.errors import ConfigError
from realesr_cli.image.formats import is_image

STDIN = "-"


@dataclass(frozen=True)
class InputSource:
    """One image to read: a file, or the bytes that came through standard input."""

    path: Path | None
    data: bytes | None = None
    below: Path = Path()
    """Folder of the file relative to the input folder it was found in; empty for a named file."""

    @property
    def name(self) -> str:
        """The source as a person typed or would type it."""
        return STDIN if self.path is None else str(self.path)

    @property
    def stem(self) -> str:
        """File name without its extension, `stdin` for standard input."""
        return "stdin" if self.path is None else self.path.stem

    @property
    def extension(self) -> str:
        """Extension with its dot, empty for standard input."""
        return "" if self.path is None else self.path.suffix


def find_sources(
    arguments: Sequence[str],
    *,
    recursive: bool = False,
    avoid: Path | None = None,
    stdin: bytes | None = None,
) -> list[InputSource]:
    """The images named by the arguments, in the order given, folders sorted by name.

    A folder yields its images (with `recursive`, those of its subfolders too); other files in it
    and hidden ones (unfinished part files among them) are passed over. `avoid` is a folder inside
    an input folder that is not searched: the output folder. `stdin` holds the bytes for `-`.

    Raises ConfigError for an argument that names nothing, or when nothing at all is left.
    """
    found: dict[str, InputSource] = {}
    for argument in arguments:
        for source in _expand(argument, recursive=recursive, avoid=avoid, stdin=stdin):
            key = STDIN if source.path is None else os.path.abspath(source.path)
            found.setdefault(key, source)
    if not found:
        listed = ", ".join(arguments)
        hint = "" if recursive else " (--recursive looks into subfolders too)"
        raise ConfigError(f"no image found in {listed}{hint}")
    return list(found.values())


def _expand(
    argument: str, *, recursive: bool, avoid: Path | None, stdin: bytes | None
) -> Iterator[InputSource]:
    if argument == STDIN:
        yield InputSource(None, data=stdin or b"")
        return
    path = Path(argument)
    if path.is_dir():
        yield from _in_folder(path, recursive=recursive, avoid=avoid)
    elif os.path.lexists(path):
        yield InputSource(path)
    elif glob.has_magic(argument):
        yield from _in_glob(argument, recursive=recursive, avoid=avoid)
    else:
        raise ConfigError(f"{argument}: no such file or folder")


def _in_glob(pattern: str, *, recursive: bool, avoid: Path | None) -> Iterator[InputSource]:
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise ConfigError(f"{pattern}: nothing matches")
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    for match in matches:
        path = Path(match)
        if path.is_dir():
            if recursive:
                yield from _in_folder(path, recursive=True, avoid=avoid, root=root)
        elif is_image(path):
            yield InputSource(path, below=path.parent.relative_to(root))


def _in_folder(
    folder: Path, *, recursive: bool, avoid: Path | None, root: Path | None = None
) -> Iterator[InputSource]:
    for here, folders, files in os.walk(folder):
        place = Path(here)
        kept = [f for f in folders if not f.startswith(".") and not _same(place / f, avoid)]
        folders[:] = sorted(kept) if recursive else []
        for name in sorted(files):
            if is_image(place / name):
                yield InputSource(place / name, below=place.relative_to(root or folder))


def _same(path: Path, other: Path | None) -> bool:
    return other is not None and os.path.realpath(path) == os.path.realpath(other)
