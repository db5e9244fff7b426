"""LZW streams of TIFF: what encoders write passes, in every width of code; what leads imagecodecs astray does not."""

from __future__ import annotations

import io
import struct
import time

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile

from pipelines.errors import ImageError
from pipelines.images.lzw import begins_with_bytes


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
    assert begins_with_bytes(imagecodecs.lzw_encode(data.tobytes()))
    if length:
        buffer = io.BytesIO()
        PIL.Image.fromarray(data[None]).save(buffer, "TIFF", compression="tiff_lzw")  # by libtiff
        page = tifffile.TiffFile(io.BytesIO(buffer.getvalue())).pages.first
        start, count = page.dataoffsets[0], page.databytecounts[0]
        assert begins_with_bytes(buffer.getvalue()[start : start + count])


def widths(count: int, *, old: bool = False) -> list[int]:
    """Of so many codes after a CLEAR."""
    return [min(12, max(9, (258 + index - old).bit_length())) for index in range(count)]


@pytest.mark.parametrize(
    "before", [0, 1, 2, 100, 252, 253, 254, 255, 256, 900, 1021, 1022, 1023, 1024, 2000, 3838, 3839, 9000]
)
@pytest.mark.parametrize("old", [False, True])
def test_the_first_code_after_a_clear_is_a_byte_wherever_that_is(before: int, old: bool) -> None:
    """Behind tables that fill up, or are full and used on; two CLEARs, of which the second is the one in question."""
    start = [(256, 9)] * (2 if old else 1)  # the two first bytes tell of an old stream
    codes = [*start, *zip([7] * before, widths(before, old=old), strict=True), (256, widths(before + 1, old=old)[-1])]
    for first, sound in ((0, True), (255, True), (256, True), (257, True), (258, False), (511, False)):
        for rest in ([], [(7, 9)] * 300, [(7, 9), (257, 9)]):
            assert begins_with_bytes(packed([*codes, (first, 9), *rest], old=old)) is sound, (first, len(rest))


@pytest.mark.parametrize("gap", [0, 1, 5, 252, 253, 254, 255])
def test_many_clears_are_looked_at_together_and_each_is(gap: int) -> None:
    piece = [*zip([7] * gap, widths(gap), strict=True), (256, widths(gap + 1)[-1])]
    codes = [(256, 9), *piece * 40]
    assert begins_with_bytes(packed(codes))
    assert not begins_with_bytes(packed([*codes, (300, 9)]))
    assert not begins_with_bytes(packed([*codes, (300, 9), *piece * 40]))
    assert begins_with_bytes(packed([*codes, (257, 9), (300, 9), *piece]))  # behind the end


def test_what_a_later_code_stands_for_is_the_decoder_s_to_say() -> None:
    """It stops there by itself; where no END was written, what follows the pixels may be anything."""
    assert begins_with_bytes(packed([(256, 9), (7, 9), (300, 9)]))
    array = np.arange(81, dtype=np.uint8).reshape(9, 9)
    codes = [(256, 9), *((int(value), 9) for value in array.ravel())]
    stream = packed(codes) + b"\xff\xff\xff"
    assert begins_with_bytes(stream)
    assert imagecodecs.lzw_decode(stream, out=81) == array.tobytes()


def test_it_takes_no_longer_than_a_file_is_worth() -> None:
    """Each of these would be minutes if every CLEAR cost as much as a table that fills up."""
    start = time.monotonic()
    for piece in ([(256, 9)], [(256, 9), (7, 9)]):
        assert begins_with_bytes(packed(piece * 8) * (2_000_000 // len(packed(piece * 8))))
    assert time.monotonic() - start < 20  # a second, on an idle machine


@pytest.mark.parametrize("fill_order", [0, 1, 2, 3])
def test_a_file_with_such_a_code_is_refused(read, fill_order: int) -> None:
    """In the library's own decoder it ends the process, or shows what lies in memory."""
    stream = packed([(256, 9), (488, 9), *[(0, 9)] * 90, (257, 9)])
    stored = imagecodecs.bitorder_decode(stream) if fill_order == 2 else stream
    tags = {256: 9, 257: 9, 258: 8, 259: 5, 262: 1, 266: fill_order, 273: 200, 277: 1, 278: 9, 279: len(stream)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries
    with pytest.raises(ImageError, match="an LZW code that stands for nothing"):
        read(data.ljust(200, b"\0") + stored)
