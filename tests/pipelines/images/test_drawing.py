"""Pixels as pictures for people: 16 bits are stretched, thumbnails and heat maps fit, and files decode."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines.images.drawing import png, thumbnail, to_8_bits


def decoded(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_sixteen_bits_are_stretched_and_eight_are_left_alone() -> None:
    rng = np.random.default_rng(1)
    dim = rng.integers(300, 4096, (200, 300, 3)).astype(np.uint16)
    dim[0, 0], dim[0, 1] = 65535, 0  # a hot and a dead pixel
    shown = to_8_bits(dim)
    assert shown.dtype == np.uint8
    assert (shown.min(), shown.max()) == (0, 255)
    assert 120 < shown.mean() < 135
    order = np.argsort(dim.ravel(), kind="stable")
    assert (np.diff(shown.ravel()[order].astype(int)) >= 0).all()
    eight = rng.integers(100, 110, (4, 4, 1)).astype(np.uint8)
    np.testing.assert_array_equal(to_8_bits(eight), eight)
    assert set(np.unique(to_8_bits(np.full((4, 4, 1), 65535, np.uint16)))) == {255}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(300, 400, (320, 240)), (1000, 500, (160, 320)), (8, 8, (8, 8)), (1, 5000, (320, 1)), (321, 320, (319, 320))],
)
def test_a_heat_map_lies_on_its_thumbnail(height: int, width: int, size: tuple[int, int], dtype: type) -> None:
    image = np.full((height, width, 3), np.iinfo(dtype).max // 2, dtype)
    small = Image.open(io.BytesIO(thumbnail(image)))
    heat = Image.open(io.BytesIO(png(np.zeros((height, width, 4), np.uint8), longest=320)))
    assert (small.format, small.size, small.mode) == ("JPEG", size, "RGB")
    assert (heat.format, heat.size, heat.mode) == ("PNG", size, "RGBA")


def test_a_thumbnail_shows_the_image() -> None:
    ramp = np.linspace(0, 255, 800).astype(np.uint8)[None, :, None].repeat(400, axis=0)
    small = decoded(thumbnail(ramp, longest=200))
    assert small.shape == (100, 200)
    np.testing.assert_allclose(small[50], np.linspace(0, 255, 200), atol=6)
    assert thumbnail(ramp) == thumbnail(ramp)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_keeps_every_pixel(channels: int) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (7, 9, channels)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(png(pixels)).reshape(pixels.shape), pixels)
    np.testing.assert_array_equal(decoded(png(pixels, longest=320)).reshape(pixels.shape), pixels)
