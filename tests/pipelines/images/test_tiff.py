from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile

from pipelines.errors import ImageError


def tiff(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def with_short(data: bytes, tag: int, value: int) -> bytes:
    """Change a tag of type SHORT in the first directory of a little-endian file."""
    (start,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, start)
    for offset in range(start + 2, start + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", data, offset)[0] == tag:
            return data[: offset + 8] + struct.pack("<H", value) + data[offset + 10 :]
    raise KeyError(tag)


RGB_OPTIONS = [
    {},
    {"byteorder": ">"},
    {"bigtiff": True},
    {"compression": "lzw"},
    {"compression": "zlib", "predictor": True},
    {"compression": "packbits", "rowsperstrip": 5},
    {"compression": "zstd"},
    {"tile": (16, 16), "compression": "zlib"},
]


@pytest.mark.parametrize("options", RGB_OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rgb_is_kept_to_the_bit(read, noise16, options, dtype):
    stored = noise16.astype(dtype)
    image = read(tiff(stored, photometric="rgb", **options))
    assert (image.bit_depth, image.pixels.dtype, image.note) == (stored.itemsize * 8, dtype, None)
    np.testing.assert_array_equal(image.pixels, stored)


@pytest.mark.parametrize("options", RGB_OPTIONS, ids=str)
def test_16_bit_grey_is_kept_to_the_bit(read, noise16, options):
    image = read(tiff(noise16[..., 1], photometric="minisblack", **options))
    assert image.bit_depth == 16
    np.testing.assert_array_equal(image.pixels, noise16[..., 1:2])


def test_planes_are_interleaved(read, noise16):
    data = tiff(np.moveaxis(noise16, -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read(data).pixels, noise16)


def test_white_is_zero_is_inverted(read, noise16):
    data = tiff(noise16[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(read(data).pixels[..., 0], 65535 - noise16[..., 0])


@pytest.mark.parametrize("compression", [None, "group3", "group4", "tiff_ccitt", "tiff_lzw"])
def test_one_bit_becomes_0_and_255(read, encode, picture, compression):
    stored = picture.convert("1")
    image = read(encode(stored, "TIFF", compression=compression))
    assert image.bit_depth == 1
    np.testing.assert_array_equal(image.pixels[..., 0], np.where(np.asarray(stored), 255, 0))


@pytest.mark.parametrize(("bits", "dtype", "white"), [(4, np.uint8, 255), (12, np.uint16, 65535)])
def test_packed_samples_are_scaled_to_the_full_range(read, bits, dtype, white):
    stored = np.arange(2**bits, dtype=dtype).reshape(-1, 16)
    image = read(tiff(stored, photometric="minisblack", bitspersample=bits))
    assert (image.bit_depth, image.pixels.dtype) == (bits, dtype)
    exact = stored.astype(float) * white / (2**bits - 1)
    np.testing.assert_allclose(image.pixels[..., 0], exact, atol=0.5)


def test_a_palette_becomes_rgb(read, encode, picture):
    stored = picture.quantize(50)
    np.testing.assert_array_equal(read(encode(stored, "TIFF")).pixels, np.asarray(stored.convert("RGB")))


def test_jpeg_inside_tiff(read, picture):
    data = tiff(np.asarray(picture), photometric="rgb", compression="jpeg")
    with PIL.Image.open(io.BytesIO(data)) as reference:  # decoded by libtiff
        np.testing.assert_array_equal(read(data).pixels, np.asarray(reference))


def test_jpeg_inside_tiff_that_ends_early_fails(read, picture):
    data = bytearray(tiff(np.asarray(picture), photometric="rgb", compression="jpeg"))
    end = data.rindex(b"\xff\xd9")
    data[end - 40 : end + 2] = bytes(42)
    with pytest.raises(ImageError, match="is damaged: a strip or tile ends early"):
        read(bytes(data))


def segment_of(data: bytes) -> slice:
    """Where the first strip or tile is."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        start, count = file.pages.first.dataoffsets[0], file.pages.first.databytecounts[0]
    return slice(start, start + count)


@pytest.mark.parametrize("options", [{}, {"tile": (64, 64)}, {"rowsperstrip": 48}])
@pytest.mark.parametrize("bits", [8, 12])
def test_jpeg_inside_tiff_that_lacks_image_data_fails(read, picture, options, bits):
    stored = np.asarray(picture.resize((150, 110))).astype(np.uint8 if bits == 8 else np.uint16) << (bits - 8)
    data = bytearray(tiff(stored, photometric="rgb", compression="jpeg", bitspersample=bits, **options))
    assert read(bytes(data)).pixels.shape == (110, 150, 3)
    segment = segment_of(bytes(data))
    middle = (segment.start + segment.stop) // 2
    data[middle : segment.stop] = b"\xff\xd9" + bytes(segment.stop - middle - 2)
    with pytest.raises(ImageError, match=r"has a strip or tile that is damaged: image data are missing"):
        read(bytes(data))


def test_jpeg_inside_tiff_with_common_tables(read, encode, picture):
    """libtiff stores the tables of all strips once."""
    stored = picture.resize((150, 110))
    data = bytearray(encode(stored, "TIFF", compression="jpeg"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert file.pages.first.jpegtables
    with PIL.Image.open(io.BytesIO(data)) as reference:
        np.testing.assert_array_equal(read(bytes(data)).pixels, np.asarray(reference))
    segment = segment_of(bytes(data))
    middle = (segment.start + segment.stop) // 2
    data[middle : segment.stop - 2] = bytes(segment.stop - middle - 2)
    with pytest.raises(ImageError, match=r"has a strip or tile that is damaged"):
        read(bytes(data))


def test_cmyk_jpeg_inside_tiff_is_not_inverted(read, encode, picture):
    """TIFF has a rule: 0 is no ink."""
    inks = picture.convert("CMYK")
    data = encode(inks, "TIFF", compression="jpeg", quality=100)
    with PIL.Image.open(io.BytesIO(data)) as reference:
        expected = np.asarray(reference.convert("RGB")).astype(int)
    np.testing.assert_allclose(read(data).pixels.astype(int), expected, atol=1)


def test_jpeg_xr_inside_tiff_that_was_cut_fails(read, picture):
    data = tiff(np.asarray(picture), photometric="rgb", compression="jpegxr")
    assert read(data).pixels.shape == (23, 29, 3)
    count = segment_of(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tag = file.pages.first.tags[279]
    half = ((count.stop - count.start) // 2).to_bytes(2, "little")
    with pytest.raises(ImageError, match=r"is truncated: a strip or tile of JPEG XR has"):
        read(data[: tag.valueoffset] + half + data[tag.valueoffset + 2 :])


def test_an_unknown_tag_of_jpeg_xr_prints_nothing(read, picture, capfd):
    data = tiff(np.asarray(picture), photometric="rgb", compression="jpegxr")
    tag = data.index(b"\x01\xbc\x01\x00", segment_of(data).start)  # its pixel format, of type 1
    with pytest.raises(ImageError, match="has tag 30583 in a strip or tile of JPEG XR"):
        read(data[:tag] + b"\x77\x77" + data[tag + 2 :])
    assert capfd.readouterr() == ("", "")


def test_channels_count_against_the_limit(read, noise16):
    stored = np.repeat(noise16.astype(np.uint8), 20, axis=2)
    data = tiff(stored, photometric="rgb", planarconfig="contig", extrasamples=["unspecified"] * 57)
    assert read(data).note == "channels that are neither colour nor alpha ignored: 57"
    with pytest.raises(ImageError, match="has 60 channels, too many for its size: it is 29 x 345 = 10,005 pixels"):
        read(data, max_pixels=10_000)


def test_a_sparse_file_has_a_note(read):
    stored = np.zeros((64, 64), np.uint8)
    stored[:, 32:] = 7
    data = bytearray(tiff(stored, photometric="minisblack", tile=(32, 32), compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        offsets, counts = file.pages.first.tags[324], file.pages.first.tags[325]
    for tag in (offsets, counts):
        data[tag.valueoffset : tag.valueoffset + tag.valuebytecount // 4] = bytes(tag.valuebytecount // 4)
    image = read(bytes(data))
    np.testing.assert_array_equal(image.pixels[..., 0], stored)
    assert image.note == "sparse TIFF: 1 of 4 strips or tiles are empty"


def test_plain_alpha_is_split_off(read, noise16):
    stored = np.concatenate([noise16, noise16[..., :1]], axis=2)
    image = read(tiff(stored, photometric="rgb", extrasamples=["unassalpha"]))
    np.testing.assert_array_equal(image.pixels, noise16)
    np.testing.assert_array_equal(image.alpha, noise16[..., :1])


def test_multiplied_alpha_is_undone(read):
    stored = np.array([[[100, 50, 0, 200], [7, 7, 7, 0], [9, 8, 7, 255]]], np.uint8)
    image = read(tiff(stored, photometric="rgb", extrasamples=["assocalpha"]))
    assert image.pixels.tolist() == [[[128, 64, 0], [7, 7, 7], [9, 8, 7]]]
    assert image.alpha[..., 0].tolist() == [[200, 0, 255]]


def test_a_channel_of_unknown_meaning_is_dropped_with_a_note(read, noise16):
    stored = np.concatenate([noise16, noise16[..., :1]], axis=2)
    image = read(tiff(stored, photometric="rgb", extrasamples=["unspecified"]))
    np.testing.assert_array_equal(image.pixels, noise16)
    assert image.alpha is None
    assert image.note == "channels that are neither colour nor alpha ignored: 1"


def test_of_several_pages_the_first_is_taken(read, encode, picture):
    image = read(encode(picture, "TIFF", save_all=True, append_images=[picture.rotate(90), picture.rotate(180)]))
    np.testing.assert_array_equal(image.pixels, np.asarray(picture))
    assert image.note == "TIFF with 3 pages: the first"


def test_a_chain_of_pages_that_bites_its_tail_ends(read, picture):
    data = bytearray(tiff(np.asarray(picture), photometric="rgb"))
    (start,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * entries, start)  # the next page is this one
    image = read(bytes(data))
    assert image.note is None
    np.testing.assert_array_equal(image.pixels, np.asarray(picture))


def test_resolution_orientation_and_profile(read, picture):
    profile = imagecodecs.cms_profile("srgb")
    options: dict[str, Any] = {"photometric": "rgb", "resolution": (40, 20), "resolutionunit": 3, "iccprofile": profile}
    data = tiff(np.asarray(picture), extratags=[(274, 3, 1, 6, True)], **options)
    image = read(data)
    np.testing.assert_array_equal(image.pixels, np.rot90(np.asarray(picture), -1))
    assert image.dpi == pytest.approx((50.8, 101.6))  # per centimetre, and turned with the pixels
    assert image.icc == profile


def test_cmyk_of_16_bits(read):
    stored = np.zeros((2, 2, 4), np.uint16)
    stored[0, 1] = (65535, 0, 0, 0)
    stored[1, 0] = (0, 0, 0, 65535)
    stored[1, 1] = (0, 32768, 0, 32768)
    image = read(tiff(stored, photometric="separated"))
    assert image.pixels.tolist() == [[[65535] * 3, [0, 65535, 65535]], [[0] * 3, [32767, 16383, 32767]]]
    assert image.note == "CMYK converted to RGB without a colour profile: colours are approximate"


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        (np.float32, "has 32-bit floating point samples, which have no fixed range: scale it to 8 or 16 bits"),
        (np.float16, "has 16-bit floating point samples"),
        (np.int16, "has 16-bit signed samples"),
        (np.uint32, "has 32-bit unsigned samples"),
    ],
)
def test_samples_without_a_fixed_range_are_refused(read, noise16, dtype, reason):
    with pytest.raises(ImageError, match=reason):
        read(tiff(noise16[..., 0].astype(dtype), photometric="minisblack"))


def test_other_colour_spaces_are_refused(read, picture):
    with pytest.raises(ImageError, match="has the colour space CIELAB: save it as grey, RGB, palette or CMYK"):
        read(with_short(tiff(np.asarray(picture), photometric="rgb"), 262, 8))


def test_plain_ycbcr_is_refused(read, picture):
    with pytest.raises(ImageError, match="has YCbCr without JPEG compression"):
        read(with_short(tiff(np.asarray(picture), photometric="rgb"), 262, 6))


def test_many_grey_channels_are_refused(read, noise16):
    with pytest.raises(ImageError, match="has 3 grey channels of unknown meaning"):
        read(tiff(noise16, photometric="minisblack", planarconfig="contig"))


@pytest.mark.parametrize("options", [{}, {"compression": "lzw"}, {"tile": (16, 16)}], ids=str)
def test_a_truncated_file_fails(read, noise16, options):
    data = tiff(noise16, photometric="rgb", **options)
    with pytest.raises(ImageError, match=r"is truncated: pixels should go on to byte [\d,]+ of [\d,]+"):
        read(data[: len(data) // 2 + 300])


def test_damage_inside_fails(read, noise16):
    data = bytearray(tiff(noise16, photometric="rgb", compression="zlib"))
    data[-len(data) // 3] ^= 0xFF
    with pytest.raises(ImageError, match="cannot be decoded as TIFF"):
        read(bytes(data))


def test_strips_that_are_not_listed_fail(read, noise16):
    data = tiff(noise16, photometric="rgb", compression="lzw")  # in one strip
    with pytest.raises(ImageError, match="is damaged: it lists 1 of 3 strips or tiles"):
        read(with_short(data, 278, 10))


def test_the_limit_holds_before_decoding(read, encode):
    data = encode(PIL.Image.new("1", (20_000, 20_000)), "TIFF", compression="group4")
    assert len(data) < 100_000
    with pytest.raises(ImageError, match="is 20000 x 20000 = 400 million pixels"):
        read(data, max_pixels=250_000_000)


def test_the_oddities_that_tifffile_logs_stay_quiet(read, noise16, capfd):
    data = tiff(noise16, photometric="rgb")
    (start,) = struct.unpack_from("<I", data, 4)
    with pytest.raises(ImageError):
        read(data[: start + 20])
    assert capfd.readouterr().err == ""


def test_a_long_tag_of_numbers_that_overflow_prints_nothing(read):
    array = np.zeros((64, 64, 3), np.uint8)
    array[0, 0] = 9
    data = bytearray(tiff(array))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        at, pixels = page.tags["BitsPerSample"].offset, page.dataoffsets[0]
    data[at + 4 : at + 12] = struct.pack("<II", 2051, pixels)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(ImageError):
            read(bytes(data))
    assert not seen
