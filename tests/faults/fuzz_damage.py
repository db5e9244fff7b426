"""Ways to damage a file: bits, numbers, cuts, copies, and words where the file is text."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence

import numpy as np

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)
WORDS = (
    b"-1", b"0", b"0.5", b"1e400", b"-1e308", b"nan", b"NaN", b"inf", b"null", b"true", b"[]", b"{}", b'""', b"[[]]",
    b"1979-05-27", b"0x10", b'"../../x"', b'"a\\u0000b"', b'"\\ud800"', b'"x\\n"', b"\xff\xfe", b"9" * 40, b"9" * 5000,
    b"0x" + b"f" * 5000, b"[" * 2000, b"{a=" * 500, b'{"a":' * 500, b"a." * 500 + b"a=1", b"[1, 2, 3, 4, 5]", b"'x'",
)  # fmt: skip
_TOKEN = re.compile(rb'"[^"\n]*"|-?[0-9][0-9.e+-]*|\w+|[][{}=:,\n]')
_HEADER = 160  # bytes that are damaged as often as all others


def damaged(files: Sequence[bytes], random: np.random.Generator, *, text: bool) -> bytes:
    """One of some files with some faults; few in text, of which each can make it unreadable."""
    data = bytearray(files[random.integers(len(files))])
    for _ in range(random.integers(1, 4 if text else 7)):
        if text and random.random() < 0.7:
            _damage_words(data, random)
        else:
            _damage_bytes(data, random, files)
    if data.startswith(b"\x89PNG") and random.random() < 0.7:
        _sum_up(data)  # or no decoder would see most of what was done
    return bytes(data)


def _damage_bytes(data: bytearray, random: np.random.Generator, files: Sequence[bytes]) -> None:
    end = len(data) if random.random() < 0.5 else min(len(data), _HEADER)
    place = int(random.integers(max(end, 1)))
    length = int(random.integers(1, 2 ** random.integers(1, 10)))
    match random.integers(8):
        case 0 | 1:
            data[place : place + 1] = bytes(byte ^ 1 << int(random.integers(8)) for byte in data[place : place + 1])
        case 2 | 3:
            number, width = int(random.choice(NUMBERS)), int(random.choice([1, 2, 4, 8]))
            order = "big" if random.random() < 0.5 else "little"
            data[place : place + width] = (number & (1 << 8 * width) - 1).to_bytes(width, order)
        case 4:
            data[place : place + length] = random.bytes(length)
        case 5:
            del data[place : place + length]
        case 6:
            other = files[random.integers(len(files))] if random.random() < 0.3 else bytes(data)
            begin = int(random.integers(max(len(other), 1)))
            data[place:place] = other[begin : begin + length] * int(random.choice([1, 1, 1, 2, 100]))
        case _:
            if random.random() < 0.3:
                del data[place:]


def _damage_words(data: bytearray, random: np.random.Generator) -> None:
    words = list(_TOKEN.finditer(bytes(data)))
    if not words:
        return
    one, two = (words[random.integers(len(words))] for _ in range(2))
    match random.integers(5):
        case 0 | 1 | 2:
            data[one.start() : one.end()] = WORDS[random.integers(len(WORDS))]
        case 3:
            data[one.start() : one.end()] = two[0]
        case _:
            del data[min(one.start(), two.start()) : max(one.start(), two.start())]


def _sum_up(data: bytearray) -> None:
    """Give the chunks of a PNG file the checksums that they should have."""
    place = 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(data[place + 4 : end]))
        place = end + 4
