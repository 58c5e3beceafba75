"""Where an image's bytes come from, and the messages that reading and probing share."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, TypeVar

from realesr_cli.errors import ImageError, ImageTooLargeError, UnreadableImageError
from realesr_cli.image import sniff

Source = Path | str | bytes | BinaryIO

_Error = TypeVar("_Error", bound=ImageError)


def name_of(source: Source) -> str:
    """The source as messages name it."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "image in memory"
    if isinstance(source, (str, Path)):
        return str(source)
    return str(getattr(source, "name", "stream"))


def bytes_of(source: Source, limit: int = -1) -> bytes:
    """All bytes of a source, or its first `limit`.

    Raises UnreadableImage where there is nothing to read or it cannot be.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source[:limit] if limit >= 0 else source)
    elif isinstance(source, (str, Path)):
        data = _file_bytes(Path(source), limit)
    else:
        data = source.read(limit)
    if not data:
        raise UnreadableImageError("empty, there is nothing in it")
    return data


def _file_bytes(path: Path, limit: int) -> bytes:
    try:
        if path.is_dir():  # Opening a folder fails on Windows too, but with another reason.
            raise UnreadableImageError("a folder, not an image")
        with path.open("rb") as file:
            return file.read(limit)
    except FileNotFoundError:
        raise UnreadableImageError("no such file") from None
    except UnreadableImageError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadableImageError(f"cannot be read: {reason}") from error


def named(error: _Error, source: Source) -> _Error:
    """Return the same error with the source in front of its message."""
    return error.prefixed(name_of(source))


def check_pixels(height: int, width: int, limit: int | None) -> None:
    """Raise ImageTooLarge where an image has more pixels than the limit."""
    if limit is not None and height * width > limit:
        raise ImageTooLargeError(
            f"{width} x {height} = {height * width:,} pixels are more than the limit of {limit:,}; "
            "if the file can be trusted, raise it with --max-pixels (max_pixels in Python)"
        )


def not_recognized(data: bytes) -> str:
    """Why nothing could be made of these bytes."""
    if sniff.looks_like_text(data):
        return "no image: it holds text, whatever its name says"
    return "no image of a known kind, or damaged at its very beginning"
