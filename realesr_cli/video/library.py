"""PyAV: whether it is there, how it converts exactly, and its errors as ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from realesr_cli.errors import MissingDependencyError, RealesrError, VideoError, WriteError

OLDEST = (18, 0)
"""Before 17.0 PyAV decodes BT.709 as BT.601, before 18.0 it converts BT.2020 wrongly."""

INSTALL = "pip install 'realesr-cli[video]'"


def require_av() -> None:
    """Raise MissingDependencyError where PyAV cannot be imported or is too old."""
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 prints its settings otherwise.
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(f"video needs PyAV ({error}): {INSTALL}") from None
    found = tuple(int(part) for part in av.__version__.split(".")[:2] if part.isdecimal())
    if found < OLDEST:
        raise MissingDependencyError(
            f"video needs PyAV 18.0 or newer, got {av.__version__}: {INSTALL}"
        )


def scaling_flags() -> int:
    """Return the flags of conversions between RGB and YUV: bicubic, accurate, full chroma.

    The default of FFmpeg's scaler darkens luma by 1.1 levels on average in a round trip; with
    these a round trip of 8 bits is exact to the level. As numbers, since older PyAV names fewer.
    """
    bicubic, full_chroma_out, full_chroma_in, accurate = 0x4, 0x2000, 0x4000, 0x40000
    return bicubic | full_chroma_out | full_chroma_in | accurate


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn FFmpeg's errors on opening or reading a file into VideoError."""
    import av

    try:
        yield
    except RealesrError:
        raise
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        raise VideoError(f"{path}: cannot be read as a video: {_reason(error)}") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn FFmpeg's errors on writing a file into WriteError, which a resumed run repairs."""
    import av

    try:
        yield
    except RealesrError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        raise WriteError(f"{path}: cannot be written: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")
