"""Image file directories: the tagged structure that TIFF files and EXIF blocks share.

Source: TIFF 6.0 section 2, and the BigTIFF extension. Values stay the bytes of the file, in its
byte order, so that what is copied is copied exactly.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Order = Literal["<", ">"]
"""Byte order, as in `struct`."""

TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
TYPE_SIZES |= {13: 4, 16: 8, 17: 8, 18: 8}

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 1, 2, 3, 4, 5, 7, 16

_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_RATIONALS = {5: "I", 10: "i"}
_MAX_ENTRIES = 4096
_MAX_NUMBERS = 2**20
"""Integers of one tag: the strips of the largest images are far fewer."""


class MalformedDirectoryError(ValueError):
    """A directory is damaged. Internal: callers turn it into an `ImageError` or a note."""


@dataclass(frozen=True)
class IfdEntry:
    """One tag: its type, its number of values, and their bytes or where they lie in the block.

    A value that was read is sliced only when asked for: entries of a hostile file may all span the
    whole file.
    """

    tag: int
    kind: int
    count: int
    content: bytes | None = None
    """Bytes of the values of an entry that was made here."""
    block: bytes = b""
    position: int = 0
    """Offset of the entry itself."""
    data_position: int = 0
    """Offset of the values, which lie inside the entry if they are small."""

    @property
    def size(self) -> int:
        """Number of bytes of the values."""
        return TYPE_SIZES[self.kind] * self.count

    @property
    def data(self) -> bytes:
        """The bytes of the values."""
        if self.content is not None:
            return self.content
        return self.block[self.data_position : self.data_position + self.size]


@dataclass(frozen=True)
class Directory:
    """The tags of one directory and the offset of the next one (0 if there is none)."""

    entries: dict[int, IfdEntry]
    next: int
    position: int
    size: int

    def __contains__(self, tag: int) -> bool:
        return tag in self.entries


@dataclass(frozen=True)
class IfdBlock:
    """The bytes that contain directories, and what their header says."""

    data: bytes
    order: Order
    big: bool
    first: int

    def directory(self, position: int) -> Directory:
        """Read the directory at an offset. Raises MalformedDirectoryError if it is damaged."""
        head, entry_size, count = self._layout(position)
        entries: dict[int, IfdEntry] = {}
        for index in range(count):
            entry = self._entry(position + head + index * entry_size)
            if entry is not None:
                entries.setdefault(entry.tag, entry)
        size = head + count * entry_size + (8 if self.big else 4)
        return Directory(entries, self.next_directory(position), position, size)

    def next_directory(self, position: int) -> int:
        """Read the offset that follows the directory at an offset, without its entries."""
        head, entry_size, count = self._layout(position)
        try:
            return self._unpack("Q" if self.big else "I", position + head + count * entry_size)[0]
        except MalformedDirectoryError:
            return 0  # Some writers end the block here, where a zero belongs.

    def count_directories(self, position: int, most: int) -> int:
        """Count the directories from an offset on, up to `most`, without their entries."""
        seen: set[int] = set()
        with contextlib.suppress(MalformedDirectoryError):
            while position and position not in seen and len(seen) < most:
                following = self.next_directory(position)
                seen.add(position)
                position = following
        return len(seen)

    def _layout(self, position: int) -> tuple[int, int, int]:
        """Return the bytes before the entries, the bytes of an entry, and their number."""
        (count,) = self._unpack("Q" if self.big else "H", position)
        if count > _MAX_ENTRIES:
            raise MalformedDirectoryError(f"a directory has {count} entries")
        return (8, 20, count) if self.big else (2, 12, count)

    def numbers(self, directory: Directory, tag: int) -> tuple[int, ...]:
        """Return the integers of a tag; empty if it is absent, of another type or oversized."""
        entry = directory.entries.get(tag)
        if entry is None or entry.kind not in _INTEGERS or entry.count > _MAX_NUMBERS:
            return ()
        return struct.unpack(f"{self.order}{entry.count}{_INTEGERS[entry.kind]}", entry.data)

    def number(self, directory: Directory, tag: int, default: int) -> int:
        """Return the first integer of a tag, or the default if there is none."""
        entry = directory.entries.get(tag)
        if entry is None or entry.kind not in _INTEGERS or entry.count < 1:
            return default
        form = self.order + _INTEGERS[entry.kind]
        return int(struct.unpack_from(form, self.data, entry.data_position)[0])

    def ratio(self, directory: Directory, tag: int) -> float | None:
        """Return the first rational of a tag, or None if it is absent or divides by zero."""
        entry = directory.entries.get(tag)
        if entry is None or entry.kind not in _RATIONALS or entry.count < 1:
            return None
        form = f"{self.order}2{_RATIONALS[entry.kind]}"
        top, bottom = struct.unpack_from(form, self.data, entry.data_position)
        return float(top / bottom) if bottom else None

    def _entry(self, position: int) -> IfdEntry | None:
        tag, kind = self._unpack("HH", position)
        inline = 8 if self.big else 4
        (count,) = self._unpack("Q" if self.big else "I", position + 4)
        if kind not in TYPE_SIZES:
            return None  # Readers skip types they do not know (TIFF 6.0, section 2).
        size = TYPE_SIZES[kind] * count
        data_position = position + 4 + inline
        if size > inline:
            (data_position,) = self._unpack("Q" if self.big else "I", data_position)
        if data_position + size > len(self.data):
            return None
        return IfdEntry(tag, kind, count, None, self.data, position, data_position)

    def _unpack(self, form: str, position: int) -> tuple[int, ...]:
        # An offset beyond the file may be too large for unpack_from to take.
        if not 0 <= position <= len(self.data) - struct.calcsize(self.order + form):
            raise MalformedDirectoryError(f"the file ends before byte {position} of a directory")
        return struct.unpack_from(self.order + form, self.data, position)


def parse(data: bytes) -> IfdBlock:
    """Read the eight or sixteen bytes of the header.

    Raises MalformedDirectoryError if there is none.
    """
    orders: dict[bytes, Order] = {b"II": "<", b"MM": ">"}
    order = orders.get(data[:2])
    if order is None or len(data) < 8:
        raise MalformedDirectoryError("the TIFF byte order mark is missing")
    (version,) = struct.unpack_from(order + "H", data, 2)
    if version == 42:
        return IfdBlock(data, order, False, struct.unpack_from(order + "I", data, 4)[0])
    if version == 43 and len(data) >= 16:
        return IfdBlock(data, order, True, struct.unpack_from(order + "Q", data, 8)[0])
    raise MalformedDirectoryError(f"expected TIFF version 42 or 43, got {version}")


def make_entry(tag: int, kind: int, content: bytes) -> IfdEntry:
    """Return an entry with these bytes as its values."""
    return IfdEntry(tag, kind, len(content) // TYPE_SIZES[kind], content)


def integers(order: Order, tag: int, kind: int, *values: int) -> IfdEntry:
    """Return an entry of integers (BYTE, SHORT or LONG) in a byte order."""
    return make_entry(tag, kind, struct.pack(f"{order}{len(values)}{_INTEGERS[kind]}", *values))


def rational(order: Order, tag: int, value: float) -> IfdEntry:
    """Return an entry of one unsigned rational, exact to 1/10,000."""
    whole = float(value).is_integer()
    bottom = 1 if whole or value >= 400_000 else 10_000
    return make_entry(tag, RATIONAL, struct.pack(order + "II", round(value * bottom), bottom))


def build(entries: Iterable[IfdEntry], order: Order, position: int, *, big: bool = False) -> bytes:
    """Return a directory without a successor, and its values, for an offset; `big`: of BigTIFF."""
    ordered = sorted(entries, key=lambda entry: entry.tag)
    count, offset, inline = ("Q", "Q", 8) if big else ("H", "I", 4)
    head = [struct.pack(order + count, len(ordered))]
    values: list[bytes] = []
    values_at = position + len(head[0]) + (8 + 2 * inline - 4) * len(ordered) + inline
    for entry in ordered:
        data = entry.data
        if len(data) <= inline:
            field = data.ljust(inline, b"\0")
        else:
            field = struct.pack(order + offset, values_at)
            values.append(data + b"\0" * (len(data) % 2))
            values_at += len(values[-1])
        head.append(struct.pack(order + "HH" + offset, entry.tag, entry.kind, entry.count) + field)
    return b"".join([*head, struct.pack(order + offset, 0), *values])
