from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import PIL.Image
import pytest

from pipelines.errors import ImageError


def pillow(data: bytes, tmp_path) -> np.ndarray:
    path = tmp_path / "reference.jpg"
    path.write_bytes(data)
    with PIL.Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"subsampling": 0},
        {"subsampling": 2},
        {"keep_rgb": True},
        {"restart_marker_rows": 1},
        {"optimize": True, "quality": 99},
    ],
)
def test_colour_agrees_with_pillow_to_the_bit(read, encode, picture, tmp_path, options):
    data = encode(picture, "JPEG", **options)
    image = read(data, name="image.jpg")
    assert (image.bit_depth, image.alpha, image.note) == (8, None, None)
    np.testing.assert_array_equal(image.pixels, pillow(data, tmp_path))


def test_grey_has_one_channel(read, encode, picture, tmp_path):
    data = encode(picture.convert("L"), "JPEG")
    np.testing.assert_array_equal(read(data).pixels[..., 0], pillow(data, tmp_path))


def test_12_bits_are_scaled_to_the_full_range(read):
    image = read(imagecodecs.jpeg8_encode(np.full((16, 16), 4095, np.uint16), level=99, bitspersample=12))
    assert (image.bit_depth, image.pixels.dtype) == (12, np.uint16)
    assert image.pixels.min() == 65535


def test_lossless_16_bits_are_kept(read, noise16):
    stored = np.ascontiguousarray(noise16[..., 0])
    image = read(imagecodecs.jpeg8_encode(stored, lossless=True, bitspersample=16))
    np.testing.assert_array_equal(image.pixels[..., 0], stored)


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_truncated_file_fails(read, encode, picture, kept, options):
    data = encode(picture.resize((290, 230)), "JPEG", **options)
    with pytest.raises(ImageError, match=r"is truncated: ends after .* bytes without an end-of-image marker"):
        read(data[: int(len(data) * kept)])


def test_a_truncated_file_with_a_whole_thumbnail_fails(read, encode, picture):
    thumbnail = encode(picture, "JPEG")
    data = encode(picture, "JPEG", exif=b"Exif\x00\x00" + thumbnail)
    assert thumbnail in data
    with pytest.raises(ImageError, match="is truncated"):
        read(data[:-20])


def test_a_file_cut_inside_its_header_fails(read, encode, picture):
    with pytest.raises(ImageError, match="is truncated: ends after 100 bytes, inside its header"):
        read(encode(picture, "JPEG")[:100])


def test_the_limit_holds_before_decoding(read, encode, picture):
    data = bytearray(encode(picture, "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 65_000)
    with pytest.raises(ImageError, match="is 65000 x 60000 = 3,900 million pixels"):
        read(bytes(data))


def test_cmyk_of_adobe_is_inverted_back(read, encode, picture):
    inks = picture.convert("CMYK")
    image = read(encode(inks, "JPEG", quality=100, subsampling=0))
    np.testing.assert_allclose(image.pixels.astype(int), np.asarray(inks.convert("RGB")).astype(int), atol=6)
    assert image.note == "CMYK converted to RGB without a colour profile: colours are approximate"
    assert (image.icc, image.alpha) == (None, None)


def test_profile_in_several_parts_and_resolution(read, encode, picture):
    profile = imagecodecs.cms_profile("srgb") + bytes(100_000)  # more than one segment holds
    image = read(encode(picture, "JPEG", icc_profile=profile, dpi=(200, 100)))
    assert image.icc == profile
    assert image.dpi == (200, 100)


def test_a_damaged_exif_block_does_not_matter(read, encode, picture):
    image = read(encode(picture, "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff" + b"\x07" * 40))
    assert image.pixels.shape == (23, 29, 3)


def test_two_components_are_refused(read, encode, picture):
    data = bytearray(encode(picture, "JPEG"))
    data[data.index(b"\xff\xc0") + 9] = 2
    with pytest.raises(ImageError, match="has 2 colour components"):
        read(bytes(data))
