"""Directories of tags, as TIFF files and EXIF blocks have them. What is damaged is left out, and nothing warns."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SLONG, SRATIONAL, FLOAT, DOUBLE = 1, 2, 3, 4, 5, 7, 9, 10, 11, 12
# Bytes of a value, and how struct reads it, by the type of the field.
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_PAIRS = {RATIONAL: "II", SRATIONAL: "ii"}
_MOST_ENTRIES = 1024  # that are read; a few dozen are usual


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
    data: bytes, layout: Layout, offset: int, only: Collection[int] | None = None, *, most_bytes: int = 2**15
) -> tuple[Directory, int]:
    """Read one directory.

    Args:
        data: The file or block.
        layout: Its own.
        offset: Where the directory begins.
        only: Tags to read; None for all.
        most_bytes: Of the values of one tag: all of a large file could be said to be those of each.

    Returns:
        The entries whose values lie in the data, the first of each tag; and where the next directory begins, 0 for
        nowhere.

    Raises:
        struct.error: The directory itself is not in the data.
    """
    order, (number, pointer) = layout.order, ("Q", "Q") if layout.big else ("H", "I")
    room, step = struct.calcsize("=" + pointer), 20 if layout.big else 12
    (entries,) = struct.unpack_from(order + number, data, offset)
    place = offset + struct.calcsize("=" + number)
    end = place + entries * step
    (following,) = struct.unpack_from(order + pointer, data, end) if end + room <= len(data) else (0,)
    there = min(entries, _MOST_ENTRIES, (len(data) - place) // step)
    kinds = [("tag", order + "u2"), ("kind", order + "u2"), ("count", f"{order}u{room}"), ("value", f"V{room}")]
    table = np.frombuffer(data, np.dtype(kinds), there, place)
    found: Directory = {}
    for index in range(there) if only is None else np.flatnonzero(np.isin(table["tag"], list(only))):
        tag, kind, count = (int(table[name][index]) for name in ("tag", "kind", "count"))
        size, start = count * _BYTES.get(kind, 0), place + int(index) * step + step - room
        if size > room:
            (start,) = struct.unpack_from(order + pointer, data, start)
        if kind in _BYTES and tag not in found and size <= most_bytes and start + size <= len(data):
            found[tag] = Entry(kind, count, bytes(data[start : start + size]))
    return found, following


def entry_places(data: bytes | memoryview, layout: Layout, offset: int) -> dict[int, int]:
    """Return where each tag of a directory has its value, or the pointer to it.

    Raises:
        struct.error: The directory is not in the data.
    """
    number, head, step = ("Q", 12, 20) if layout.big else ("H", 8, 12)
    (entries,) = struct.unpack_from(layout.order + number, data, offset)
    places = (offset + struct.calcsize("=" + number) + index * step for index in range(entries))
    return {struct.unpack_from(layout.order + "H", data, place)[0]: place + head for place in places}


def little_endian(entry: Entry, order: str) -> Entry:
    """Return an entry of a file of one byte order as a little-endian file has it."""
    word = {RATIONAL: 4, SRATIONAL: 4}.get(entry.kind, _BYTES[entry.kind])
    if order == "<" or word == 1:
        return entry
    return Entry(entry.kind, entry.count, np.frombuffer(entry.data, f">u{word}").astype(f"<u{word}").tobytes())


def encode_directory(order: str, directory: Directory, start: int, *, big: bool = False) -> bytes:
    """Write a directory of a TIFF file or EXIF block, its values behind it.

    Args:
        order: Of bytes, which is that of the entries.
        directory: Its entries.
        start: Where in the file it will begin.
        big: Whether the file is a BigTIFF.
    """
    (number, count, room) = ("Q", "Q", 8) if big else ("H", "I", 4)
    step, head = 4 + 2 * room, struct.pack(order + number, len(directory))
    entries, values = b"", b""
    behind = start + len(head) + step * len(directory) + room
    for tag in sorted(directory):
        entry = directory[tag]
        inline = entry.data.ljust(room, b"\x00")
        if len(entry.data) > room:
            inline = struct.pack(order + count, behind + len(values))
            values += entry.data + b"\x00" * (len(entry.data) % 2)
        entries += struct.pack(order + "HH" + count, tag, entry.kind, entry.count) + inline
    return head + entries + bytes(room) + values
