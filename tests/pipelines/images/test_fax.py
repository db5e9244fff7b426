"""Fax strips: libtiff writes them through Pillow, and they are cut and broken here."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest
import tifffile

from pipelines.errors import ImageError

WAYS = {
    "RLE": {"compression": "tiff_ccitt"},
    "group 3": {"compression": "group3"},
    "group 3, filled": {"compression": "group3", "tiffinfo": {292: 4}},
    "group 3, two dimensions": {"compression": "group3", "tiffinfo": {292: 1}},
    "group 3, two dimensions, filled": {"compression": "group3", "tiffinfo": {292: 5}},
    "group 4": {"compression": "group4"},
    "group 4, strips": {"compression": "group4", "tiffinfo": {278: 17}},
}
RANDOM = np.random.default_rng(1)


def page(kind: str, height: int, width: int) -> np.ndarray:
    """True is ink."""
    if kind == "empty":
        return np.zeros((height, width), bool)
    if kind == "black":
        return np.ones((height, width), bool)
    if kind == "noise":
        return RANDOM.random((height, width)) < 0.5
    if kind == "dots":
        return RANDOM.random((height, width)) < 0.01
    lines = np.zeros((height, width), bool)  # of words, with white above and below
    for top in range(height // 8, height - height // 5, 14):
        words = np.repeat(RANDOM.random((9, width // 3)) < 0.3, 3, axis=1)
        lines[top : top + 9, : words.shape[1]] = words[: len(lines[top : top + 9])]
    return lines


def fax(ink: np.ndarray, way: dict) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(~ink).save(buffer, "TIFF", **way)
    return buffer.getvalue()


def strip_of(data: bytes, number: int = 0) -> slice:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        start, count = file.pages.first.dataoffsets[number], file.pages.first.databytecounts[number]
    return slice(start, start + count)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("kind", ["empty", "black", "noise", "dots", "lines"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 100), (60, 1728), (40, 5300)])
def test_whole_pages_are_read(read: Callable, kind: str, size: tuple[int, int], way: dict) -> None:
    ink = page(kind, *size)
    np.testing.assert_array_equal(read(fax(ink, way)).pixels[..., 0] == 0, ink)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("kind", ["noise", "dots", "lines"])
@pytest.mark.parametrize("damage", ["cut", "zeros", "zeros to the end", "ones"])
def test_a_strip_that_lacks_rows_fails(read: Callable, kind: str, damage: str, way: dict) -> None:
    data = fax(page(kind, 200, 400), way)
    strip = strip_of(data)
    middle = (strip.start + strip.stop) // 2
    broken = bytearray(data)
    if damage == "cut":
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            tag = file.pages.first.tags[279]
        size = tag.dtype.name.startswith("LONG") * 2 + 2
        broken[tag.valueoffset : tag.valueoffset + size] = (middle - strip.start).to_bytes(size, "little")
    elif damage == "zeros":
        broken[middle : middle + 60] = bytes(60)
    elif damage == "zeros to the end":
        broken[middle : strip.stop] = bytes(strip.stop - middle)
    else:
        broken[middle : middle + 40] = b"\x7f" * 40
    with pytest.raises(ImageError, match=r"fax codes lacks rows|cannot be decoded as TIFF"):
        read(bytes(broken[: len(data)]))


def test_a_page_without_its_mark_of_the_end_is_read(read: Callable) -> None:
    """Some writers leave out EOFB."""
    ink = page("lines", 200, 400)
    data = bytearray(fax(ink, WAYS["group 4"]))
    strip = strip_of(data)
    bits = "".join(f"{byte:08b}" for byte in data[strip])
    end = bits.rindex("000000000001000000000001")
    bits = (bits[:end] + "0" * 8)[: end // 8 * 8 + 8]
    codes = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    data[strip] = codes + bytes(strip.stop - strip.start - len(codes))
    np.testing.assert_array_equal(read(bytes(data)).pixels[..., 0] == 0, ink)


def test_the_lowest_bit_may_come_first(read: Callable) -> None:
    ink = page("lines", 200, 400)
    data = fax(ink, {"compression": "group4", "tiffinfo": {266: 2}})
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert file.pages.first.fillorder == 2
    np.testing.assert_array_equal(read(data).pixels[..., 0] == 0, ink)
