"""ZIP and CBZ archives of images: each image enlarged, everything else copied, order kept."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO

from realesr_cli.batch.sources import InputSource, archive_errors
from realesr_cli.errors import ImageError, UnreadableImageError, UnsupportedImageError
from realesr_cli.image.formats import is_image

MAX_MEMBERS = 100_000
MAX_COPIED_BYTES = 2**30
"""Other files of an archive are copied up to this size together; more is a decompression bomb."""

_SPARE_BYTES = 2**26
_PIXEL_BYTES = 16
_ENCRYPTED = 1


def image_members(source: InputSource, max_pixels: int | None) -> list[InputSource]:
    """Return the images of an archive in its order, as sources.

    Images are recognized by their extension. Raises UnreadableImageError for a damaged archive and
    one without images, UnsupportedImageError for an encrypted one and one that is too large.
    """
    assert source.path is not None
    with open_archive(source.path) as archive:
        found = []
        copied = 0
        for info in archive.infolist():
            limit = None if max_pixels is None else max_pixels * _PIXEL_BYTES + _SPARE_BYTES
            if info.flag_bits & _ENCRYPTED:
                raise UnsupportedImageError(f"{source.name}: encrypted; extract it first")
            if is_image_member(info):
                if limit is not None and info.file_size > limit:
                    raise UnsupportedImageError(
                        f"{source.name}/{info.filename}: {info.file_size:,} bytes are too many "
                        "for an image within max_pixels",
                    )
                found.append(replace(source, member=info.filename))
            else:
                copied += info.file_size
        if len(archive.infolist()) > MAX_MEMBERS or copied > MAX_COPIED_BYTES:
            raise UnsupportedImageError(
                f"{source.name}: too many files, or {copied:,} bytes besides the images"
            )
    if not found:
        raise UnreadableImageError(f"{source.name}: contains no images")
    return found


def is_image_member(info: zipfile.ZipInfo) -> bool:
    """Return whether an entry of an archive is an image to enlarge."""
    return not info.is_dir() and is_image(PurePosixPath(info.filename))


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive for reading; what is wrong with it becomes an ImageError."""
    with archive_errors(str(path)), zipfile.ZipFile(path) as archive:
        yield archive


def archive_comment(path: Path) -> str | None:
    """Return the comment of an archive, where its record is stored; None where it has none."""
    try:
        with open_archive(path) as archive:
            return archive.comment.decode("utf-8") or None
    except (ImageError, UnicodeDecodeError):
        return None


class ArchiveWriter:
    """Writes an archive like another one, with other images in the places of its images."""

    def __init__(self, source: zipfile.ZipFile, file: BinaryIO, comment: bytes = b"") -> None:
        self._source = source
        self._entries = iter(source.infolist())
        self._target = zipfile.ZipFile(file, "w")
        self._target.comment = comment

    def add(self, name: str, data: bytes) -> None:
        """Write the next image, under this name, and before it what precedes it in the source."""
        info = self._copy_to_next_image()
        assert info is not None
        entry = zipfile.ZipInfo(name, info.date_time)
        entry.external_attr = info.external_attr
        entry.comment = info.comment
        self._target.writestr(entry, data)  # Stored: images are compressed already.

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Copy what follows the last image, unless there was an error, and close the archive."""
        if kind is None:
            self._copy_to_next_image()
            self._target.close()
        else:  # Or it would be closed, with an error of its own, when it is garbage.
            with suppress(OSError, ValueError):
                self._target.close()

    def _copy_to_next_image(self) -> zipfile.ZipInfo | None:
        for info in self._entries:
            if is_image_member(info):
                return info
            entry = zipfile.ZipInfo(info.filename, info.date_time)
            entry.external_attr, entry.comment = info.external_attr, info.comment
            entry.compress_type = info.compress_type
            with self._source.open(info) as old, self._target.open(entry, "w") as new:
                shutil.copyfileobj(old, new)
        return None
