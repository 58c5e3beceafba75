"""Where the bytes of an image come from: regular files, streams and memory."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from realesr_cli.errors import ImageError, ImageTooLargeError, UnreadableImageError

Source = Path | str | bytes | BinaryIO

_SPARE_BYTES = 2**26
"""Bytes beyond those of its pixels that a file may have."""

_MAX_PIXEL_BYTES = 16  # RGBA as float32
_BLOCK_BYTES = 2**20

_Error = TypeVar("_Error", bound=ImageError)


def read_bytes(source: Source, max_pixels: int | None = None) -> bytes:
    """Return all bytes of a source.

    Raises UnreadableImageError if there is nothing to read or reading fails, ImageTooLargeError if
    the file is larger than an image of `max_pixels` can be.
    """
    limit = None if max_pixels is None else max_pixels * _MAX_PIXEL_BYTES + _SPARE_BYTES
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, (str, Path)):
        with open_file(Path(source)) as file:
            _check_bytes(os.fstat(file.fileno()).st_size, limit)
            data = _read(file)
    else:
        data = _read_stream(source, limit)
    if not data:
        raise UnreadableImageError("the file is empty")
    _check_bytes(len(data), limit)
    return data


def _check_bytes(size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise ImageTooLargeError(
            f"the file has more than {limit:,} bytes, too many for an image within max_pixels",
            advice="max-pixels",
        )


def _read(file: BinaryIO, size: int = -1) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror or error}") from error


def _read_stream(file: BinaryIO, limit: int | None) -> bytes:
    """Read a stream that may never end, up to one block beyond the limit."""
    blocks, size = [], 0
    while block := _read(file, _BLOCK_BYTES):
        blocks.append(block)
        size += len(block)
        if limit is not None and size > limit:
            break
    return b"".join(blocks)


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises UnreadableImageError for anything else: a FIFO would block forever, and a device may
    never end.
    """
    try:
        if path.is_dir():  # Opening a folder fails on Windows too, but for another reason.
            raise UnreadableImageError("is a folder, not an image")
        # Without O_NONBLOCK, opening a FIFO would wait for a writer before its kind is known.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags), "rb")
    except FileNotFoundError:
        raise UnreadableImageError("no such file") from None
    except UnreadableImageError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadableImageError(f"cannot be read: {reason}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise UnreadableImageError(
            "is a pipe, device or socket, not a regular file", advice="pipe-to-stdin"
        )
    return file


@contextmanager
def map_file(file: BinaryIO) -> Iterator[Any]:
    """Map an open file into memory, for functions that take its bytes."""
    try:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise UnreadableImageError(f"cannot be mapped: {error}") from error
    with data:
        yield data


def name_error(error: _Error, source: Source) -> _Error:
    """Return the same error with the name of the source before its message."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        name = "image in memory"
    elif isinstance(source, (str, Path)):
        name = str(source)
    else:
        name = str(getattr(source, "name", "stream"))
    return error.prefixed(name)


def check_pixels(height: int, width: int, limit: int | None) -> None:
    """Raise ImageTooLargeError if an image has more pixels than the limit."""
    if limit is not None and height * width > limit:
        raise ImageTooLargeError(
            f"{width} x {height} = {height * width:,} pixels are more than max_pixels = {limit:,}",
            advice="max-pixels",
        )
