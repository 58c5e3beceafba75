"""Atomic writes: a temporary file beside the target, fsync, rename; and removal of stale ones.

A reader sees the old contents or the new, never a part. Temporary files are locked while they are
written, so that those of running processes and those that a killed process left are distinct.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from realesr_cli.errors import ConfigError, WriteError

try:
    import fcntl
except ImportError:  # Windows: an open file cannot be removed there, so it needs no lock.
    fcntl = None  # type: ignore[assignment]

PREFIX, SUFFIX = ".realesr-", ".part"
"""Names of temporary files start and end with these; random digits stand between."""

_ATTEMPTS = 100

_STALE_SECONDS = 24 * 3600

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
def write_errors(path: Path, error_class: type[WriteError] = WriteError) -> Iterator[None]:
    """Turn an OSError into `error_class` with the path, the reason and what to do about it."""
    try:
        yield
    except WriteError as error:
        raise error.prefixed(str(path)) from error.__cause__
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        text = f"{path}: cannot be written: {error.strerror or error}"
        raise error_class(f"{text}; {hint}" if hint else text) from error


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file that replaces `path` when the block ends without an exception.

    A symbolic link is followed, so that the link stays. An existing file's permissions are kept.
    On an exception the temporary file is removed and `path` is left alone. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    _check_target(target)
    with _temporary(target) as (file, _):
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give the path of a temporary file, for libraries that write by name; else `atomic_write`."""
    target = Path(os.path.realpath(path))
    _check_target(target)
    with _temporary(target) as (_, part):
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a small file atomically. Raises WriteError with the reason and what to do."""
    with write_errors(path), atomic_write(path) as file:
        file.write(data)


def remove_stale_files(folder: Path) -> list[Path]:
    """Remove the temporary files that killed processes left in a folder, and return their paths.

    Files that a running process holds are left alone, and so are those that cannot be removed. On
    a file system without locks, where the process may run on another machine, only files that are
    older than a day count as left.
    """
    removed = []
    for part in sorted(folder.glob(f"{PREFIX}*{SUFFIX}")):
        with contextlib.suppress(OSError), part.open("rb") as file:
            locked = lock_file(file)
            old = time.time() - os.fstat(file.fileno()).st_mtime > _STALE_SECONDS
            if fcntl is not None and (locked or old):
                part.unlink()
                removed.append(part)
        if fcntl is None:
            with contextlib.suppress(OSError):
                part.unlink()
                removed.append(part)
    return removed


def check_writable(targets: Iterable[Path | None]) -> None:
    """Raise ConfigError where the folder of a target, or the first existing above, is read-only."""
    for folder in dict.fromkeys(t.parent for t in targets if t is not None):
        place = folder
        while not os.path.lexists(place) and place != place.parent:
            place = place.parent
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            text = f"cannot write into {folder}: {error.strerror or error}"
            raise ConfigError(text, advice="choose-output") from None


def _check_target(target: Path) -> None:
    """Raise OSError for a target that must not be replaced: a folder or a special file."""
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file in it", str(target))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "is a special file; it is not replaced", str(target))


@contextmanager
def _temporary(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Create and lock a temporary file beside `target`, and rename it to `target` at the end."""
    file, part = _create(target.parent)
    try:
        with file:
            yield file, part
            # A library that wrote by name may have made the file anew, readable by its owner only.
            os.chmod(part, _mode(target, os.fstat(file.fileno())))
            if fcntl is not None:  # Renamed while locked, or another process may remove it first.
                os.replace(part, target)
        if fcntl is None:  # Windows renames no open file.
            os.replace(part, target)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _mode(target: Path, created: os.stat_result) -> int:
    """Permissions of the result: those of the file it replaces, else what the umask allows."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except OSError:
        return stat.S_IMODE(created.st_mode)


def _create(folder: Path) -> tuple[BinaryIO, Path]:
    """Create and lock a temporary file.

    Between creation and lock another process may take the file for a stale one and remove it; that
    shows in the file no longer being the one that has the name, and then another is made.
    """
    for _ in range(_ATTEMPTS):
        part = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        file = part.open("xb")
        try:
            lock_file(file)
            if os.path.samestat(os.fstat(file.fileno()), part.stat()):
                return file, part
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            file.close()
            part.unlink(missing_ok=True)
            raise
        file.close()
    raise OSError(errno.EBUSY, "other processes remove the temporary files", str(folder))


def lock_file(file: BinaryIO) -> bool:
    """Lock a file and return True; False where there are no locks.

    Raises BlockingIOError where another process holds it.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        return False
    return True
