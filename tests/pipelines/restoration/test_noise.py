from __future__ import annotations

import numpy as np
import pytest
import skimage.data
from scipy.ndimage import gaussian_filter

from pipelines.restoration.noise import estimate_noise, is_left


def noisy(sigma: float, coarse: float = 0.0, largest: int = 255) -> np.ndarray:
    """A photograph of a sky and a coffee cup's like, with noise of so many 8-bit levels."""
    noise = np.random.default_rng(0).normal(0, 1, (600, 400, 3))
    noise = gaussian_filter(noise, (coarse, coarse, 0)) if coarse else noise
    picture = np.linspace(60, 190, 600)[:, None, None] + sigma * noise / noise.std()
    return np.clip(picture / 255 * largest, 0, largest).round().astype(np.uint8 if largest == 255 else np.uint16)


def levels(pixels: np.ndarray) -> float:
    noise = estimate_noise(pixels)
    assert noise is not None
    return 255 * noise


@pytest.mark.parametrize("sigma", [3, 10, 25])
@pytest.mark.parametrize("largest", [255, 65535])
def test_white_noise_is_found_whatever_the_depth(sigma: float, largest: int) -> None:
    assert levels(noisy(sigma, largest=largest)) == pytest.approx(sigma, rel=0.15)


def test_noise_that_is_coarser_than_pixels_is_found_in_part() -> None:
    assert levels(noisy(10, coarse=0.8)) > 4


def test_a_smooth_picture_has_none_and_a_small_one_tells_nothing() -> None:
    assert levels(noisy(0)) < 0.5
    assert estimate_noise(noisy(10)[:127, :128]) is None
    assert estimate_noise(noisy(10)[:128, :128]) is not None


def test_it_is_the_flat_part_of_a_photograph_that_counts() -> None:
    photograph = skimage.data.coffee()
    assert levels(photograph) < 2


def test_noise_is_left_where_most_of_what_should_have_gone_is_there() -> None:
    assert is_left(0.02, 0.018, 1.0)
    assert not is_left(0.02, 0.005, 1.0)
    assert not is_left(0.001, 0.001, 1.0)  # there was hardly any
    assert not is_left(0.02, 0.014, 0.4)  # little was asked for
    assert is_left(0.02, 0.0195, 0.4)
