"""Objects in buckets and on web servers through fsspec: listed as a stream, fetched, put whole.

Nothing of a URL that may be a secret (user, password, query) gets into messages.
"""

from __future__ import annotations

import datetime
import errno
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from realesr_cli.errors import ConfigError, MissingDependencyError, RealesrError

T = TypeVar("T")

LIBRARIES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
    "http": "aiohttp",
    "https": "aiohttp",
    "memory": "fsspec",
}
"""Package that each scheme needs."""

SIDECAR = ".realesr.json"
"""Added to an object's name where the store keeps no metadata, for the mark beside it."""

_MARK = "realesr"
_PAGE = 1000
"""Keys that a page of an S3 listing has at most."""

_MAX_METADATA = 1800  # S3 keeps 2 KB.
_ATTEMPTS, _WAIT = 5, 0.5
_RETRIED_STATUS = {408, 425, 429}
_PERMANENT = (
    FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError,
    ValueError, TypeError, NotImplementedError,
)  # fmt: skip
_PERMANENT_NUMBERS = {
    errno.EINVAL, errno.ENAMETOOLONG, errno.ENOSYS, errno.EPERM, errno.EMSGSIZE, errno.ENOSPC,
    errno.EROFS, errno.EDQUOT,
}  # fmt: skip


@dataclass(frozen=True)
class StoredObject:
    """An object that was found: its URL, its path below what was searched, and which version."""

    url: str
    relative: str
    version: str
    """Size, and entity tag or date."""


def is_url(text: str) -> bool:
    """Return whether this is a URL rather than a path; `C://` is a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def redact(text: str) -> str:
    """Return a text without the users, passwords and queries of the URLs in it."""
    text = re.sub(r"(?<=://)[^/\s@'\"]+@", "", text)
    return re.sub(r"(://[^\s?'\"]+)\?[^\s'\"]*", r"\1", text)


def list_objects(url: str, *, recursive: bool) -> Iterator[StoredObject]:
    """Yield the object of this URL, or those below it, while the store still lists them.

    Hidden names, with a leading dot in any part, are skipped. Raises ConfigError where there is
    nothing of this name, or it may not be listed.
    """
    fs, path = _open(url)
    if _scheme(url) in ("http", "https"):
        name = PurePosixPath(re.sub(r"[?#].*", "", url)).name
        yield StoredObject(url, name, "")
        return
    info = _retry(lambda: fs.info(path), url, ConfigError)
    if info["type"] != "directory":
        yield StoredObject(url, PurePosixPath(path).name, _version(info))
        return
    root = path.rstrip("/")
    list_below = _list_s3 if _scheme(url) == "s3" else _list_folders
    for item in list_below(fs, root, recursive, url):
        relative = item["name"][len(root) :].lstrip("/")
        if not any(part.startswith(".") for part in relative.split("/")):
            found = f"{_scheme(url)}://{item['name'].lstrip('/')}"
            yield StoredObject(found, relative, _version(item))


def _list_s3(fs: Any, root: str, recursive: bool, url: str) -> Iterator[Mapping[str, Any]]:
    """List by pages: s3fs itself returns a folder only when it has all of its pages."""
    bucket, _, prefix = root.partition("/")
    call = {"Bucket": bucket, "Prefix": prefix and prefix + "/", "MaxKeys": _PAGE}
    if not recursive:
        call["Delimiter"] = "/"
    while True:
        page = _retry(lambda: fs.call_s3("list_objects_v2", **call), url, ConfigError)
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):
                yield {**item, "name": f"{bucket}/{item['Key']}", "size": item["Size"]}
        if not page.get("IsTruncated"):
            return
        call["ContinuationToken"] = page["NextContinuationToken"]


def _list_folders(fs: Any, root: str, recursive: bool, url: str) -> Iterator[Mapping[str, Any]]:
    folders = [root]
    while folders:
        folder = folders.pop()
        items = _retry(lambda: fs.ls(folder, detail=True), url, ConfigError)  # noqa: B023
        below = []
        for item in sorted(items, key=lambda item: item["name"]):
            if item["type"] != "directory":
                yield item
            elif recursive:
                below.append(item["name"])
        folders += reversed(below)


def require_store(url: str) -> None:
    """Raise ConfigError for a scheme whose library is missing, and a bucket that does not exist."""
    fs, path = _open(url)
    bucket = path.partition("/")[0]
    if bucket and _scheme(url) not in ("memory", "hf"):
        try:  # Who may only write may perhaps not ask, which is no error.
            _retry(lambda: fs.info(bucket), f"{_scheme(url)}://{bucket}", ConfigError)
        except ConfigError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise


def fetch(url: str, target: Path, error_class: type[RealesrError]) -> None:
    """Copy an object into a local file. Raises `error_class`."""
    fs, path = _open(url)
    _retry(lambda: fs.get_file(path, str(target)), url, error_class)


def put(source: Path, url: str, mark: Mapping[str, Any], error_class: type[RealesrError]) -> None:
    """Put a local file as an object, whole or not at all, with its mark. Raises `error_class`.

    The mark is metadata of the object where the store has such, else a sidecar that is put first:
    a mark without its object is not a result, an object without its mark would be somebody else's.
    """
    fs, path = _open(url)
    text = json.dumps({**mark, "bytes": source.stat().st_size}, sort_keys=True)
    keyword = {"s3": "Metadata", "gs": "metadata", "gcs": "metadata"}.get(_scheme(url))
    extra = {}
    if keyword is not None and len(text) <= _MAX_METADATA:
        extra[keyword] = {_MARK: text}
    else:
        _retry(lambda: fs.pipe_file(path + SIDECAR, text.encode()), url, error_class)
    if fs.async_impl:
        _retry(lambda: fs.put_file(str(source), path, **extra), url, error_class)
    else:  # What fsspec does in the other case publishes what it has when it fails.
        _retry(lambda: fs.pipe_file(path, source.read_bytes()), url, error_class)


def read_mark(url: str, error_class: type[RealesrError]) -> dict[str, Any] | None:
    """Return the mark of an object, empty where it has none; None where there is no such object.

    An object of another size than its mark says counts as absent: putting it was interrupted.
    Raises `error_class`.
    """
    fs, path = _open(url)

    def read() -> dict[str, Any] | None:
        try:
            info = fs.info(path)
        except FileNotFoundError:
            return None
        text = _read_metadata(fs, path, info)
        try:
            text = text or fs.cat_file(path + SIDECAR)
        except FileNotFoundError:
            return {}
        mark = json.loads(text)
        if not isinstance(mark, dict):
            return {}
        return mark if mark.get("bytes") == info["size"] else None

    try:
        return _retry(read, url, error_class)
    except json.JSONDecodeError:
        return {}


def _read_metadata(fs: Any, path: str, info: Mapping[str, Any]) -> str | None:
    if "s3" in fs.protocol:
        return dict(fs.metadata(path)).get(_MARK)
    return (info.get("metadata") or {}).get(_MARK)


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def _open(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it. Raises ConfigError."""
    scheme = _scheme(url)
    if scheme not in LIBRARIES:
        known = ", ".join(f"{name}://" for name in LIBRARIES)
        raise ConfigError(f"{redact(url)}: unknown scheme; known are {known}")
    try:
        import fsspec

        fs = fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        package = LIBRARIES[scheme]
        install = "'realesr-cli[cloud]'" + (f" {package}" if package != "fsspec" else "")
        raise MissingDependencyError(
            f"{scheme}:// needs the package {package}, which cannot be loaded: "
            f"pip install {install}"
        ) from error
    return fs, fs._strip_protocol(url)


def _version(info: Mapping[str, Any]) -> str:
    date = next((info[k] for k in ("LastModified", "mtime", "created") if info.get(k)), "")
    if isinstance(date, float):
        date = datetime.datetime.fromtimestamp(date, datetime.UTC)
    tag = next((info[k] for k in ("ETag", "etag", "md5Hash") if info.get(k)), date)
    return f"{info.get('size')} {str(tag).strip(chr(34))}"


def _retry(work: Callable[[], T], url: str, error_class: type[RealesrError]) -> T:
    """Call until it succeeds, the failure is permanent or the attempts are used up."""
    for attempt in range(_ATTEMPTS):
        try:
            return work()
        except json.JSONDecodeError:
            raise
        except Exception as error:
            if attempt + 1 == _ATTEMPTS or _is_permanent(error):
                raise error_class(f"{redact(url)}: {_reason(error, url)}") from error
        time.sleep(_WAIT * 2**attempt)
    raise AssertionError


def _status(error: Exception) -> int | None:
    """Return the HTTP status of an error, wherever its library keeps it."""
    response = getattr(error, "response", None)
    for place in (error, response):
        for name in ("status", "status_code", "code"):
            if isinstance(value := getattr(place, name, None), int):
                return value
    return None


def _is_permanent(error: Exception) -> bool:
    if isinstance(error, _PERMANENT) or "Credential" in type(error).__name__:
        return True
    status = _status(error)
    if status is not None:
        return 400 <= status < 500 and status not in _RETRIED_STATUS
    return isinstance(error, OSError) and error.errno in _PERMANENT_NUMBERS


def _reason(error: Exception, url: str) -> str:
    if isinstance(error, FileNotFoundError):
        whole = "/" not in url.partition("://")[2].rstrip("/")
        return "no such bucket" if whole or "bucket" in str(error).lower() else "no such object"
    if isinstance(error, PermissionError) or _status(error) in (401, 403):
        return "access denied: check the credentials and what they permit"
    if "Credential" in type(error).__name__:
        return "no credentials found: set them as the store's own tools expect them"
    if (status := _status(error)) is not None:
        return f"the server answered with status {status}"
    return (redact(str(error)).splitlines() or [""])[0] or type(error).__name__
