"""Windows cover an image to its borders, share what was asked for, and their maps make one map without seams."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipelines.images.windows import BlendedMap, Windows

SIZES = [(300, 1000), (256, 256), (257, 300), (64, 700), (3000, 4000), (10, 10)]


def blended(windows: Windows, pixels: np.ndarray, most: int = 1) -> np.ndarray:
    result, number = BlendedMap(windows), 0
    for part in windows.cut(pixels, most):
        for each in part:
            result.add(number, each[..., 0])
            number += 1
    assert number == len(windows.places)
    return result.values


@pytest.mark.parametrize("image", SIZES)
def test_windows_reach_both_borders_and_share_enough(image: tuple[int, int]) -> None:
    windows = Windows.over(image, (256, 192), 64)
    for starts, length, side in ((windows.tops, image[0], 256), (windows.lefts, image[1], 192)):
        assert starts[0] == 0
        assert starts[-1] == max(0, length - side)
        assert all(second - first <= side - 64 for first, second in itertools.pairwise(starts))
        assert len(starts) < 3 or starts[-1] > (len(starts) - 2) * (side - 64)  # with one fewer, they would share less


@pytest.mark.parametrize("image", SIZES[:4])
@pytest.mark.parametrize("most", [1, 5])
def test_the_maps_of_windows_of_a_map_are_that_map(image: tuple[int, int], most: int) -> None:
    values = np.random.default_rng(0).standard_normal((*image, 1)).astype(np.float32)
    assert np.abs(blended(Windows.over(image, (128, 96), 32), values, most) - values[..., 0]).max() < 1e-5


def test_where_windows_disagree_there_is_no_step() -> None:
    windows = Windows.over((64, 112), (64, 64), 16)
    result = BlendedMap(windows)
    result.add(0, np.zeros((64, 64), np.float32))
    result.add(1, np.ones((64, 64), np.float32))
    row = result.values[30]
    assert row[47] == 0
    assert row[64] == 1
    assert np.diff(row).max() == pytest.approx(1 / 16, abs=0.01)  # evenly over what they share


def test_an_image_smaller_than_a_window_is_mirrored_until_it_fills_one() -> None:
    values = np.arange(30 * 20, dtype=np.uint16).reshape(30, 20, 1)
    windows = Windows.over((30, 20), (64, 64), 16)
    (cut,) = windows.cut(values)
    assert cut.shape == (1, 64, 64, 1)
    assert np.array_equal(cut[0, :30, :20], values)
    assert np.array_equal(cut[0, 30:60, :20], values[::-1])
    assert np.array_equal(cut[0, :30, 20:40], values[:, ::-1])
    assert blended(windows, values.astype(np.float32)).shape == (30, 20)
