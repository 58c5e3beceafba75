"""A model's file, from the cache or the network: checked, locked, resumable, offline-aware."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from realesr_cli.errors import (
    ChecksumMismatchError,
    DownloadError,
    ModelUnavailableError,
    RealesrError,
    RealesrWarning,
)
from realesr_cli.weights import cache, registry
from realesr_cli.weights.cache import Report
from realesr_cli.weights.download import AddressError, RetryPolicy, discard, transfer
from realesr_cli.weights.registry import RegistryEntry

DEFAULT_RETRY = RetryPolicy()
"""How downloads go unless a caller says otherwise."""

QUICK_RETRY = RetryPolicy(attempts=2, connect_timeout=5.0, backoff=0.5)
"""How they go where another model can stand in."""

_NO = frozenset({"", "0", "no", "false", "off"})


def is_offline(offline: bool | None = None) -> bool:
    """Whether the network may not be used: as given, else by REALESR_OFFLINE."""
    if offline is not None:
        return offline
    return os.environ.get("REALESR_OFFLINE", "").strip().lower() not in _NO


def ensure(
    entry: RegistryEntry,
    *,
    offline: bool | None = None,
    report: Report | None = None,
    allow_unverified: bool = False,
    network: RetryPolicy = DEFAULT_RETRY,
) -> Path:
    """The path of the entry's file, fetched first if it is not cached; its contents are checked.

    Size and SHA-256 must be what the registry states before a file gets its name. A file without a
    known hash is fetched only with `allow_unverified`; its hash is then remembered, and must stay.
    A cached file that is damaged is replaced. One process at a time fetches a file; the others
    wait for it.

    Raises ModelUnavailable (offline, no address, or every address failed; the line names the ways
    out), ChecksumMismatch (a wrong or unverified file), DownloadError (disk full, folder that
    cannot be written). An interrupted download goes on at the next call.
    """
    path = registry.cached(entry)
    reason = problem(entry, path, allow_unverified) if path else "not in the cache"
    if path is not None and not reason:
        return path
    if path is not None and path == registry.bundled_path(entry):
        raise ChecksumMismatchError(f"{path}: {reason}; install realesr-cli again")
    if is_offline(offline):
        if path is not None:
            raise ChecksumMismatchError(f"{path}: {reason}; offline, so it cannot be fetched again")
        raise _unavailable(entry, "is not cached and this is offline mode")
    if not entry.urls:
        raise ModelUnavailableError(
            f"{entry.name} has no public address: get {entry.file} and run "
            "`realesr models import FILE`"
        )
    if entry.sha256 is None and not allow_unverified:
        raise ChecksumMismatchError(
            f"{entry.name}: its SHA-256 is not known, so the file cannot be checked; "
            "--allow-unverified fetches it all the same"
        )
    if path is not None:
        warnings.warn(f"{path}: {reason}; fetched again", RealesrWarning, stacklevel=2)
    return _fetch_locked(entry, allow_unverified, network, report)


def problem(entry: RegistryEntry, path: Path, allow_unverified: bool = False) -> str:
    """What is wrong with a cached file, in words; empty if nothing.

    The size is looked at every time, the hash computed once and again when size or time change.
    """
    size = path.stat().st_size
    if entry.bytes is not None and size != entry.bytes:
        return f"{size} bytes where {entry.bytes} belong"
    expected = entry.sha256 or cache.recorded_hash(path)
    if expected is None:
        if not allow_unverified:
            return "its SHA-256 is not known (--allow-unverified takes it as it is)"
        cache.current_hash(path)
        return ""
    if cache.remembered_hash(path) == expected:
        return ""
    found = cache.sha256_of(path)
    if found != expected:
        return f"SHA-256 {found[:12]}... where {expected[:12]}... belongs"
    if path != registry.bundled_path(entry):  # nothing is written into the package
        cache.remember_hash(path, found)
    return ""


def _fetch_locked(
    entry: RegistryEntry, allow_unverified: bool, network: RetryPolicy, report: Report | None
) -> Path:
    path = registry.cache_path(entry)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with cache.locked(path.with_name(path.name + ".lock")):
            # Another process may have fetched it while this one waited.
            if not (path.is_file() and not problem(entry, path, allow_unverified)):
                _fetch(entry, path, network, report)
    except OSError as error:
        if isinstance(error, RealesrError):
            raise
        raise DownloadError(
            f"{path.parent}: cannot be written ({error.strerror}); set REALESR_HOME to a folder "
            "that can"
        ) from error
    return path


def _fetch(entry: RegistryEntry, path: Path, network: RetryPolicy, report: Report | None) -> None:
    """Try the addresses in order until one gives the right file."""
    part = path.with_name(path.name + ".part")
    reasons: list[str] = []
    wrong = 0
    for url in entry.urls:
        try:
            found = _from_address(entry, url, part, network, report)
        except AddressError as error:
            reasons.append(f"{url}: {error}")
            continue
        except ChecksumMismatchError as error:
            wrong += 1
            reasons.append(f"{url}: {error}")
            continue
        os.replace(part, path)
        discard(part)
        cache.remember_hash(path, found)
        return
    listed = "; ".join(reasons)
    if wrong == len(entry.urls):
        raise ChecksumMismatchError(f"{entry.name}: no address gave the right file ({listed})")
    raise _unavailable(entry, f"could not be fetched ({listed})")


def _from_address(
    entry: RegistryEntry, url: str, part: Path, network: RetryPolicy, report: Report | None
) -> str:
    """Fill the part file from one address; returns the hash that was found to be right."""
    while True:
        resumed = part.is_file() and part.stat().st_size > 0
        transfer(url, part, entry.bytes, network=network, report=report)
        found = cache.sha256_of(part)
        if entry.sha256 is None or found == entry.sha256:
            return found
        discard(part)
        # Bytes of an older download may have been of another file: once more, from the start.
        if not resumed:
            raise ChecksumMismatchError(
                f"SHA-256 {found[:12]}... where {entry.sha256[:12]}... belongs; not kept"
            )


def _unavailable(entry: RegistryEntry, what: str) -> ModelUnavailableError:
    error = ModelUnavailableError(_ways_out(entry, what))
    error.what = f"{entry.name} {what}"
    return error


def _ways_out(entry: RegistryEntry, what: str) -> str:
    carried = (
        f"{entry.name} {what}: on a connected machine run `realesr models pull {entry.name}` and "
        f"here `realesr models import {entry.file}`"
    )
    if entry.kind != "generator":
        return carried
    return (
        f"{carried}, or choose a cached model (`realesr models list`), or give a path with "
        "--model FILE"
    )
