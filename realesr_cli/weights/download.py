"""One file over HTTP into a part file: resume, retries with back-off, no trust in the server."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import requests
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, ReadTimeoutError
from urllib3.util import Retry

from realesr_cli.errors import ConfigError, DownloadError
from realesr_cli.plain import read_json
from realesr_cli.progress import Progress, no_progress
from realesr_cli.settings import check, option
from realesr_cli.text import format_bytes

MAX_UNKNOWN = 2 << 30
"""Most bytes accepted for a file whose size is not known."""

_PROGRESS = 1 << 20
"""An attempt that brought this many bytes does not count as failed."""

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_BLOCK = 1 << 16
_MAX_NOTE_BYTES = 1 << 16


@dataclass(frozen=True)
class RetryPolicy:
    """How patient a download is; `sleep` is there for tests."""

    attempts: int = option(5, help="Tries per address without progress.", low=1)
    connect_timeout: float = option(15.0, help="Seconds to wait for a connection.", above=0)
    read_timeout: float = option(60.0, help="Seconds to wait for the next bytes.", above=0)
    backoff: float = option(0.5, help="Seconds before the third try; doubles each time.", low=0)
    longest_wait: float = option(60.0, help="Most seconds to wait between tries.", low=0)
    slowest: float = option(1024.0, help="Bytes per second below which a try is given up.", low=0)
    window: float = option(30.0, help="Seconds over which the speed is measured.", above=0)
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        check(self)

    def start(self) -> Retry:
        """Return the state of a fresh series of tries."""
        return Retry(
            total=self.attempts - 1, backoff_factor=self.backoff, backoff_max=self.longest_wait
        )


class AddressError(Exception):
    """This address cannot give the file; another one may."""


class UnreachableError(AddressError):
    """No connection to this address was possible at all."""


class _AttemptError(Exception):
    """This try failed in a way that another try may not."""

    def __init__(self, reason: str, *, wait: float | None = None, connected: bool = True) -> None:
        super().__init__(reason)
        self.wait = wait
        self.connected = connected


@dataclass(frozen=True)
class _Transfer:
    """One address, the part file, and what the file's size must be (None: not known)."""

    url: str
    part: Path
    size: int | None
    retry: RetryPolicy
    progress: Progress

    @property
    def have(self) -> int:
        """Bytes of the part file; anything but a regular file is removed."""
        try:
            status = self.part.lstat()
        except OSError:
            return 0
        if not stat.S_ISREG(status.st_mode):
            self.part.unlink()
            return 0
        return status.st_size

    @property
    def note(self) -> Path:
        """Beside the part file: which address and which version (ETag) its bytes are from."""
        return self.part.with_name(self.part.name + ".json")

    def open(self, *, append: bool) -> BinaryIO:
        """Open the part file for writing; a link that somebody put there is not followed."""
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC)
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        return os.fdopen(os.open(self.part, flags, 0o666), "ab" if append else "wb")


def discard(part: Path) -> None:
    """Remove a part file and the note beside it."""
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".json").unlink(missing_ok=True)


def download(
    url: str,
    part: Path,
    size: int | None,
    *,
    retry: RetryPolicy,
    progress: Progress = no_progress,
) -> None:
    """Bring the file at `url` into `part`, continuing where it ends, and return once it is whole.

    `size` is what the file must measure, None if not known; the caller checks what the bytes are.
    Raises AddressError when the address does not have the file or all tries failed, DownloadError
    when the disk is full or cannot be written. A stop at any point leaves the part file for the
    next call.
    """
    transfer = _Transfer(url, part, size, retry, progress)
    tries = retry.start()
    with requests.Session() as session:
        while True:
            before = transfer.have
            try:
                _attempt(session, transfer)
                return
            except _AttemptError as error:
                if transfer.have - before >= _PROGRESS:
                    tries = retry.start()
                try:
                    tries = tries.increment(error=error)
                except MaxRetryError:
                    count = len(tries.history) + 1
                    kind = AddressError if error.connected else UnreachableError
                    raise kind(f"{error} ({count} tries)" if count > 1 else str(error)) from error
                wait = tries.get_backoff_time() if error.wait is None else error.wait
                retry.sleep(min(wait, retry.longest_wait))


def _attempt(session: requests.Session, transfer: _Transfer) -> None:
    have = transfer.have
    if transfer.size is not None and have > transfer.size:
        discard(transfer.part)
    elif transfer.size is not None and have == transfer.size:
        return
    try:
        response = _request(session, transfer)
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise AddressError(f"not an address: {error}") from error
    except requests.RequestException as error:
        connected = not isinstance(error, requests.ConnectionError)
        raise _AttemptError(_reason(error), connected=connected) from error
    except (ValueError, HTTPError) as error:  # a redirect to something that is no address
        raise AddressError(f"not an address: {error}") from error
    with response:
        start = _check_response(response, transfer)
        if start is not None:
            _receive(response, transfer, start)


def _request(session: requests.Session, transfer: _Transfer) -> requests.Response:
    # Without identity the bytes counted by Range would be those of a compressed stream.
    headers = {"Accept-Encoding": "identity", "User-Agent": "realesr-cli"}
    have = transfer.have
    if have:
        headers["Range"] = f"bytes={have}-"
        tag = _noted_tag(transfer)
        if tag:
            headers["If-Range"] = tag
    timeout = (transfer.retry.connect_timeout, transfer.retry.read_timeout)
    return session.get(transfer.url, headers=headers, stream=True, timeout=timeout)


def _check_response(response: requests.Response, transfer: _Transfer) -> int | None:
    """Return where the bytes of this answer belong; None when the part file is whole already."""
    status, have = response.status_code, transfer.have
    content_range = response.headers.get("Content-Range", "")
    if status == 416:
        total = re.fullmatch(r"bytes \*/(\d{1,18})", content_range)
        if transfer.size is None and total is not None and int(total[1]) == have > 0:
            return None
        discard(transfer.part)
        raise _AttemptError("HTTP 416: the server cannot continue the download", wait=0)
    if status in _RETRIED:
        raise _AttemptError(f"HTTP {status}", wait=_retry_after(response))
    if status not in (200, 206):
        raise AddressError(f"HTTP {status} {response.reason or ''}".strip())
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise AddressError("a web page instead of the file")
    start = 0
    if status == 206:
        start = have
        given = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", content_range)
        if (
            given is None
            or int(given[1]) != start
            or (transfer.size is not None and given[3] not in ("*", str(transfer.size)))
        ):
            discard(transfer.part)
            raise _AttemptError("the server sent another range than requested", wait=0)
    length = _content_length(response)
    if transfer.size is not None and length is not None and start + length != transfer.size:
        raise AddressError(f"expected {transfer.size} bytes, the server offers {start + length}")
    _require_space(transfer, start, length)
    return start


def _content_length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _retry_after(response: requests.Response) -> float | None:
    """Return the seconds that the server asks to wait, given as a number or as a date."""
    text = response.headers.get("Retry-After", "")
    try:
        return Retry().parse_retry_after(text[:64]) if text else None
    except (InvalidHeader, ValueError, OverflowError):
        return None


def _require_space(transfer: _Transfer, start: int, length: int | None) -> None:
    total = transfer.size if transfer.size is not None else start + (length or 0)
    if total > MAX_UNKNOWN and transfer.size is None:
        raise AddressError(f"{format_bytes(total)}, more than any model")
    needed = total - start
    folder = transfer.part.parent
    free = shutil.disk_usage(folder).free + (transfer.have - start)
    if needed > free:
        raise DownloadError(
            f"{folder}: too little space: {format_bytes(needed)} needed, {format_bytes(free)} free",
            advice="unusable-cache",
        )


def _receive(response: requests.Response, transfer: _Transfer, start: int) -> None:
    """Append the answer's bytes to the part file, or write it anew where `start` is 0."""
    length = _content_length(response)
    limit = transfer.size if transfer.size is not None else MAX_UNKNOWN
    total = transfer.size or (start + length if length is not None else 0)
    done = start
    speed = _SpeedCheck(transfer.retry)
    with _disk_errors(transfer.part), transfer.open(append=start > 0) as file:
        if not start:
            _write_note(transfer, response.headers.get("ETag", ""))
        for block in _blocks(response):
            if done + len(block) > limit:
                file.truncate(0)
                raise AddressError(f"more than {limit} bytes")
            file.write(block)
            done += len(block)
            transfer.progress(done, total)
            speed.check(done)
        file.flush()
        os.fsync(file.fileno())
    if (total and done < total) or (length is not None and done < start + length):
        raise _AttemptError(f"the connection ended after {done} of {total} bytes")


def _blocks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it arrives; `iter_content` waits for whole blocks however slow they are."""
    try:
        while block := response.raw.read1(_BLOCK, decode_content=True):
            yield block
    except ReadTimeoutError as error:
        raise _AttemptError("no answer in time") from error
    except HTTPError as error:
        raise _AttemptError("the connection was cut") from error


class _SpeedCheck:
    """Ends a try whose bytes trickle: a server can keep a connection alive for ever."""

    def __init__(self, retry: RetryPolicy) -> None:
        self._retry = retry
        self._since: tuple[float, int] | None = None

    def check(self, done: int) -> None:
        """Raise where too few bytes came since the last window began."""
        now = time.monotonic()
        if self._since is None:
            self._since = now, done
        began, before = self._since
        if now - began < self._retry.window:
            return
        if (done - before) < self._retry.slowest * (now - began):
            raise _AttemptError(f"less than {format_bytes(int(self._retry.slowest))} per second")
        self._since = now, done


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else error.strerror or str(error)
        raise DownloadError(
            f"{path}: cannot be written: {reason}; the part that arrived is kept",
            advice="unusable-cache",
        ) from error


def _write_note(transfer: _Transfer, tag: str) -> None:
    transfer.note.unlink(missing_ok=True)
    text = json.dumps({"url": transfer.url, "etag": tag[:1000]})
    with transfer.note.open("x", encoding="utf-8") as file:
        file.write(text)


def _noted_tag(transfer: _Transfer) -> str:
    """Return the strong ETag of the version that the part file was begun with, at this address."""
    try:
        note = read_json(transfer.note, max_bytes=_MAX_NOTE_BYTES)
        tag = str(note["etag"]) if note["url"] == transfer.url else ""
    except (ConfigError, KeyError, TypeError):
        return ""
    return tag if re.fullmatch(r'"[\x21\x23-\x7e]*"', tag) else ""


def _reason(error: requests.RequestException) -> str:
    """Return why a connection failed, without the chain of library objects."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy could not be reached"
    if isinstance(error, requests.exceptions.SSLError):
        return f"no secure connection: {error}"
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer in time"
    return "no connection" if isinstance(error, requests.ConnectionError) else str(error)
