from __future__ import annotations

import io
import struct

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from pipelines.images.exif import Exif, dots_per_inch, read_exif, upright

# As drawn by the Exif standard: where the letter F goes for each orientation.
LETTER = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]], np.uint8) * 200


def test_orientations_are_those_of_the_standard():
    first = {number: upright(LETTER[..., None], number)[..., 0] for number in range(1, 9)}
    np.testing.assert_array_equal(first[1], LETTER)
    np.testing.assert_array_equal(first[2], LETTER[:, ::-1])
    np.testing.assert_array_equal(first[3], np.rot90(LETTER, 2))
    np.testing.assert_array_equal(first[4], LETTER[::-1])
    np.testing.assert_array_equal(first[5], LETTER.T)
    np.testing.assert_array_equal(first[6], np.rot90(LETTER, -1))  # turned a quarter clockwise
    np.testing.assert_array_equal(first[7], np.rot90(LETTER, 2).T)
    np.testing.assert_array_equal(first[8], np.rot90(LETTER, 1))
    assert all(array.flags.c_contiguous for array in first.values())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_format_is_turned_as_pillow_turns_it(read, encode, picture, kind, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture, kind, exif=exif, dpi=(300, 150))
    image = read(data)
    with PIL.Image.open(io.BytesIO(data)) as stored:
        np.testing.assert_array_equal(image.pixels, np.asarray(PIL.ImageOps.exif_transpose(stored)))
    if kind != "WEBP":  # Pillow writes no resolution there
        assert image.dpi == pytest.approx((150, 300) if orientation > 4 else (300, 150), rel=1e-4)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders(order):
    mark = b"II*\x00" if order == "<" else b"MM\x00*"
    entries = struct.pack(order + "HHIHxx", 0x0112, 3, 1, 8) + struct.pack(order + "HHII", 0x011A, 5, 1, 200)
    entries += struct.pack(order + "HHII", 0x011B, 5, 1, 208) + struct.pack(order + "HHIHxx", 0x0128, 3, 1, 3)
    block = mark + struct.pack(order + "IH", 8, 4) + entries
    block = block.ljust(200, b"\x00") + struct.pack(order + "IIII", 100, 1, 50, 1)
    assert read_exif(block) == Exif(8, (254.0, 127.0))
    assert read_exif(b"Exif\x00\x00" + block) == Exif(8, (254.0, 127.0))


@pytest.mark.parametrize("length", range(0, 60, 7))
def test_a_cut_block_takes_its_defaults(length):
    exif = PIL.Image.Exif()
    exif[0x010F] = "a maker with a long name"
    assert read_exif(exif.tobytes()[:length]) == Exif()


def test_an_orientation_that_does_not_exist_is_none():
    exif = PIL.Image.Exif()
    exif[0x0112] = 9
    assert read_exif(exif.tobytes()).orientation == 1


@pytest.mark.parametrize(("x", "y", "unit"), [(0, 300, 2), (300, 300, 1), (float("nan"), 1, 2), (-1, 1, 2)])
def test_a_resolution_without_meaning_is_none(x, y, unit):
    assert dots_per_inch(x, y, unit) is None
