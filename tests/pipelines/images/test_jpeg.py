from __future__ import annotations

import re
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
def test_a_file_without_its_end_fails(read, encode, picture, kept, options):
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


PROCESSES = {"baseline": {}, "progressive": {"progressive": True}, "restarts": {"restart_marker_rows": 1}}


@pytest.fixture(params=PROCESSES)
def photo(request, encode, picture) -> bytes:
    """A file of some 20 kB."""
    return encode(picture.resize((290, 230)), "JPEG", quality=98, **PROCESSES[request.param])


def first_scan(data: bytes) -> int:
    """Where its image data begin."""
    start = data.index(b"\xff\xda")
    return start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")


@pytest.mark.parametrize("kept", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
def test_a_file_that_was_cut_and_ended_fails(read, photo, kept):
    start = first_scan(photo)
    cut = photo[: start + int((len(photo) - 2 - start) * kept)]
    for end in (b"\xff\xd9", b"a trailer " * 20 + b"\xff\xd9 that holds an end"):
        with pytest.raises(ImageError, match=r"^is damaged|^is truncated"):
            read(cut.rstrip(b"\xff") + end)


@pytest.mark.parametrize("at", [0.05, 0.3, 0.55, 0.7])
def test_zeros_inside_the_image_data_fail(read, photo, at):
    start = first_scan(photo)
    place = start + int((len(photo) - start) * at)
    with pytest.raises(ImageError, match=r"^is damaged|^is truncated"):
        read(photo[:place] + bytes(3000) + photo[place + 3000 :])


def test_image_data_that_end_in_zeros_fail(read, photo):
    half = (first_scan(photo) + len(photo)) // 2
    with pytest.raises(ImageError, match=r"^is damaged|^is truncated"):
        read(photo[:half] + bytes(len(photo) - 2 - half) + photo[-2:])


def test_a_lost_restart_interval_fails(read, encode, picture):
    data = encode(picture.resize((290, 230)), "JPEG", restart_marker_rows=1)
    third, fourth = (data.index(bytes([0xFF, 0xD0 + number])) for number in (3, 4))
    with pytest.raises(ImageError, match="is damaged: image data are missing or wrong"):
        read(data[:third] + data[fourth:])


def test_a_progressive_file_without_its_last_scans_fails(read, encode, picture):
    data = encode(picture.resize((290, 230)), "JPEG", progressive=True)
    scans = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    assert len(scans) > 5
    for start in scans[1:]:
        tables = data.rfind(b"\xff\xc4", 0, start)  # a table of codes stands before each scan
        with pytest.raises(ImageError, match="is truncated: its last scans are missing"):
            read(data[: tables if tables > scans[scans.index(start) - 1] else start] + b"\xff\xd9")


@pytest.mark.parametrize("options", [{"bitspersample": 12}, {"bitspersample": 16, "lossless": True}])
def test_more_than_8_bits_that_end_early_fail(read, picture, options):
    stored = np.asarray(picture.resize((290, 230))).astype(np.uint16) << (options["bitspersample"] - 8)
    data = imagecodecs.jpeg8_encode(stored, level=95, **options)
    whole = read(data)
    assert whole.bit_depth == options["bitspersample"]
    start = first_scan(data)
    for kept in (0.1, 0.5, 0.9):
        cut = data[: start + int((len(data) - start) * kept)].rstrip(b"\xff")
        with pytest.raises(ImageError, match="is damaged: image data are missing"):
            read(cut + b"\xff\xd9")


def test_unusual_subsampling_is_read_and_checked(read, encode, tmp_path):
    """Three columns of luma for one of chroma: TurboJPEG has no name for it."""
    data = bytearray(encode(PIL.Image.new("RGB", (96, 16)), "JPEG", subsampling=0))
    data[data.index(b"\xff\xc0") + 11] = 0x31
    bits = ("001010" * 3 + "0000" * 2) * 8  # all zero, in the standard tables: 8 times 3 blocks of luma
    start = data[: first_scan(data)]
    grey = start + bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)) + b"\xff\xd9"
    np.testing.assert_array_equal(read(bytes(grey)).pixels, pillow(grey, tmp_path))
    with pytest.raises(ImageError, match="is damaged: image data are missing"):
        read(bytes(grey[:-7] + grey[-2:]))


@pytest.mark.parametrize("extra", [b"\x00" * 5, b"stray bytes between segments"])
def test_bytes_between_segments_are_ignored_with_a_note(read, photo, tmp_path, extra):
    for marker in (b"\xff\xdb", b"\xff\xc4", b"\xff\xda"):  # before tables and before a scan
        place = photo.index(marker)
        image = read(photo[:place] + extra + photo[place:])
        np.testing.assert_array_equal(image.pixels, pillow(photo, tmp_path))
        assert image.note == f"{len(extra)} bytes between the segments of the JPEG ignored"


@pytest.mark.parametrize("count", [9, 700])
def test_padding_before_the_end_is_ignored_with_a_note(read, photo, tmp_path, count):
    image = read(photo[:-2] + bytes(count) + photo[-2:])
    np.testing.assert_array_equal(image.pixels, pillow(photo, tmp_path))
    assert image.note == "padding before the end of the JPEG ignored"


def test_a_few_bytes_that_are_left_over_are_doubtful(read, photo, tmp_path):
    image = read(photo[:-2] + b"123456789" + photo[-2:])
    np.testing.assert_array_equal(image.pixels, pillow(photo, tmp_path))
    assert image.note == "a few bytes are left over after the last pixel of the JPEG: a part of it may be wrong"


def test_many_bytes_that_are_left_over_are_damage(read, photo):
    with pytest.raises(ImageError, match="bytes of image data are left over after its last pixel"):
        read(photo[:-2] + bytes(range(1, 100)) + photo[-2:])


def test_bytes_after_the_end_are_ignored_with_a_note(read, photo, tmp_path):
    image = read(photo + photo)  # as the second picture of a stereo camera
    np.testing.assert_array_equal(image.pixels, pillow(photo, tmp_path))
    assert image.note == f"{len(photo):,} bytes after the end of the JPEG ignored"


def test_oddities_of_headers_do_not_hide_damage(read, encode, picture, tmp_path):
    """libjpeg reports its first warning only."""
    data = bytearray(encode(picture.resize((290, 230)), "JPEG"))
    data[data.index(b"JFIF") + 5] = 7  # a version that does not exist
    data[first_scan(data) - 2] = 5  # a scan of some coefficients, which baseline does not know
    np.testing.assert_array_equal(read(bytes(data)).pixels, pillow(bytes(data), tmp_path))
    half = (first_scan(data) + len(data)) // 2
    with pytest.raises(ImageError, match="is damaged: image data are missing"):
        read(bytes(data[:half].rstrip(b"\xff") + data[-2:]))


def test_many_segments_are_refused_soon(read, encode, picture):
    data = encode(picture, "JPEG")
    with pytest.raises(ImageError, match="has more than 10,000 segments"):
        read(data[:2] + b"\xff\xfe\x00\x02" * 1_000_000 + data[2:])


@pytest.mark.parametrize("transform", [None, 0, 2])
def test_cmyk_is_inverted_as_all_readers_do(read, encode, picture, tmp_path, transform):
    """Adobe's programs store 255 - ink; files without their marker do as well."""
    inks = picture.convert("CMYK")
    data = encode(inks, "JPEG", quality=100, subsampling=0)
    place = data.index(b"\xff\xee")
    if transform is None:
        data = data[:place] + data[place + 16 :]
        assert b"Adobe" not in data
    else:
        data = data[: place + 15] + bytes([transform]) + data[place + 16 :]
    (tmp_path / "reference.jpg").write_bytes(data)
    with PIL.Image.open(tmp_path / "reference.jpg") as reference:
        expected = np.asarray(reference.convert("RGB")).astype(int)
    np.testing.assert_allclose(read(data).pixels.astype(int), expected, atol=1)


@pytest.mark.parametrize("shape", [(23, 29), (23, 29, 3)])
@pytest.mark.parametrize("bits", [8, 16])
def test_jpeg_ls_is_read(read, noise16, shape, bits):
    stored = np.ascontiguousarray((noise16 >> (16 - bits)).astype(f"u{bits // 8}")[..., : 3 if len(shape) == 3 else 1])
    data = imagecodecs.jpegls_encode(stored.reshape(shape))
    image = read(data, name="scan.jpg")
    assert (image.bit_depth, image.note) == (bits, None)
    np.testing.assert_array_equal(image.pixels, stored)
    with pytest.raises(ImageError, match=r"cannot be decoded as JPEG: .*Invalid JPEG-LS stream"):
        read(data[: len(data) // 2].rstrip(b"\xff") + b"\xff\xd9")
    with pytest.raises(ImageError, match=r"is truncated: ends after .* without an end-of-image marker"):
        read(data[: len(data) // 2])
