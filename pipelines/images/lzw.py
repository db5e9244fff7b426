"""LZW in TIFF: imagecodecs reads codes that stand for nothing as if they did, which may end the process."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

CLEAR, END, MOST = 256, 257, 4096
BLOCK = MOST - END  # codes after a CLEAR that fill the table; what follows has 12 bits until it is cleared


def stands_for_something(stream: bytes) -> bool:
    """Whether every code of a strip or tile stands for something by the time that it is read.

    Codes have 9 to 12 bits, the more the fuller the table is: the place of each between two CLEARs is known, and
    thousands are looked at together.

    Source: TIFF 6.0, section 13; old streams, which begin with the bytes 0 and 1, as libtiff reads them: lowest bit
    first, and widths that grow one code later.

    >>> stands_for_something(
    ...     bytes([0x80, 0x00, 0x60, 0x50])
    ... )  # CLEAR, 1, 258: the entry that it makes itself
    True
    >>> stands_for_something(bytes([0x80, 0x60, 0x60, 0x10]))  # CLEAR, 385
    False
    """
    old = len(stream) > 1 and stream[0] == 0 and bool(stream[1] & 1)
    data = np.frombuffer(stream + bytes(3), np.uint8).astype(np.uint32)
    bits, position, full = 8 * len(stream), 0, False
    while True:
        widths, starts = _layout(old=old, full=full)
        places = position + starts
        within = int(np.count_nonzero(places + widths <= bits))
        codes = _codes(data, places[:within], widths[:within], old=old)
        ends = np.flatnonzero((codes == CLEAR) | (codes == END))
        count = int(ends[0]) if len(ends) else within
        # The first stands for a byte; each further one makes an entry, and may be that very entry.
        if not full and (codes[:count] > END + np.arange(count)).any():
            return False
        if count == within < BLOCK or (len(ends) and codes[count] == END):
            return True
        full = not len(ends)
        position = int(places[count - full] + widths[count - full])


def _codes(
    data: NDArray[np.uint32], places: NDArray[np.int64], widths: NDArray[np.int64], old: bool
) -> NDArray[np.uint32]:
    """Codes of so many bits each, from the bit that each begins with."""
    first, offset, mask = places // 8, places % 8, (1 << widths) - 1
    one, two, three = data[first], data[first + 1], data[first + 2]
    if old:
        found = (one | two << 8 | three << 16).astype(np.int64) >> offset
    else:
        found = (one << 16 | two << 8 | three).astype(np.int64) >> (24 - offset - widths)
    return (found & mask).astype(np.uint32)


@cache
def _layout(*, old: bool, full: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many bits the codes of a block have, and the bit that each begins with."""
    entries = MOST if full else END + 1 + np.arange(BLOCK) - old
    widths = np.clip(np.floor(np.log2(np.full(BLOCK, entries))).astype(np.int64) + 1, 9, 12)
    return widths, np.cumsum(widths) - widths
