"""Directories of tags, as TIFF files and EXIF blocks have them. What is damaged is left out, and nothing warns."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SLONG, SRATIONAL, FLOAT, DOUBLE = 1, 2, 3, 4, 5, 7, 9, 10, 11, 12
# Bytes of a value, and how struct reads it, by the type of the field.
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_PAIRS = {RATIONAL: "II", SRATIONAL: "ii"}


class Layout(NamedTuple):
    """How a file stores its directories, and where the first one begins."""

    order: str  # of bytes: < or >
    big: bool  # BigTIFF
    first: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag's values: type of the field, how many, and their bytes in the order of the file."""

    kind: int
    count: int
    data: bytes

    def numbers(self, order: str) -> tuple[float, ...]:
        """Return the values as numbers; fractions over zero are 0, and text has none."""
        if self.kind in _PAIRS:
            parts = struct.unpack(order + _PAIRS[self.kind] * self.count, self.data)
            return tuple(above / below if below else 0.0 for above, below in zip(parts[::2], parts[1::2], strict=True))
        if self.kind not in _CODES:
            return ()
        return struct.unpack(order + _CODES[self.kind] * self.count, self.data)

    @property
    def text(self) -> str:
        """The value as text, up to its end mark."""
        return self.data.split(b"\x00", 1)[0].decode("utf-8", "replace")


Directory = dict[int, Entry]


def layout_of(data: bytes) -> Layout | None:
    """Read the header of a TIFF file or an EXIF block; None where there is none."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    big = data[2:4] in {b"\x2b\x00", b"\x00\x2b"}
    if order is None or len(data) < (16 if big else 8):
        return None
    (first,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    return Layout(order, big, first)


def read_directory(
    data: bytes, layout: Layout, offset: int, only: Collection[int] | None = None
) -> tuple[Directory, int]:
    """Read one directory.

    Args:
        data: The file or block.
        layout: Its own.
        offset: Where the directory begins.
        only: Tags to read; None for all.

    Returns:
        The entries whose values lie in the data, the first of each tag; and where the next directory begins, 0 for
        nowhere.

    Raises:
        struct.error: The directory itself is not in the data.
    """
    order, (number, count, pointer) = layout.order, ("Q", "Q", "Q") if layout.big else ("H", "I", "I")
    room, step = struct.calcsize("=" + pointer), 20 if layout.big else 12
    (entries,) = struct.unpack_from(order + number, data, offset)
    place, found = offset + struct.calcsize("=" + number), {}
    end = place + entries * step
    (following,) = struct.unpack_from(order + pointer, data, end) if end + room <= len(data) else (0,)
    for at in range(place, min(end, len(data) - step + 1), step):
        tag, kind, values = struct.unpack_from(order + "HH" + count, data, at)
        if tag in found or kind not in _BYTES or (only is not None and tag not in only):
            continue
        size, start = values * _BYTES[kind], at + step - room
        if size > room:
            (start,) = struct.unpack_from(order + pointer, data, start)
        if start + size <= len(data):
            found[tag] = Entry(kind, values, bytes(data[start : start + size]))
    return found, following


def encode_directory(order: str, directory: Directory, start: int, *, following: int = 0) -> bytes:
    """Write a directory of a TIFF file (not BigTIFF) or EXIF block, its values behind it.

    Args:
        order: Of bytes, which is that of the entries.
        directory: Its entries.
        start: Where in the file it will begin.
        following: Where the next directory begins.
    """
    head = [struct.pack(order + "H", len(directory))]
    values = b""
    behind = start + 2 + 12 * len(directory) + 4
    for tag in sorted(directory):
        entry = directory[tag]
        inline = entry.data.ljust(4, b"\x00")
        if len(entry.data) > 4:
            inline = struct.pack(order + "I", behind + len(values))
            values += entry.data + b"\x00" * (len(entry.data) % 2)
        head.append(struct.pack(order + "HHI", tag, entry.kind, entry.count) + inline)
    return b"".join(head) + struct.pack(order + "I", following) + values
