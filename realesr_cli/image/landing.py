"""Files that land whole: written under another name beside their place, then moved into it."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from realesr_cli.errors import ImageWriteError

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed and needs no lock.
    fcntl = None  # type: ignore[assignment]

PART_PREFIX, PART_SUFFIX = ".realesr-", ".part"
"""Unfinished files are named with these, and chance between them."""

_HINTS = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EACCES: "choose another folder or change its permissions",
    errno.EPERM: "choose another folder or change its permissions",
    errno.EROFS: "choose another folder",
    errno.ENOENT: "create the folder first",
    errno.ENOTDIR: "choose another folder",
    errno.EFBIG: "choose another folder or format",
}


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends well, and vanishes otherwise.

    The part file is locked as long as it is written, so that `remove_stale_files` can tell one that
    is from one whose process was killed. Raises ImageWriteError, with the reason and a way out.
    """
    target = Path(os.path.realpath(path))  # A link stays a link; what it points to is replaced.
    if target.is_dir():
        raise ImageWriteError(f"{path}: a folder: name a file in it")
    if target.exists() and not target.is_file():
        raise ImageWriteError(f"{path}: no ordinary file, it is not replaced")
    part = target.parent / f"{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}"
    try:
        with part.open("xb") as file:
            _lock(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except ImageWriteError as error:
        raise ImageWriteError(f"{path}: {error}") from error.__cause__
    except OSError as error:
        raise ImageWriteError(_reason(path, error)) from error
    finally:
        with contextlib.suppress(OSError):  # Moved away by now, or there is nothing to be done.
            part.unlink()


def remove_stale_files(folder: Path) -> list[Path]:
    """Remove the part files that killed processes left in a folder; returns what was removed.

    Those that a living process holds open are left alone, as are those that cannot be removed.
    """
    removed = []
    for part in sorted(folder.glob(f"{PART_PREFIX}*{PART_SUFFIX}")):
        with contextlib.suppress(OSError), part.open("rb") as file:
            _lock(file)
            removed.append(part)
    for part in removed.copy():
        try:
            part.unlink()
        except OSError:
            removed.remove(part)
    return removed


def _lock(file: BinaryIO) -> None:
    """Lock a file, or raise OSError where another process has it locked."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise


def _reason(path: Path, error: OSError) -> str:
    hint = _HINTS.get(error.errno or 0)
    text = f"cannot be written: {error.strerror or error}"
    return f"{path}: {text}; {hint}" if hint else f"{path}: {text}"
