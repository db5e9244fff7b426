from __future__ import annotations

import io
import re
import struct

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile

from pipelines.errors import ImageError


def test_gif_becomes_rgb(read, encode, picture):
    stored = picture.quantize(40)
    image = read(encode(stored, "GIF"), name="a.gif")
    np.testing.assert_array_equal(image.pixels, np.asarray(stored.convert("RGB")))
    assert (image.bit_depth, image.alpha, image.note) == (8, None, None)


def test_grey_gif_has_one_channel(read, encode, picture):
    stored = picture.convert("L")
    np.testing.assert_array_equal(read(encode(stored, "GIF")).pixels, np.asarray(stored)[..., None])


@pytest.mark.parametrize(("kind", "colours"), [("GIF", 64), ("PNG", 64), ("BMP", 64), ("TIFF", 64), ("PNG", 5)])
def test_a_palette_of_greys_gives_a_grey_image(read, encode, picture, kind, colours):
    stored = picture.convert("L").quantize(colours)
    grey = np.asarray(stored.convert("L"))
    options = {} if kind in {"BMP", "TIFF"} else {"transparency": 3}
    image = read(encode(stored, kind, **options))
    np.testing.assert_array_equal(image.pixels, grey[..., None])
    if options:
        np.testing.assert_array_equal(image.alpha[..., 0], np.where(np.asarray(stored) == 3, 0, 255))


def test_of_an_animated_gif_the_first_frame_is_taken(read, encode, picture):
    frames = [picture.rotate(angle).quantize(30) for angle in (0, 90, 180, 270)]
    image = read(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    np.testing.assert_array_equal(image.pixels, np.asarray(frames[0].convert("RGB")))
    assert image.note == "animated GIF: first of 4 frames"


def test_the_transparent_colour_of_a_gif_becomes_alpha(read, encode, picture):
    stored = picture.quantize(8)
    image = read(encode(stored, "GIF", transparency=3))
    np.testing.assert_array_equal(image.alpha[..., 0] == 0, np.asarray(stored) == 3)


def test_a_gif_frame_larger_than_its_canvas_counts_against_the_limit(read, encode, picture):
    data = bytearray(encode(picture.quantize(8), "GIF"))
    place = data.index(b",", 13)
    struct.pack_into("<HHHH", data, place + 1, 0, 0, 20_000, 20_000)
    with pytest.raises(ImageError, match="is 20000 x 20000 = 400 million pixels"):
        read(bytes(data), max_pixels=250_000_000)


def test_a_gif_frame_larger_than_its_canvas_warns_about_nothing(read):
    # More pixels than Pillow's own limit, which is lower than ours.
    data = (
        b"GIF89a"
        + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0)
        + bytes(6)
        + b","
        + struct.pack("<HHHH", 0, 0, 10_000, 9_500)
    )
    with pytest.raises(ImageError, match="GIF"):  # no pixels follow
        read(data + b"\x00\x02\x00;", max_pixels=250_000_000)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_bmp(read, encode, picture, mode):
    stored = picture.quantize(200) if mode == "P" else picture.convert(mode)
    image = read(encode(stored, "BMP", dpi=(150, 150)))
    expected = np.asarray(stored.convert("RGB" if mode in {"P", "RGB"} else "L")).reshape(23, 29, -1)
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.bit_depth == (1 if mode == "1" else 8)
    assert image.dpi == pytest.approx((150, 150), rel=1e-3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp(read, encode, picture, mode):
    stored = picture.convert(mode)
    if mode == "RGBA":
        stored.putalpha(picture.convert("L"))
    profile = imagecodecs.cms_profile("srgb")
    image = read(encode(stored, "WEBP", lossless=True, exact=True, icc_profile=profile))
    np.testing.assert_array_equal(image.pixels, np.asarray(picture))
    assert image.icc == profile
    if mode == "RGBA":
        np.testing.assert_array_equal(image.alpha[..., 0], np.asarray(picture.convert("L")))


def test_of_an_animated_webp_the_first_frame_is_taken(read, encode, picture):
    image = read(encode(picture, "WEBP", lossless=True, save_all=True, append_images=[picture.rotate(90)]))
    np.testing.assert_array_equal(image.pixels, np.asarray(picture))
    assert image.note == "animated WebP: first of 2 frames"


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"quality": 80, "exif": b"Exif\x00\x00"}])
def test_the_size_of_a_webp_is_checked_first(read, encode, picture, options):
    with pytest.raises(ImageError, match="is 29 x 23 = 667 pixels, above the limit of 666"):
        read(encode(picture, "WEBP", **options), max_pixels=666)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("GIF", "cannot be decoded as GIF: image file is truncated"),
        ("BMP", "cannot be decoded as BMP: image file is truncated"),
        ("WEBP", "is truncated: it holds"),
        ("PPM", "is truncated: it holds"),
        ("JPEG2000", "is truncated: ends after"),
    ],
)
def test_half_a_file_fails(read, encode, picture, kind, reason):
    data = encode(picture.quantize(100) if kind == "GIF" else picture, kind)
    with pytest.raises(ImageError, match=reason):
        read(data[: len(data) // 2])


def test_16_bit_ppm_is_kept_to_the_bit(read, noise16):
    image = read(b"P6\n# big-endian\n29 23\n65535\n" + noise16.astype(">u2").tobytes())
    assert (image.bit_depth, image.pixels.dtype) == (16, np.uint16)
    np.testing.assert_array_equal(image.pixels, noise16)


@pytest.mark.parametrize(
    ("data", "expected", "depth"),
    [
        (b"P1\n# plain\n3 2\n0 1 0\n101\n", [[255, 0, 255], [0, 255, 0]], 1),
        (b"P4 3 2\n" + bytes([0b010_00000, 0b101_11111]), [[255, 0, 255], [0, 255, 0]], 1),
        (b"P2 3 1 15\n0 8\n15", [[0, 136, 255]], 4),
        (b"P5 3 1 100\n" + bytes([0, 50, 100]), [[0, 128, 255]], 7),
        (b"P5 3 1 1023\n" + struct.pack(">3H", 0, 512, 1023), [[0, 32800, 65535]], 10),
        (b"P5 2 1 200\n" + bytes([200, 255]), [[255, 255]], 8),
    ],
)
def test_netpbm_values_are_scaled_to_the_full_range(read, data, expected, depth):
    image = read(data)
    assert image.pixels[..., 0].tolist() == expected
    assert image.bit_depth == depth


def test_plain_ppm(read):
    assert read(b"P3 2 1 255\n1 2 3\n250 251 252\n").pixels.tolist() == [[[1, 2, 3], [250, 251, 252]]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"P5 3 x 255\n", "the header of a P5 file"),
        (b"P5 3 3 70000\n", "largest value is 70000"),
        (b"P2 2 1 255\n1 ", "is truncated: it holds 1 of 2 values"),
        (b"P1 2 1\n1 7", "something else than 0 and 1"),
        (b"P2 2 1 255\n1 two", "cannot be decoded as PNM"),
        (b"P5 99999 99999 255\n", "is 99999 x 99999"),
    ],
)
def test_damaged_netpbm(read, data, reason):
    with pytest.raises(ImageError, match=reason):
        read(data)


@pytest.mark.parametrize("container", ["JP2", "J2K"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_2000_of_16_bits_is_kept_to_the_bit(read, noise16, container, channels):
    stored = np.ascontiguousarray(noise16[..., :channels].squeeze())
    image = read(imagecodecs.jpeg2k_encode(stored, codecformat=container, level=0))
    assert (image.bit_depth, image.pixels.dtype) == (16, np.uint16)
    np.testing.assert_array_equal(image.pixels, noise16[..., :channels])


def test_jpeg_2000_agrees_with_pillow(read, encode, picture):
    stored = picture.copy()
    stored.putalpha(picture.convert("L"))
    data = encode(stored, "JPEG2000")
    image = read(data)
    with PIL.Image.open(io.BytesIO(data)) as reference:
        expected = np.asarray(reference)
    np.testing.assert_array_equal(np.concatenate([image.pixels, image.alpha], axis=2), expected)


def test_the_size_of_a_jpeg_2000_is_checked_first(read, encode, picture):
    with pytest.raises(ImageError, match="is 29 x 23 = 667 pixels, above the limit of 600"):
        read(encode(picture, "JPEG2000"), max_pixels=600)


def parts_of(data: bytes) -> list[int]:
    """Where the parts of tiles begin."""
    return [found.start() for found in re.finditer(rb"\xff\x90\x00\x0a", data)]


@pytest.mark.parametrize("container", ["JP2", "J2K"])
def test_a_jpeg_2000_that_lacks_tiles_fails(read, encode, picture, container):
    data = encode(picture.resize((150, 110)), "JPEG2000", tile_size=(64, 64), no_jp2=container == "J2K")
    assert read(data).pixels.shape == (110, 150, 3)
    parts = parts_of(data)
    assert len(parts) == 6
    for number in (1, 4):
        with pytest.raises(ImageError, match=f"is damaged: {6 - number} of 6 tiles lack data"):
            read(data[: parts[number]] + b"\xff\xd9")
    with pytest.raises(ImageError, match="is damaged: 1 of 6 tiles lack data"):
        read(data[: parts[2]] + data[parts[3] :])


def test_a_jpeg_2000_inside_tiff_that_lacks_tiles_fails(read, encode, picture):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.asarray(picture), photometric="rgb", compression="jpeg2000")
    data = bytearray(buffer.getvalue())
    assert read(bytes(data)).pixels.shape == (23, 29, 3)
    (part,) = parts_of(bytes(data))
    data[part + 11] = 2  # there should be another part
    with pytest.raises(ImageError, match="is damaged: 1 of 1 tiles lack data"):
        read(bytes(data))


def with_profile(data: bytes, profile: bytes) -> bytes:
    """A JP2 file with its colour space replaced by a profile."""
    header, colour = data.index(b"jp2h") - 4, data.index(b"colr") - 4
    size, after = (int.from_bytes(data[at : at + 4], "big") for at in (header, colour))
    inside = data[header + 8 : colour] + data[colour + after : header + size]
    inside += struct.pack(">I4s3s", 11 + len(profile), b"colr", b"\x02\x00\x00") + profile
    return data[:header] + struct.pack(">I4s", 8 + len(inside), b"jp2h") + inside + data[header + size :]


def test_the_profile_of_a_jpeg_2000_stays_with_its_pixels(read, encode, picture, capfd):
    """OpenJPEG converts them to sRGB, and prints what it cannot convert."""
    profile = imagecodecs.cms_profile("adobergb")
    data = encode(picture, "JPEG2000")
    image = read(with_profile(data, profile))
    np.testing.assert_array_equal(image.pixels, np.asarray(picture))
    assert image.icc == profile
    for broken in (profile[:16] + b"CMYK" + profile[20:], b"no profile" * 20):
        np.testing.assert_array_equal(read(with_profile(data, broken)).pixels, np.asarray(picture))
    assert capfd.readouterr() == ("", "")


def test_a_jpeg_2000_of_odd_subsampling_prints_nothing(read, encode, picture, capfd):
    data = bytearray(encode(picture, "JPEG2000"))
    size = data.index(b"\xff\x4f\xff\x51")
    data[size + 46 : size + 48] = b"\x03\x01"  # of the second component
    with pytest.raises(ImageError, match="has components of different sizes"):
        read(bytes(data))
    assert capfd.readouterr() == ("", "")
