"""LZW in TIFF: imagecodecs reads a first code that stands for nothing as if it did, which may end the process."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

CLEAR, END, MOST = 256, 257, 4096
BLOCK = MOST - END  # codes after a CLEAR that fill the table; what follows has 12 bits until it is cleared
NARROW = 254  # codes after a CLEAR that have 9 bits
GLANCE = 1024  # codes that are read as if all had 9 bits: several CLEARs, where there are many


def begins_with_bytes(stream: bytes) -> bool:
    """Whether the first code after each CLEAR of a strip or tile is a byte, as the table is empty then.

    (A later code that stands for nothing yet is noticed by the decoder, which stops there.) Codes have 9 to 12 bits,
    the more the fuller the table is: the place of each between two CLEARs is known, and thousands are looked at
    together.

    Source: TIFF 6.0, section 13; old streams, which begin with the bytes 0 and 1, as libtiff reads them: lowest bit
    first, and widths that grow one code later.

    >>> begins_with_bytes(bytes([0x80, 0x00, 0x60, 0x50]))  # CLEAR, 1, 258
    True
    >>> begins_with_bytes(bytes([0x80, 0x60, 0x60, 0x10]))  # CLEAR, 385
    False
    """
    old = len(stream) > 1 and stream[0] == 0 and bool(stream[1] & 1)
    codes = _Codes(stream, old=old)
    while True:
        narrow = codes.read(*_narrow(), GLANCE)
        clears = np.flatnonzero(narrow == CLEAR)
        bounds = np.concatenate([[-1], clears])
        too_far = np.flatnonzero(np.diff(bounds) > NARROW + old)  # codes between have more bits: so these are others
        last = int(bounds[too_far[0]] if len(too_far) else bounds[-1])
        reach = min(len(narrow), last + 1 + NARROW + old)
        ends = np.flatnonzero(narrow[:reach] == END)
        until = int(ends[0]) if len(ends) else len(narrow) - 1
        firsts = bounds[bounds <= last] + 1
        if (narrow[firsts[firsts <= until]] > END).any():
            return False
        if len(ends) or reach == len(narrow) < GLANCE:
            return True
        codes.position += 9 * (last + 1)
        if reach < len(narrow) and not codes.skip_to_clear():
            return True


class _Codes:
    """A stream of codes, and how far it has been read, in bits."""

    def __init__(self, stream: bytes, *, old: bool) -> None:
        self._data = np.frombuffer(stream + bytes(3), np.uint8).astype(np.int64)
        self._bits, self._old, self.position = 8 * len(stream), old, 0

    def read(self, widths: NDArray[np.int64], starts: NDArray[np.int64], most: int) -> NDArray[np.int64]:
        """Codes from the position on, of so many bits, as many as there are."""
        places = self.position + starts[:most]
        places = places[: int(np.count_nonzero(places + widths[:most] <= self._bits))]
        widths = widths[: len(places)]
        first, offset, mask = places // 8, places % 8, (1 << widths) - 1
        one, two, three = self._data[first], self._data[first + 1], self._data[first + 2]
        if self._old:
            return ((one | two << 8 | three << 16) >> offset) & mask
        return ((one << 16 | two << 8 | three) >> (24 - offset - widths)) & mask

    def skip_to_clear(self) -> bool:
        """Go on behind the next CLEAR; whether there is one, before the end. The position is behind a CLEAR."""
        full = False
        while True:
            widths, starts = _layout(old=self._old, full=full)
            codes = self.read(widths, starts, BLOCK)
            found = np.flatnonzero((codes == CLEAR) | (codes == END))
            if len(found):
                self.position += int(starts[found[0]] + widths[found[0]])
                return bool(codes[found[0]] == CLEAR)
            if len(codes) < BLOCK:
                return False
            self.position += int(starts[-1] + widths[-1])
            full = True


@cache
def _narrow() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    widths = np.full(GLANCE, 9)
    return widths, np.cumsum(widths) - widths


@cache
def _layout(*, old: bool, full: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many bits the codes of a block have, and the bit that each begins with."""
    entries = MOST if full else END + 1 + np.arange(BLOCK) - old
    widths = np.clip(np.floor(np.log2(np.full(BLOCK, entries))).astype(np.int64) + 1, 9, 12)
    return widths, np.cumsum(widths) - widths
