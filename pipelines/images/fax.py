"""Fax compression in TIFF: whether a strip holds all its rows, since imagecodecs paints those that it lacks white.

A fax has no checksums and no count of rows. But in one dimension a run of pixels has one code only: from the rows that
were decoded follows how many bits their codes take. In two dimensions the white rows at the end are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

RLE, GROUP_3, GROUP_4 = 2, 3, 4  # Compression
_TWO_DIMENSIONS = 1  # of T4Options
_END_OF_LINE_ZEROS = 11  # and a one: no code has as many
_END_OF_BLOCK = bytes([0] * 11 + [1]) * 2  # one bit a byte
_MORE = (bytes.fromhex("a55a3cc396695ab4d22d") * 2, b"\xff" * 64)  # codes of various rows, and of copies of the last
_LEFT_OVER = 64 * 8  # bits that no row takes after its last black pixel, but those of passing over the row above

# Bits of the codes of 0 to 63 pixels, then of 64, 128, ... 1728 (T.4, tables 2 and 3a).
_WHITE = [8, 6, *[4] * 6, *[5] * 4, *[6] * 6, *[7] * 11, *[8] * 35]
_WHITE_MAKE_UP = [5, 5, 6, 7, *[8] * 6, *[9] * 15, 6, 9]
_BLACK = [10, 3, 2, 2, 3, 4, 4, 5, 6, 6, 7, 7, 7, 8, 8, 9, *[10] * 3, *[11] * 7, *[12] * 38]
_BLACK_MAKE_UP = [10, *[12] * 6, *[13] * 20]
_LONG_MAKE_UP = [*[11] * 3, *[12] * 10]  # of 1792, ... 2560 pixels of either colour (table 3b)
_LONGEST = 2560
_BLOCK = 2**22  # pixels that are measured together

_Rows = NDArray[np.bool_]
_Bits = NDArray[np.uint8]
_Numbers = NDArray[np.int64]


def has_all_rows(codes: bytes, decode: Callable[[bytes], NDArray[Any]], compression: int, t4_options: int) -> bool:
    """Return whether a strip or tile holds the codes of all the rows that are decoded from it.

    Args:
        codes: The strip or tile, the highest bit of each byte first.
        decode: Returns the rows of codes, (H, W), 0 is white.
        compression: TIFF's number: `RLE`, `GROUP_3` or `GROUP_4`.
        t4_options: TIFF's tag 292.

    Source:
        ITU-T T.4 and T.6; TIFF 6.0, sections 10 and 11.
    """
    black = np.asarray(decode(codes)) != 0
    bits = np.unpackbits(np.frombuffer(codes, np.uint8))
    if compression == GROUP_4:
        return _has_block(codes, decode, black, bits)
    block = max(1, _BLOCK // black.shape[1])
    measured = [_code_lengths(black[row : row + block]) for row in range(0, len(black), block)]
    lengths, last = (np.concatenate(each) for each in zip(*measured, strict=True))
    ones = np.flatnonzero(bits)
    if compression == RLE:  # each row begins with a byte
        return _has_codes(ones, *_in_a_row(-(-lengths // 8) * 8, len(bits)), lengths, last)
    return _has_lines(ones, bits, lengths, last, is_mixed=bool(t4_options & _TWO_DIMENSIONS))


def _has_block(codes: bytes, decode: Callable[[bytes], NDArray[Any]], black: _Rows, bits: _Bits) -> bool:
    inked = np.flatnonzero(black.any(axis=1))
    white = len(black) - (int(inked[-1]) + 1 if len(inked) else 0)
    ones = bytes([1]) * max(white - 1, 0)  # the code of a white row, but for the first, which follows another row
    stream = bits.tobytes()
    end = stream.rfind(_END_OF_BLOCK)
    if end < 0:  # some writers leave it out: then whatever follows must be of no use
        codes = codes.rstrip(b"\x00")
        is_sated = all(_decodes_to(black, codes + more, decode) for more in _MORE)
        return is_sated and stream.rstrip(b"\x00").endswith(ones)
    # Codes that remain when the last row is complete were not where the decoder believed to be.
    runs = int(np.count_nonzero(np.diff(black[inked[-1]]))) if len(inked) else 0
    before = np.packbits(bits[: max(end - _LEFT_OVER - white - 4 * runs, 0)]).tobytes()
    return ones + _END_OF_BLOCK in stream and not (before and len(inked) and _decodes_to(black, before, decode))


def _decodes_to(black: _Rows, codes: bytes, decode: Callable[[bytes], NDArray[Any]]) -> bool:
    import imagecodecs

    try:
        return bool(((np.asarray(decode(codes)) != 0) == black).all())
    except imagecodecs.Ccittfax4Error:
        return False


def _has_lines(ones: _Numbers, bits: _Bits, lengths: _Numbers, last: _Numbers, *, is_mixed: bool) -> bool:
    ends = ones[np.diff(ones, prepend=-1) > _END_OF_LINE_ZEROS]  # of the codes that end a line and begin the next
    if not len(ends):
        return not is_mixed and _has_codes(ones, *_in_a_row(lengths, len(bits)), lengths, last)
    starts, follows = ends + 1, np.append(ends[1:], len(bits))
    is_line = follows - starts > _END_OF_LINE_ZEROS + is_mixed  # six ends of lines in a row end the page
    is_line[-1] = ones[-1] > ends[-1]
    starts, follows = starts[is_line][: len(lengths)], follows[is_line][: len(lengths)]
    if len(starts) < len(lengths):
        return False
    if is_mixed:  # those of two dimensions have codes of other lengths
        is_plain = bits[starts] == 1
        starts, follows, lengths, last = starts[is_plain] + 1, follows[is_plain], lengths[is_plain], last[is_plain]
    return _has_codes(ones, starts, follows, lengths, last)


def _in_a_row(lengths: _Numbers, end: int) -> tuple[_Numbers, _Numbers]:
    """Return where each begins, one after the other, and where what follows it does."""
    follows = np.cumsum(lengths)
    return follows - lengths, np.append(follows[:-1], end)


def _has_codes(ones: _Numbers, starts: _Numbers, follows: _Numbers, lengths: _Numbers, last: _Numbers) -> bool:
    """Return whether between each start and what follows stand codes of these lengths, and then nothing but zeros."""
    ends = starts + lengths
    before_last, before_end, before_next = (np.searchsorted(ones, place) for place in (ends - last, ends, follows))
    return bool(((ends <= follows) & (before_last < before_end) & (before_end == before_next)).all())


def _code_lengths(black: _Rows) -> tuple[_Numbers, _Numbers]:
    """Return the bits of each row's codes, runs of white and black in turn, and of the last of them."""
    height, width = black.shape
    is_end = np.ones((height, width + 1), np.bool_)  # of a run
    is_end[:, 0] = black[:, 0]
    np.not_equal(black[:, 1:], black[:, :-1], out=is_end[:, 1:-1])
    row, end = np.divmod(np.flatnonzero(is_end), width + 1)
    first = np.searchsorted(row, np.arange(height))  # run of each row
    begin = np.concatenate([[0], end[:-1]])
    begin[first] = 0
    is_black = (np.arange(len(row)) - first[row]) % 2
    lengths = _lengths_by_run(width)[is_black, end - begin]
    return np.add.reduceat(lengths, first), lengths[np.append(first[1:], len(lengths)) - 1]


@lru_cache(maxsize=4)  # scans of one folder have a few widths
def _lengths_by_run(longest: int) -> _Numbers:
    """Return the bits of the codes of each run of white and of black."""
    run = np.arange(longest + 1)
    whole = np.maximum(run - 64, 0) // _LONGEST  # codes of 2560 pixels, before others
    rest = run - whole * _LONGEST
    tables = []
    for short, make_up in ((_WHITE, _WHITE_MAKE_UP), (_BLACK, _BLACK_MAKE_UP)):
        by_64 = np.array([0, *make_up, *_LONG_MAKE_UP])
        tables.append(12 * whole + by_64[rest // 64] + np.array(short)[rest % 64])
    return np.stack(tables)
