"""HEVC data: whether a part is zero or missing, since libheif paints over what it cannot decode."""

from __future__ import annotations

import re

# A decoder that reads a stream finds the next unit by these bytes, so encoders put a 3 between, wherever it is stored.
_NEVER_INSIDE = re.compile(rb"\x00\x00[\x00-\x02]|\x00\Z")


def has_whole_units(units: bytes, length_size: int) -> bool:
    """Return whether units follow each other to the end, and none has bytes that no encoder writes.

    Data that a disk or a transfer lost are mostly zero, in blocks. Other changes go unnoticed: HEVC has no checksums,
    but for those of pictures, which photographs lack.

    Args:
        units: Units, each after its length.
        length_size: Bytes of a length.

    Source:
        ISO/IEC 23008-2, 7.3.1.1 and 7.4.2 (NAL unit syntax); 14496-15, 4.3.2 (lengths).

    >>> (
    ...     has_whole_units(bytes([0, 0, 0, 3, 40, 1, 175]), 4),
    ...     has_whole_units(bytes([0, 0, 0, 4, 40, 0, 0, 0]), 4),
    ... )
    (True, False)
    """
    place = 0
    while place < len(units):
        start = place + length_size
        place = start + int.from_bytes(units[place:start], "big")
        if not start < place <= len(units) or _NEVER_INSIDE.search(units, start, place):
            return False
    return True
