from __future__ import annotations

import io
import itertools
import struct

import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

from pipelines.images.colour import cmyk_to_rgb, to_full_range, unpremultiply, usable_profile


def cmyk_profile() -> bytes:
    """A printer profile of two nodes for each ink, whose cyan and magenta differ from the naive ones."""

    def lab(lightness: float, a: float, b: float) -> bytes:
        return struct.pack(">HHH", round(lightness * 652.8), round((a + 128) * 256), round((b + 128) * 256))

    nodes = b"".join(
        lab(100 * (1 - k) * (1 - 0.3 * c - 0.3 * m - 0.1 * y), (70 * m - 40 * c) * (1 - k), (80 * y - 40 * c) * (1 - k))
        for c, m, y, k in itertools.product((0, 1), repeat=4)
    )
    line = struct.pack(">HH", 0, 65535)
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft2" + bytes(4) + bytes([4, 3, 2, 0]) + identity + struct.pack(">HH", 2, 2) + line * 4 + nodes + line * 3
    white = struct.pack(">3i", 63190, 65536, 54061)
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\x00" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\x00",
        b"wtpt": b"XYZ " + bytes(4) + white,
        b"A2B0": table,
    }
    directory, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        directory += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I", 128 + len(directory) + len(body)) + b"lcms" + bytes([2, 0x40, 0, 0]) + b"prtrCMYKLab "
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + white
    return header.ljust(128, b"\x00") + directory + body


@pytest.fixture
def inks() -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (23, 29, 4), dtype=np.uint8)


def test_an_embedded_profile_is_used_and_agrees_with_imagecms(inks):
    rgb, note = cmyk_to_rgb(inks, cmyk_profile())
    source = PIL.ImageCms.ImageCmsProfile(io.BytesIO(cmyk_profile()))
    reference = PIL.ImageCms.profileToProfile(
        PIL.Image.frombytes("CMYK", (29, 23), inks.tobytes()),
        source,
        PIL.ImageCms.createProfile("sRGB"),
        outputMode="RGB",
        renderingIntent=PIL.ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=PIL.ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    np.testing.assert_allclose(rgb.astype(int), np.asarray(reference).astype(int), atol=1)
    assert np.abs(rgb.astype(int) - cmyk_to_rgb(inks, None)[0]).max() > 50
    assert note == "CMYK converted to RGB with the embedded colour profile"


def test_a_jpeg_brings_its_profile_along(read, encode, picture):
    stored = picture.convert("CMYK")
    image = read(encode(stored, "JPEG", quality=100, subsampling=0, icc_profile=cmyk_profile()))
    expected, note = cmyk_to_rgb(np.asarray(stored), cmyk_profile())
    np.testing.assert_allclose(image.pixels.astype(int), expected.astype(int), atol=8)
    assert (image.note, image.icc) == (note, None)


def test_16_bits_go_through_the_profile_at_16_bits(inks):
    fine, _ = cmyk_to_rgb(inks.astype(np.uint16) * 257, cmyk_profile())
    coarse, _ = cmyk_to_rgb(inks, cmyk_profile())
    assert fine.dtype == np.uint16
    np.testing.assert_allclose(fine / 257, coarse, atol=1)


@pytest.mark.parametrize("icc", [None, b"damaged" * 50, imagecodecs.cms_profile("srgb")], ids=["none", "bad", "rgb"])
def test_without_a_profile_that_works_the_conversion_is_pillows(inks, icc):
    rgb, note = cmyk_to_rgb(inks, icc)
    reference = PIL.Image.frombytes("CMYK", (29, 23), inks.tobytes()).convert("RGB")
    np.testing.assert_allclose(rgb.astype(int), np.asarray(reference).astype(int), atol=1)
    assert note == "CMYK converted to RGB without a colour profile: colours are approximate"


@pytest.mark.parametrize("largest", [1, 3, 15, 100, 255, 256, 1023, 4095, 65535])
def test_the_full_range_is_reached_by_rounding(largest):
    stored = np.arange(largest + 1, dtype=np.uint16)
    scaled = to_full_range(stored, largest)
    top = 255 if largest <= 255 else 65535
    assert scaled.dtype == (np.uint8 if largest <= 255 else np.uint16)
    np.testing.assert_allclose(scaled, stored * (top / largest), atol=0.5)


def test_values_above_the_stated_maximum_become_it():
    assert to_full_range(np.array([100, 101, 255], np.uint8), 100).tolist() == [255, 255, 255]


def test_booleans_are_one_bit():
    assert to_full_range(np.array([False, True]), 1).tolist() == [0, 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_unpremultiply_is_the_rounded_quotient(dtype):
    top = np.iinfo(dtype).max
    generator = np.random.default_rng(3)
    alpha = generator.integers(1, top + 1, (40, 50, 1))
    colour = generator.integers(0, alpha + 1, (40, 50, 3))
    straight = unpremultiply(np.concatenate([colour, alpha], axis=2).astype(dtype))
    np.testing.assert_allclose(straight[..., :3], colour / alpha * top, atol=0.5001)
    np.testing.assert_array_equal(straight[..., 3:], alpha)


def test_a_profile_is_kept_for_its_own_colour_space_only():
    profile = imagecodecs.cms_profile("srgb")
    assert usable_profile(profile, 3) == profile
    assert usable_profile(profile, 1) is None
    assert usable_profile(cmyk_profile(), 3) is None
    assert usable_profile(profile[:100], 3) is None
    assert usable_profile(None, 3) is None
