"""Files that land whole, their SHA-256, and a lock between processes: the floor of the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from realesr_cli.atomic import atomic_write_bytes
from realesr_cli.errors import DownloadError, RealesrWarning

Report = Callable[[int, int], None]
"""Progress as `report(done, total)`; a total of 0 means that it is not known."""

CHUNK = 1 << 20
"""Bytes read or written at a time."""

_POLL = 0.1
_TELL_AFTER = 3.0


def sha256_of(path: Path, report: Report | None = None) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if report is not None:
                report(done, total)
    return digest.hexdigest()


def _stamp_path(path: Path) -> Path:
    return path.with_name(path.name + ".checked")


def recorded_hash(path: Path) -> str | None:
    """The hash that the file had when it was last checked, whatever it is now."""
    found = _read_stamp(path)
    return found[2] if found else None


def remembered_hash(path: Path) -> str | None:
    """The recorded hash if size and time of change are still the same, so that it still holds."""
    found = _read_stamp(path)
    status = path.stat()
    return found[2] if found and found[:2] == (status.st_size, status.st_mtime_ns) else None


def current_hash(path: Path) -> str:
    """The file's hash; computed once and remembered until size or time of change differ."""
    known = remembered_hash(path)
    if known is None:
        known = sha256_of(path)
        remember_hash(path, known)
    return known


def remember_hash(path: Path, sha256: str) -> None:
    """Record the hash beside the file; a cache that cannot be written is checked every time."""
    status = path.stat()
    stamp = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256}
    with contextlib.suppress(OSError):
        atomic_write_bytes(_stamp_path(path), json.dumps(stamp).encode())


def forget(path: Path) -> None:
    """Remove a cached file and what is kept about it."""
    path.unlink(missing_ok=True)
    _stamp_path(path).unlink(missing_ok=True)


def _read_stamp(path: Path) -> tuple[int, int, str] | None:
    try:
        stamp = json.loads(_stamp_path(path).read_bytes())
        return int(stamp["bytes"]), int(stamp["mtime_ns"]), str(stamp["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, waiting for another process or thread that holds it.

    The system releases the lock when its holder ends in any way, kill -9 included; the empty file
    stays, since removing it would let two holders in. Raises DownloadError where the file system
    has no locks.
    """
    with path.open("ab") as file:
        started, told = time.monotonic(), False
        while not _try_lock(file):
            if not told and time.monotonic() - started > _TELL_AFTER:
                told = True
                warnings.warn(f"waiting for another process: {path}", RealesrWarning, stacklevel=3)
            time.sleep(_POLL)
        try:
            yield
        finally:
            _unlock(file)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise DownloadError(
                f"{file.name}: cannot be locked ({error.strerror}); set REALESR_HOME to a folder "
                "on a local disk"
            ) from error
        return True

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
