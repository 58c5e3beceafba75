"""A model's file, from the cache or the network: checked, locked, resumable, offline-aware."""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from pathlib import Path

from realesr_cli.atomic import atomic_write_bytes
from realesr_cli.errors import (
    ChecksumMismatchError,
    ConfigError,
    DownloadError,
    ModelUnavailableError,
    RealesrError,
    RealesrWarning,
)
from realesr_cli.plain import read_json
from realesr_cli.progress import Progress, no_progress
from realesr_cli.text import format_seconds
from realesr_cli.weights import cache, registry
from realesr_cli.weights.download import (
    AddressError,
    RetryPolicy,
    UnreachableError,
    discard,
    download,
)
from realesr_cli.weights.registry import RegistryEntry

DEFAULT_RETRY = RetryPolicy()
"""How downloads go unless a caller chooses otherwise."""

QUICK_RETRY = RetryPolicy(attempts=2, connect_timeout=5.0)
"""How they go where another model can stand in."""

REMEMBER_FAILURE = 300.0
"""Seconds for which `QUICK_RETRY` does not try again after no connection was possible."""

_NO = frozenset({"", "0", "no", "false", "off"})


def is_offline(offline: bool | None = None) -> bool:
    """Return whether the network must not be used: as given, else by REALESR_OFFLINE."""
    if offline is not None:
        return offline
    return os.environ.get("REALESR_OFFLINE", "").strip().lower() not in _NO


def ensure(
    entry: RegistryEntry,
    *,
    offline: bool | None = None,
    progress: Progress = no_progress,
    allow_unverified: bool = False,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> Path:
    """Return the path of the entry's file, checked, after fetching it where it is not cached.

    Size and SHA-256 must be what the registry states before a file gets its name. A file without a
    known hash is fetched only with `allow_unverified`; its hash is then remembered, and must stay.
    A cached file that is damaged is replaced. One process at a time fetches a file; the others
    wait for it. `progress` gets bytes.

    Raises ModelUnavailableError (offline, no address, or every address failed),
    ChecksumMismatchError (a wrong or unverified file), DownloadError (disk full, folder that cannot
    be written). An interrupted download continues at the next call.
    """
    path = registry.cached(entry)
    reason = find_problem(entry, path, allow_unverified) if path else "not in the cache"
    if path is not None and not reason:
        return path
    if path is not None and path == registry.bundled_path(entry):
        raise ChecksumMismatchError(f"{path}: {reason}; install realesr-cli again")
    if is_offline(offline):
        if path is not None:
            raise ChecksumMismatchError(f"{path}: {reason}; offline, so it cannot be fetched again")
        raise _unavailable(entry, "it is not cached, and offline mode forbids downloads")
    if not entry.urls:
        raise _unavailable(entry, "it has no public address")
    if entry.sha256 is None and not allow_unverified:
        raise ChecksumMismatchError(
            f"{entry.name}: its SHA-256 is not known, so the file cannot be checked",
            advice="unverified-model",
        )
    if path is not None:
        warnings.warn(f"{path}: {reason}; fetching it again", RealesrWarning, stacklevel=2)
    return _fetch_locked(entry, allow_unverified, retry, progress)


def find_problem(
    entry: RegistryEntry, path: Path, allow_unverified: bool = False, *, sha256: str | None = None
) -> str:
    """Return what is wrong with a cached file, in words; empty if nothing.

    The size is compared every time, the hash computed once and again when size or time change, or
    given as `sha256`.
    """
    size = path.stat().st_size
    if entry.bytes is not None and size != entry.bytes:
        return f"size mismatch: expected {entry.bytes} bytes, got {size}"
    expected = entry.sha256 or cache.recorded_hash(path)
    if expected is None:
        if not allow_unverified:
            return "its SHA-256 is not known, so it cannot be checked"
        cache.current_hash(path)
        return ""
    if sha256 is None and cache.remembered_hash(path) == expected:
        return ""
    found = sha256 or cache.sha256_of(path)
    if found != expected:
        return _hash_mismatch(expected, found)
    if path != registry.bundled_path(entry):  # nothing is written into the package
        cache.remember_hash(path, found)
    return ""


def _hash_mismatch(expected: str, found: str) -> str:
    return f"SHA-256 mismatch: expected {expected[:12]}..., got {found[:12]}..."


def _fetch_locked(
    entry: RegistryEntry, allow_unverified: bool, retry: RetryPolicy, progress: Progress
) -> Path:
    path = registry.cache_path(entry)
    if retry is QUICK_RETRY and (ago := _seconds_since_failure()) is not None:
        raise _unavailable(entry, f"no connection {format_seconds(ago)} ago, not tried again")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with cache.hold_lock(path.with_name(path.name + ".lock")):
            # Another process may have fetched it while this one waited.
            if not (path.is_file() and not find_problem(entry, path, allow_unverified)):
                _fetch(entry, path, retry, progress)
    except OSError as error:
        if isinstance(error, RealesrError):
            raise
        raise DownloadError(
            f"{path.parent}: cannot be written: {error.strerror}", advice="unusable-cache"
        ) from error
    return path


def _fetch(entry: RegistryEntry, path: Path, retry: RetryPolicy, progress: Progress) -> None:
    """Try the addresses in order until one gives the right file."""
    part = path.with_name(path.name + ".part")
    reasons: list[str] = []
    wrong = unreachable = 0
    for url in entry.urls:
        try:
            found = _fetch_from(entry, url, part, retry, progress)
        except (AddressError, ChecksumMismatchError) as error:
            wrong += isinstance(error, ChecksumMismatchError)
            unreachable += isinstance(error, UnreachableError)
            reasons.append(f"{url}: {error}")
            continue
        os.replace(part, path)
        discard(part)
        cache.remember_hash(path, found)
        _failure_path().unlink(missing_ok=True)
        return
    listed = "; ".join(reasons)
    if wrong == len(entry.urls):
        raise ChecksumMismatchError(f"{entry.name}: no address has the right file ({listed})")
    if unreachable == len(entry.urls):
        _remember_failure()
    raise _unavailable(entry, f"it could not be fetched ({listed})")


def _fetch_from(
    entry: RegistryEntry, url: str, part: Path, retry: RetryPolicy, progress: Progress
) -> str:
    """Fill the part file from one address, and return its hash, found to be right."""
    while True:
        resumed = part.is_file() and part.stat().st_size > 0
        download(url, part, entry.bytes, retry=retry, progress=progress)
        found = cache.sha256_of(part)
        if entry.sha256 is None or found == entry.sha256:
            return found
        discard(part)
        # Bytes of an older download may have been of another file: once more, from the start.
        if not resumed:
            raise ChecksumMismatchError(f"{_hash_mismatch(entry.sha256, found)}; file discarded")


def _unavailable(entry: RegistryEntry, reason: str) -> ModelUnavailableError:
    text = f"{entry.name} cannot be used: {reason}"
    values = {"name": entry.name, "file": entry.file}
    if not entry.urls:
        return ModelUnavailableError(text, advice="model-without-address", values=values)
    if entry.kind == "generator":
        return ModelUnavailableError(text, advice="absent-model", values=values)
    return ModelUnavailableError(text, advice="absent-file", values=values)


def _failure_path() -> Path:
    return registry.home() / "no-connection.json"


def _remember_failure() -> None:
    with contextlib.suppress(OSError):
        atomic_write_bytes(_failure_path(), json.dumps({"time": time.time()}).encode())


def _seconds_since_failure() -> float | None:
    """Return how long ago no connection was possible, None where that is too long ago to count."""
    try:
        ago = time.time() - float(read_json(_failure_path(), max_bytes=1024)["time"])
    except (ConfigError, KeyError, TypeError, ValueError, OverflowError):
        return None
    return ago if 0 <= ago < REMEMBER_FAILURE else None
