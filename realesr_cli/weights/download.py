"""One file over HTTP into a part file: resume, retries with back-off, no trust in the server."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from realesr_cli.errors import DownloadError
from realesr_cli.settings import check, option
from realesr_cli.weights.cache import Report

MAX_UNKNOWN = 2 << 30
"""Most bytes accepted for a file whose size is not known."""

_PROGRESS = 1 << 20
"""An attempt that brought this many bytes does not count as failed."""

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_BLOCK = 1 << 16


@dataclass(frozen=True)
class RetryPolicy:
    """How patient a download is; `sleep` is there for tests."""

    attempts: int = option(5, help="Tries per address without progress.", low=1)
    connect_timeout: float = option(15.0, help="Seconds to wait for a connection.", above=0)
    read_timeout: float = option(60.0, help="Seconds to wait for the next bytes.", above=0)
    backoff: float = option(1.0, help="Seconds before the second try; doubles each time.", low=0)
    longest_wait: float = option(60.0, help="Most seconds to wait between tries.", low=0)
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        check(self)


class AddressError(Exception):
    """This address cannot give the file; another one may."""


class _TryAgain(Exception):
    """This attempt failed in a way that another attempt may not."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class _Job:
    """One address, the part file, and what the file's size must be (None: not known)."""

    url: str
    part: Path
    size: int | None
    network: RetryPolicy
    report: Report | None

    @property
    def have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    @property
    def note(self) -> Path:
        """Beside the part file: which address and which version (ETag) its bytes are from."""
        return self.part.with_name(self.part.name + ".json")

    def restart(self) -> None:
        discard(self.part)


def discard(part: Path) -> None:
    """Remove a part file and the note beside it."""
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".json").unlink(missing_ok=True)


def transfer(
    url: str, part: Path, size: int | None, *, network: RetryPolicy, report: Report | None = None
) -> None:
    """Bring the file at `url` into `part`, going on where it ends; returns once it is whole.

    `size` is what the file must measure, None if not known. What the bytes are is for the caller
    to check. Raises AddressFailed when the address has nothing or all attempts failed,
    DownloadError when the disk is full or cannot be written. A stop at any point leaves the part
    file for the next call.
    """
    job = _Job(url, part, size, network, report)
    failed = 0
    with requests.Session() as session:
        while True:
            before = job.have
            try:
                _attempt(session, job)
                return
            except _TryAgain as error:
                failed = 1 if job.have - before >= _PROGRESS else failed + 1
                if failed >= network.attempts:
                    raise AddressError(f"{error} ({failed} tries)") from error
                wait = network.backoff * 2 ** (failed - 1) if error.wait is None else error.wait
                network.sleep(min(wait, network.longest_wait))


def _attempt(session: requests.Session, job: _Job) -> None:
    if job.size is not None and job.have > job.size:
        job.restart()
    if job.size is not None and job.have == job.size:
        return
    try:
        with _request(session, job) as response:
            start = _start_of(response, job)
            if start is None:
                return
            _receive(response, job, start)
    except requests.RequestException as error:
        if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
            raise AddressError(f"not an address ({error})") from error
        raise _TryAgain(_short(error)) from error


def _request(session: requests.Session, job: _Job) -> requests.Response:
    # Without identity the bytes counted by Range would be those of a compressed stream.
    headers = {"Accept-Encoding": "identity", "User-Agent": "realesr-cli"}
    if job.have:
        headers["Range"] = f"bytes={job.have}-"
        tag = _noted_tag(job)
        if tag:
            headers["If-Range"] = tag
    timeout = (job.network.connect_timeout, job.network.read_timeout)
    return session.get(job.url, headers=headers, stream=True, timeout=timeout)


def _start_of(response: requests.Response, job: _Job) -> int | None:
    """Where the bytes of this answer belong; None when the part file is whole already."""
    status = response.status_code
    if status == 416:
        total = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
        if job.size is None and total is not None and int(total[1]) == job.have > 0:
            return None
        job.restart()
        raise _TryAgain("the server refused to go on where the part file ends (HTTP 416)", 0)
    if status in _RETRIED:
        raise _TryAgain(f"HTTP {status}", _retry_after(response))
    if status not in (200, 206):
        raise AddressError(f"HTTP {status} {response.reason or ''}".strip())
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise AddressError("a web page instead of the file")
    length = _content_length(response)
    start = 0
    if status == 206:
        start = job.have
        given = re.fullmatch(
            r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "")
        )
        if given is None or int(given[1]) != start or _other_size(given[3], job.size):
            job.restart()
            raise _TryAgain("the server sent another range than asked for", 0)
    if job.size is not None and length is not None and start + length != job.size:
        raise AddressError(f"a file of {start + length} bytes where {job.size} belong")
    _require_space(job, start, length)
    return start


def _other_size(total: str, size: int | None) -> bool:
    return size is not None and total != "*" and int(total) != size


def _content_length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _retry_after(response: requests.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if re.fullmatch(r"[0-9]{1,6}", text) else None


def _require_space(job: _Job, start: int, length: int | None) -> None:
    total = job.size if job.size is not None else start + (length or 0)
    if total > MAX_UNKNOWN and job.size is None:
        raise AddressError(f"a file of {total} bytes, more than any model")
    needed = total - start
    free = shutil.disk_usage(job.part.parent).free + (job.have - start)
    if needed > free:
        raise DownloadError(
            f"{job.part.parent}: {needed} bytes are needed and {free} free; make room, or set "
            "REALESR_HOME to another disk"
        )


def _receive(response: requests.Response, job: _Job, start: int) -> None:
    """Append the answer's bytes to the part file, or write it anew where `start` is 0."""
    length = _content_length(response)
    limit = job.size if job.size is not None else MAX_UNKNOWN
    total = job.size or (start + length if length is not None else 0)
    done = start
    with _disk_errors(job.part):
        with job.part.open("ab" if start else "wb") as file:
            if not start:
                _note(job, response.headers.get("ETag", ""))
            for block in response.iter_content(_BLOCK):
                if done + len(block) > limit:
                    file.truncate(0)
                    raise AddressError(f"more than {limit} bytes")
                file.write(block)
                done += len(block)
                if job.report is not None:
                    job.report(done, total)
        with job.part.open("rb+") as file:
            os.fsync(file.fileno())
    if (total and done < total) or (length is not None and done < start + length):
        raise _TryAgain(f"the connection ended after {done} of {total} bytes")


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except requests.RequestException:  # an OSError too, but of the network
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else str(error)
        raise DownloadError(
            f"{path}: {what}; make room and run it again (it goes on from here), or set "
            "REALESR_HOME to another folder"
        ) from error


def _note(job: _Job, tag: str) -> None:
    job.note.write_text(json.dumps({"url": job.url, "etag": tag}), encoding="utf-8")


def _noted_tag(job: _Job) -> str:
    """The strong ETag of the version that the part file was begun with, at this address."""
    try:
        note = json.loads(job.note.read_text(encoding="utf-8"))
        tag = str(note["etag"]) if note["url"] == job.url else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return tag if re.fullmatch(r'"[\x21\x23-\x7e]*"', tag) else ""


def _short(error: requests.RequestException) -> str:
    """The reason of a failed connection without the chain of library objects."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy could not be reached"
    if isinstance(error, requests.exceptions.SSLError):
        return f"no secure connection ({error})"
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was cut"
    return "no connection" if isinstance(error, requests.ConnectionError) else str(error)
