"""LZW streams of TIFF: sound ones pass, in every width of code; what leads imagecodecs out of its table does not."""

from __future__ import annotations

import io
import struct

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile

from pipelines.errors import ImageError
from pipelines.images.lzw import stands_for_something


def packed(codes: list[tuple[int, int]], *, old: bool = False) -> bytes:
    """Codes of so many bits each, highest bit first; lowest bit first, where the stream is an old one."""
    total = position = 0
    for code, width in codes:
        if old:
            total |= code << position
        else:
            total = total << width | code
        position += width
    padding = -position % 8
    if old:
        return total.to_bytes((position + padding) // 8, "little")
    return (total << padding).to_bytes((position + padding) // 8, "big")


@pytest.mark.parametrize("values", [1, 2, 16, 256])
@pytest.mark.parametrize("length", [0, 1, 2, 254, 255, 256, 257, 5_000, 70_000])
def test_what_encoders_write_is_sound(values: int, length: int) -> None:
    data = np.random.default_rng(length).integers(0, values, length, dtype=np.uint8)
    assert stands_for_something(imagecodecs.lzw_encode(data.tobytes()))
    if length:
        buffer = io.BytesIO()
        PIL.Image.fromarray(data[None]).save(buffer, "TIFF", compression="tiff_lzw")  # by libtiff
        page = tifffile.TiffFile(io.BytesIO(buffer.getvalue())).pages.first
        start, count = page.dataoffsets[0], page.databytecounts[0]
        assert stands_for_something(buffer.getvalue()[start : start + count])


@pytest.mark.parametrize("before", [0, 1, 200, 254, 255, 1000, 2000, 3838])
@pytest.mark.parametrize("old", [False, True])
def test_a_code_may_be_the_entry_that_it_makes_and_no_later_one(before: int, old: bool) -> None:
    """Wherever in a table that fills up: each code before it stands for a byte."""
    widths = [min(12, max(9, (258 + index - old).bit_length())) for index in range(before + 1)]
    codes = [(256, 9), *((7, width) for width in widths[:-1])]
    if old:
        codes.insert(0, (256, 9))  # the two first bytes tell that it is one
    newest = 257 + before if before else 255
    assert stands_for_something(packed([*codes, (newest, widths[-1])], old=old))
    too_new = newest + 1 if before else 258
    if too_new < 2 ** widths[-1]:
        assert not stands_for_something(packed([*codes, (too_new, widths[-1])], old=old))


def test_a_table_that_is_full_and_never_cleared_is_sound() -> None:
    filling = [(7, min(12, (258 + index).bit_length())) for index in range(3839)]
    rest = [(4095, 12), (300, 12)] * 5_000
    assert stands_for_something(packed([(256, 9), *filling, *rest, (257, 12)]))
    after = [(256, 12), (400, 9)]
    assert not stands_for_something(packed([(256, 9), *filling, *rest, *after]))


@pytest.mark.parametrize("fill_order", [1, 2])
def test_a_file_with_such_a_code_is_refused(read, fill_order: int) -> None:
    """In the library's own decoder it ends the process, or shows what lies in memory."""
    stream = packed([(256, 9), (488, 9), *[(0, 9)] * 90, (257, 9)])
    stored = imagecodecs.bitorder_decode(stream) if fill_order == 2 else stream
    tags = {256: 9, 257: 9, 258: 8, 259: 5, 262: 1, 266: fill_order, 273: 200, 277: 1, 278: 9, 279: len(stream)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries
    with pytest.raises(ImageError, match="LZW codes that stand for nothing"):
        read(data.ljust(200, b"\0") + stored)
