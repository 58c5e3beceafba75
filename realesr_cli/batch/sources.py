"""Inputs of a run: files, folders, patterns, lists and standard input, as a list of sources."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import itertools
import os
import re
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from realesr_cli.errors import (
    ConfigError,
    ImageError,
    UnreadableImageError,
    UnsupportedImageError,
)
from realesr_cli.image.folders import is_regular, walk_files
from realesr_cli.image.formats import is_image
from realesr_cli.text import did_you_mean, format_names, format_value

STDIN = "-"
ARCHIVE_EXTENSIONS = (".cbz", ".zip")

_MAX_COMPARED = 1000
"""File names that a misspelled one is compared with."""


@dataclass(frozen=True)
class InputSource:
    """One input: a file, the bytes of standard input, or an image inside an archive."""

    path: Path | None
    """File to read; None for standard input."""
    data: bytes | None = field(default=None, repr=False)
    below: Path = Path()
    """Folder of the file relative to the searched folder; empty for a file named by itself."""
    searched: bool = False
    """Whether a folder or pattern was searched for it, rather than the file being named."""
    member: str | None = None
    """Name of the image inside the archive `path`."""
    url: str = field(default="", repr=False)
    """URL of an object; `path` is then its name, or the local copy."""
    version: str = ""
    """Which version of the object this is, where its store says so."""
    error: ImageError | None = field(default=None, compare=False)
    """Why there is nothing to read."""

    @property
    def name(self) -> str:
        """The source as a person typed or would type it."""
        if self.url:
            from realesr_cli.batch.storage import redact  # only where there are URLs

            return redact(self.url) if self.member is None else f"{redact(self.url)}/{self.member}"
        if self.path is None:
            return STDIN
        return str(self.path) if self.member is None else f"{self.path}/{self.member}"

    @property
    def stem(self) -> str:
        """File name without its extension; `stdin` for standard input."""
        return "stdin" if self.path is None else self._file_name.stem

    @property
    def extension(self) -> str:
        """Extension with its dot; empty for standard input."""
        return "" if self.path is None else self._file_name.suffix

    @property
    def _file_name(self) -> PurePath:
        assert self.path is not None
        return self.path if self.member is None else PurePosixPath(self.member)

    @property
    def relative(self) -> str:
        """Path below the searched folder or of the list's line, with `/`, in one Unicode form."""
        path = (self.below / (self.stem + self.extension)).as_posix()
        return unicodedata.normalize("NFC", path)

    @property
    def is_archive(self) -> bool:
        """Whether this is a ZIP or CBZ file, by its extension."""
        return self.member is None and is_archive(self.extension)

    def file_bytes(self) -> int:
        """Return the size of its file; 0 where that is unknown."""
        if self.path is None:
            return len(self.data or b"")
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def content(self) -> Path | bytes:
        """Return what `read_image` and `probe` take: the path, or the bytes.

        Raises ImageError where an archive is damaged.
        """
        if self.path is None:
            assert self.data is not None
            return self.data
        if self.member is None:
            return self.path
        with archive_errors(self.name), zipfile.ZipFile(self.path) as archive:
            return archive.read(self.member)


def is_archive(extension: str) -> bool:
    """Return whether files with this extension are archives of images."""
    return extension.lower() in ARCHIVE_EXTENSIONS


@dataclass(frozen=True)
class Globs:
    """Which inputs a run takes: those that match `include`, or all, except those of `exclude`.

    A pattern is compared with the file name and with `InputSource.relative`; `*` matches `/` too.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def accept(self, source: InputSource) -> bool:
        """Return whether to take an input."""
        names = (source.relative, source.relative.rpartition("/")[2])
        taken, refused = (
            any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)
            for patterns in (self.include, self.exclude)
        )
        return (taken or not self.include) and not refused


ALL = Globs()


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of the inputs, which need to know nothing of each other."""

    index: int
    count: int

    def contains(self, source: InputSource) -> bool:
        """Return whether an input belongs to this part, whatever other inputs there are.

        The hash is of the relative path without its extension, so that inputs whose results could
        have the same name are in one part, where that is noticed.
        """
        stem = source.relative.removesuffix(source.extension)
        digest = hashlib.sha256(stem.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index


def parse_shard(text: str) -> Shard:
    """Read `I/N`, counted from 0. Raises ConfigError."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise ConfigError(f"shard {text!r}: expected I/N with I from 0 to N - 1, such as 0/4")
    return Shard(int(match[1]), int(match[2]))


def find_sources(
    arguments: Sequence[str],
    *,
    listed: Iterable[str] = (),
    recursive: bool = False,
    avoid: Path | None = None,
    stdin: bytes | None = None,
    globs: Globs = ALL,
) -> list[InputSource]:
    """Return the images that arguments name, in the order given, folders sorted by name.

    A folder yields its image files and comics (.cbz), with `recursive` those of its subfolders
    too; hidden files and special files such as pipes are skipped. `avoid` is a folder that is not
    searched: the output folder. `stdin` holds the bytes for `-`. `listed` are paths of a list: each
    is one file, whether it exists or not, and the folders of relative ones are kept in the output.
    `globs` apply to all of these.

    Raises ConfigError for an argument that names nothing or a special file, and where no image
    is left.
    """
    found: dict[str, InputSource] = {}
    named = (_expand(a, recursive=recursive, avoid=avoid, stdin=stdin) for a in arguments)
    for source in itertools.chain(*named, map(_listed, listed)):
        key = STDIN if source.path is None else os.path.abspath(source.path)
        if source.path is None or source.error is not None or globs.accept(source):
            found.setdefault(key, source)
    if not found:
        matching = " that the patterns select" if globs != ALL else ""
        raise ConfigError(
            f"no image found{matching} in {format_names(arguments) or 'the list'}",
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
        near = did_you_mean(path.name, _names_beside(path))
        raise ConfigError(f"{format_value(argument)}: no such file or folder{near}")


def _names_beside(path: Path) -> list[str]:
    """Return the names in the folder where a missing file was looked for."""
    try:
        with os.scandir(path.parent) as entries:
            return [entry.name for entry in itertools.islice(entries, _MAX_COMPARED)]
    except OSError:
        return []


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
        elif (is_image(path) or is_archive(path.suffix)) and is_regular(path):
            yield InputSource(path, below=path.parent.relative_to(root), searched=True)


def _in_folder(
    folder: Path, *, recursive: bool, avoid: Path | None, root: Path | None = None
) -> Iterator[InputSource]:
    unreadable: list[OSError] = []
    files = walk_files(folder, recursive=recursive, skip=avoid, on_error=unreadable.append)
    for path in files:
        # A .zip may contain anything, so it is taken only where it is named.
        if is_image(path) or path.suffix.lower() == ".cbz":
            yield InputSource(path, below=path.parent.relative_to(root or folder), searched=True)
    for error in unreadable:
        reason = f"{error.filename}: cannot be read: {error.strerror or error}"
        yield InputSource(Path(error.filename), searched=True, error=UnreadableImageError(reason))


@contextmanager
def archive_errors(name: str) -> Iterator[None]:
    """Turn the exceptions of `zipfile` into ImageErrors with the name of the archive."""
    try:
        yield
    except ImageError:
        raise
    except NotImplementedError as error:
        raise UnsupportedImageError(f"{name}: {error}") from error
    except (
        zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError,
        LookupError, OverflowError,
    ) as error:  # fmt: skip
        raise UnreadableImageError(f"{name}: not a ZIP archive, or damaged: {error}") from error
    except FileNotFoundError:
        raise UnreadableImageError(f"{name}: no such file") from None
    except OSError as error:
        raise UnreadableImageError(f"{name}: cannot be read: {error.strerror or error}") from error


def read_list(data: bytes) -> list[str]:
    """Return the paths of a list: one a line, or separated by NUL as `find -print0` does it."""
    separator = b"\0" if b"\0" in data else b"\n"
    names = (os.fsdecode(line.removesuffix(b"\r")) for line in data.split(separator))
    return [name for name in names if name]
