from __future__ import annotations

import numpy as np
import pytest

from pipelines.images import Image, to_model_input
from pipelines.images.bits import shrink, stretch


def image(pixels: np.ndarray, *, bit_depth: int | None = None, alpha: np.ndarray | None = None) -> Image:
    return Image(pixels, alpha, bit_depth or pixels.itemsize * 8, "", None, None, None)


EIGHT, SIXTEEN = np.dtype(np.uint8), np.dtype(np.uint16)


@pytest.mark.parametrize("dtype", [EIGHT, SIXTEEN])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_fits_is_handed_over_as_it_is(noise16, dtype, channels):
    pixels = noise16[..., :channels].astype(dtype)
    converted, note = to_model_input(image(pixels), channels=channels, dtype=dtype)
    assert converted is pixels
    assert note is None


def test_grey_becomes_rgb_by_repetition(noise16):
    converted, note = to_model_input(image(noise16[..., :1]), channels=3, dtype=SIXTEEN)
    np.testing.assert_array_equal(converted, noise16[..., :1].repeat(3, axis=2))
    assert note is None
    assert converted.flags.c_contiguous


def test_luma_of_8_bits_is_pillows(picture):
    converted, _ = to_model_input(image(np.asarray(picture)), channels=1, dtype=EIGHT)
    np.testing.assert_array_equal(converted[..., 0], np.asarray(picture.convert("L")))


def test_luma_of_16_bits_is_rec_601_in_16_bits():
    # More rows than are converted at a time, and the extremes, where sums could overflow.
    pixels = np.random.default_rng(1).integers(0, 65536, (200, 30, 3), dtype=np.uint16)
    pixels[0, 0], pixels[-1, -1] = 65535, 0
    converted, note = to_model_input(image(pixels), channels=1, dtype=SIXTEEN)
    np.testing.assert_allclose(converted[..., 0], pixels @ [0.299, 0.587, 0.114], atol=1.5)
    assert (converted[0, 0, 0], converted[-1, -1, 0]) == (65535, 0)
    assert note is None


@pytest.mark.parametrize("dtype", [EIGHT, SIXTEEN])
def test_grey_through_rgb_and_back_is_the_identity(dtype):
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(-1, 64, 1)
    rgb, _ = to_model_input(image(values), channels=3, dtype=dtype)
    grey, _ = to_model_input(image(rgb), channels=1, dtype=dtype)
    np.testing.assert_array_equal(grey, values)


def test_up_to_16_bits_and_down_again_is_the_identity():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    up, note = to_model_input(image(values), channels=1, dtype=SIXTEEN)
    assert (up.min(), up.max(), up.dtype) == (0, 65535, SIXTEEN)
    assert note == "8-bit file scaled to 16 bits"
    down, note = to_model_input(image(up), channels=1, dtype=EIGHT)
    np.testing.assert_array_equal(down, values)
    assert note == "16-bit file scaled to 8 bits"


def test_down_to_8_bits_rounds_every_value():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    down, _ = to_model_input(image(values), channels=1, dtype=EIGHT)
    np.testing.assert_array_equal(down, np.round(values / 257).astype(np.uint8))


def test_the_note_names_the_depth_of_the_file():
    _, note = to_model_input(image(np.zeros((2, 2, 1), np.uint8), bit_depth=1), channels=1, dtype=SIXTEEN)
    assert note == "1-bit file scaled to 16 bits"


def test_luma_is_taken_before_the_depth_is_reduced():
    pixels = np.array([[[300, 300, 44000]]], np.uint16)
    converted, _ = to_model_input(image(pixels), channels=1, dtype=EIGHT)
    assert converted.tolist() == [[[round((300 * 0.886 + 44000 * 0.114) / 257)]]]


def test_the_colour_under_alpha_is_used_as_it_is(picture):
    pixels = np.asarray(picture)
    transparent = image(pixels, alpha=np.zeros((23, 29, 1), np.uint8))
    np.testing.assert_array_equal(to_model_input(transparent, channels=3, dtype=EIGHT)[0], pixels)


@pytest.mark.parametrize(
    ("channels", "dtype", "message"),
    [(2, EIGHT, r"channels is 2: 1 \(grey\) and 3"), (3, np.dtype(np.float32), "dtype is float32: uint8 and uint16")],
)
def test_other_targets_are_refused(channels, dtype, message):
    with pytest.raises(ValueError, match=message):
        to_model_input(image(np.zeros((2, 2, 3), np.uint8)), channels=channels, dtype=dtype)


@pytest.mark.parametrize(("largest", "told"), [(4095, True), (4096, False), (0, True)])
@pytest.mark.parametrize("dtype", [EIGHT, SIXTEEN])
def test_bits_that_a_camera_leaves_empty_are_told(largest: int, told: bool, dtype):
    values = np.full((4, 4, 1), largest, np.uint16)
    _, note = to_model_input(image(values), channels=1, dtype=dtype)
    assert ("its values end at" in (note or "")) == told
    _, note = to_model_input(image(values.astype(np.uint8)), channels=1, dtype=dtype)
    assert "its values end at" not in (note or "")


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_fewer_bits_are_brought_to_all_and_back_again(bits: int):
    values = np.arange(1 << bits, dtype=np.uint16).reshape(-1, 32, 1)
    wide = stretch(values, bits)
    assert (wide.min(), wide.max()) == (0, 65535)
    np.testing.assert_array_equal(shrink(wide, bits), values)
    found, note = to_model_input(image(values), channels=1, dtype=EIGHT, bits=bits)
    assert (found.min(), found.max()) == (0, 255)
    assert note == f"16-bit file scaled to 8 bits; read as {bits} bits"


def test_bits_are_those_of_16_bit_files_alone():
    pixels = np.full((4, 4, 1), 700, np.uint16)
    for depth in (8, 12):  # 12: the decoder knows the range, and has scaled it
        found, _ = to_model_input(image(pixels, bit_depth=depth), channels=1, dtype=SIXTEEN, bits=12)
        np.testing.assert_array_equal(found, pixels)
    found, _ = to_model_input(image(pixels * 10), channels=1, dtype=SIXTEEN, bits=12)  # which no 12 bits hold
    np.testing.assert_array_equal(found, pixels * 10)
