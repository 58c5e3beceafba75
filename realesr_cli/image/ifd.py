"""Image file directories: the tagged structure that TIFF files and EXIF blocks share.

Source: TIFF 6.0 section 2, and the BigTIFF extension. Values stay the bytes they are in the file,
in the byte order of the file, so that what is copied is copied exactly.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Order = Literal["<", ">"]
"""Byte order, as in `struct`."""

TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
TYPE_SIZES |= {13: 4, 16: 8, 17: 8, 18: 8}

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7

_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_RATIONALS = {5: "I", 10: "i"}
_MAX_ENTRIES = 4096


class MalformedDirectoryError(ValueError):
    """The directory is damaged; callers turn this into an error of theirs or a note."""


@dataclass(frozen=True)
class IfdEntry:
    """One tag: its type, how many values, their bytes, and where in the block they lie."""

    tag: int
    kind: int
    count: int
    data: bytes
    position: int = 0
    """Offset of the entry itself."""
    data_position: int = 0
    """Offset of the values, which is inside the entry where they are small."""


@dataclass(frozen=True)
class Directory:
    """The tags of one directory and the offset of the next (0: none)."""

    entries: dict[int, IfdEntry]
    next: int
    position: int
    size: int

    def __contains__(self, tag: int) -> bool:
        return tag in self.entries


@dataclass(frozen=True)
class IfdBlock:
    """The bytes that hold directories, with what their header says."""

    data: bytes
    order: Order
    big: bool
    first: int

    def directory(self, position: int) -> Directory:
        """Read the directory at an offset. Raises Malformed where it is damaged."""
        count_format, entry_size, pointer = ("Q", 20, "Q") if self.big else ("H", 12, "I")
        head = struct.calcsize(self.order + count_format)
        (count,) = self._unpack(count_format, position)
        if count > _MAX_ENTRIES:
            raise MalformedDirectoryError(f"a directory of {count} entries")
        entries: dict[int, IfdEntry] = {}
        for index in range(count):
            entry = self._entry(position + head + index * entry_size)
            if entry is not None:
                entries.setdefault(entry.tag, entry)
        end = position + head + count * entry_size
        size = head + count * entry_size + struct.calcsize(self.order + pointer)
        try:
            (next_position,) = self._unpack(pointer, end)
        except MalformedDirectoryError:
            next_position = 0  # Some writers end the block here, where a zero belongs.
        return Directory(entries, next_position, position, size)

    def numbers(self, directory: Directory, tag: int) -> tuple[int, ...]:
        """The integers of a tag, or an empty tuple where it is absent or of another type."""
        entry = directory.entries.get(tag)
        if entry is None or entry.kind not in _INTEGERS:
            return ()
        return struct.unpack(f"{self.order}{entry.count}{_INTEGERS[entry.kind]}", entry.data)

    def number(self, directory: Directory, tag: int, default: int) -> int:
        """The first integer of a tag, or the default."""
        found = self.numbers(directory, tag)
        return found[0] if found else default

    def ratio(self, directory: Directory, tag: int) -> float | None:
        """The first rational of a tag, or None where it is absent or has no value."""
        entry = directory.entries.get(tag)
        if entry is None or entry.kind not in _RATIONALS or entry.count < 1:
            return None
        top, bottom = struct.unpack(f"{self.order}2{_RATIONALS[entry.kind]}", entry.data[:8])
        return float(top / bottom) if bottom else None

    def _entry(self, position: int) -> IfdEntry | None:
        tag, kind = self._unpack("HH", position)
        inline = 8 if self.big else 4
        (count,) = self._unpack("Q" if self.big else "I", position + 4)
        if kind not in TYPE_SIZES:
            return None  # Readers shall skip types they do not know (TIFF 6.0, section 2).
        size = TYPE_SIZES[kind] * count
        data_position = position + 4 + inline
        if size > inline:
            (data_position,) = self._unpack("Q" if self.big else "I", data_position)
        if data_position + size > len(self.data):
            return None
        data = self.data[data_position : data_position + size]
        return IfdEntry(tag, kind, count, data, position, data_position)

    def _unpack(self, form: str, position: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(self.order + form, self.data, position)
        except struct.error:
            raise MalformedDirectoryError(f"it ends before byte {position}") from None


def parse(data: bytes) -> IfdBlock:
    """Read the eight or sixteen bytes of the header. Raises Malformed where there is none."""
    orders: dict[bytes, Order] = {b"II": "<", b"MM": ">"}
    order = orders.get(data[:2])
    if order is None or len(data) < 8:
        raise MalformedDirectoryError("no TIFF byte order mark")
    (version,) = struct.unpack_from(order + "H", data, 2)
    if version == 42:
        return IfdBlock(data, order, False, struct.unpack_from(order + "I", data, 4)[0])
    if version == 43 and len(data) >= 16:
        return IfdBlock(data, order, True, struct.unpack_from(order + "Q", data, 8)[0])
    raise MalformedDirectoryError(f"TIFF version {version}")


def integers(order: Order, tag: int, kind: int, *values: int) -> IfdEntry:
    """An entry of integers (BYTE, SHORT or LONG) in a byte order."""
    data = struct.pack(f"{order}{len(values)}{_INTEGERS[kind]}", *values)
    return IfdEntry(tag, kind, len(values), data)


def rational(order: Order, tag: int, value: float) -> IfdEntry:
    """An entry of one unsigned rational, exact to a ten-thousandth."""
    whole = float(value).is_integer()
    bottom = 1 if whole or value >= 400_000 else 10_000
    return IfdEntry(tag, RATIONAL, 1, struct.pack(order + "II", round(value * bottom), bottom))


def build(entries: Iterable[IfdEntry], order: Order, position: int) -> bytes:
    """A directory (classic, with no next one) and its values as they stand at an offset."""
    ordered = sorted(entries, key=lambda entry: entry.tag)
    head = struct.pack(order + "H", len(ordered))
    values_at = position + 2 + 12 * len(ordered) + 4
    values = b""
    for entry in ordered:
        if len(entry.data) <= 4:
            field = entry.data.ljust(4, b"\0")
        else:
            field = struct.pack(order + "I", values_at + len(values))
            values += entry.data + b"\0" * (len(entry.data) % 2)
        head += struct.pack(order + "HHI", entry.tag, entry.kind, entry.count) + field
    return head + struct.pack(order + "I", 0) + values
