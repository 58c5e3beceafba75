"""Find image files in folders: the one scanner for training, evaluation and datasets."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from realesr_cli.errors import DatasetError
from realesr_cli.image.formats import is_image


@dataclass(frozen=True)
class ExcludedImage:
    """A file that cannot be used, and why."""

    path: Path
    reason: str


def find_images(folder: Path, *, recursive: bool) -> list[Path]:
    """Return the image files of a folder, sorted by path.

    Files count as images by their extension; see `walk_files` for what is skipped. Raises
    DatasetError for a folder that does not exist, cannot be read or contains no image.
    """
    if not os.path.isdir(folder):
        what = "is a file, not a folder" if os.path.exists(folder) else "does not exist"
        raise DatasetError(f"{folder} {what}: expected a folder of images")
    files = list(walk_files(folder, recursive=recursive))
    found = sorted(path for path in files if is_image(path))
    if found:
        return found
    if files:
        raise DatasetError(f"{folder} contains no image files, only others such as {files[0].name}")
    if not recursive and any(path.is_dir() for path in folder.iterdir()):
        raise DatasetError(
            f"{folder} contains folders but no files: give one of them, or set recursive"
        )
    raise DatasetError(f"{folder} contains no files: expected a folder of images")


def walk_files(
    folder: Path,
    *,
    recursive: bool,
    skip: Path | None = None,
    on_error: Callable[[OSError], None] | None = None,
) -> Iterator[Path]:
    """Yield the files of a folder sorted by name, then those of its subfolders.

    Skipped are hidden files and folders (temporary files of this package are hidden), the folder
    `skip`, and anything but regular files (reading a FIFO or device could block forever). Links
    are followed, each folder is visited once, and a broken link is yielded so that it is reported
    when it is opened. Raises DatasetError for a folder that cannot be read, unless there is an
    `on_error`, which is called instead.
    """
    visited = {os.path.realpath(path) for path in (folder, skip) if path is not None}

    def fail(error: OSError) -> None:
        reason = error.strerror or error
        raise DatasetError(f"{error.filename} cannot be read: {reason}") from error

    for parent, folders, names in os.walk(folder, followlinks=True, onerror=on_error or fail):
        kept = []
        for name in sorted(folders) if recursive else ():
            identity = os.path.realpath(Path(parent, name))
            if not name.startswith(".") and identity not in visited:
                visited.add(identity)
                kept.append(name)
        folders[:] = kept
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and is_regular(path):
                yield path


def is_regular(path: Path) -> bool:
    """Return whether a path is a regular file, or a broken link, which opening will report."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True
