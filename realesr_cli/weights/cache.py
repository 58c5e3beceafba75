"""Files of the cache: their SHA-256, remembered while size and time stay the same, and locks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

from realesr_cli.atomic import atomic_write_bytes, remove_stale_files
from realesr_cli.errors import ConfigError, DownloadError, RealesrWarning
from realesr_cli.plain import read_json
from realesr_cli.progress import Progress, no_progress

CHUNK = 1 << 20
"""Bytes read at a time."""

MAX_STAMP_BYTES = 4096

_WARN_AFTER = 3.0
"""Seconds of waiting for a lock before a warning says so."""


def sha256_of(path: Path, progress: Progress = no_progress) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits; `progress` gets bytes."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(done, total)
    return digest.hexdigest()


def recorded_hash(path: Path) -> str | None:
    """Return the hash that the file had when it was last checked, whatever it is now."""
    found = _read_stamp(path)
    return found[2] if found else None


def remembered_hash(path: Path) -> str | None:
    """Return the recorded hash if size and time of change are still the same."""
    found = _read_stamp(path)
    status = path.stat()
    return found[2] if found and found[:2] == (status.st_size, status.st_mtime_ns) else None


def current_hash(path: Path) -> str:
    """Return the file's hash, computed only if size or time of change differ from last time."""
    known = remembered_hash(path)
    if known is None:
        known = sha256_of(path)
        remember_hash(path, known)
    return known


def remember_hash(path: Path, sha256: str) -> None:
    """Record the hash beside the file; a cache that cannot be written is checked every time."""
    status = path.stat()
    stamp = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256}
    remove_stale_files(path.parent)
    with contextlib.suppress(OSError):
        atomic_write_bytes(_stamp_path(path), json.dumps(stamp).encode())


def forget(path: Path) -> None:
    """Remove a cached file and what is recorded about it. Raises OSError."""
    path.unlink(missing_ok=True)
    _stamp_path(path).unlink(missing_ok=True)


def _stamp_path(path: Path) -> Path:
    return path.with_name(path.name + ".checked")


def _read_stamp(path: Path) -> tuple[int, int, str] | None:
    try:
        stamp = read_json(_stamp_path(path), max_bytes=MAX_STAMP_BYTES)
        return int(stamp["bytes"]), int(stamp["mtime_ns"]), str(stamp["sha256"])
    except (ConfigError, OverflowError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, waiting for another process or thread that holds it.

    The system releases the lock when its holder ends in any way, kill -9 included; the empty file
    stays. Raises DownloadError where the file system has no locks.
    """
    import filelock  # here, because most starts need no lock

    lock = filelock.FileLock(path)
    try:
        try:
            lock.acquire(timeout=_WARN_AFTER)
        except filelock.Timeout:
            warnings.warn(f"waiting for another process: {path}", RealesrWarning, stacklevel=3)
            lock.acquire(timeout=-1)
    except (OSError, NotImplementedError) as error:
        raise DownloadError(
            f"{path}: cannot be locked: {getattr(error, 'strerror', None) or error}",
            advice="unusable-cache",
        ) from error
    try:
        yield
    finally:
        lock.release()
