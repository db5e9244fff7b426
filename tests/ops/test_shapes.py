"""Pictures with known factors: all different, inside the picture, and what each factor does."""

from __future__ import annotations

import numpy as np
import pytest
from lectures.shapes import FACTORS, all_factors, draw_sprite


def centre_of(picture: np.ndarray) -> np.ndarray:
    weight = picture / picture.sum()
    return np.array([(weight.sum(axis=axis) * (np.arange(32) + 0.5)).sum() for axis in (0, 1)])


def test_there_is_one_row_for_each_combination() -> None:
    factors = all_factors()
    assert factors.shape == (3 * 4 * 4 * 16 * 16, 5)
    assert len(np.unique(factors, axis=0)) == len(factors)
    assert [len(np.unique(column)) for column in factors.T] == list(FACTORS.values())


def test_no_two_look_alike_and_all_lie_inside_with_soft_edges() -> None:
    pictures = [draw_sprite(row) for row in all_factors()]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    border = max(max(p[0].max(), p[-1].max(), p[:, 0].max(), p[:, -1].max()) for p in pictures)
    assert border == 0
    some = pictures[0]
    assert some.max() == 255
    assert ((some > 0) & (some < 255)).any()


@pytest.mark.parametrize("shape", [0, 1, 2])
def test_places_move_and_sizes_grow(shape: int) -> None:
    here, there = draw_sprite(np.array([shape, 1, 2, 3, 8])), draw_sprite(np.array([shape, 1, 2, 9, 8]))
    step = 32 * (0.73 - 0.27) / 15
    np.testing.assert_allclose(centre_of(there) - centre_of(here), [6 * step, 0], atol=0.02)
    areas = [draw_sprite(np.array([shape, size, 0, 8, 8])).sum() for size in range(4)]
    assert areas[3] / areas[0] == pytest.approx((0.22 / 0.13) ** 2, rel=0.03)


@pytest.mark.parametrize("shape", [0, 1, 2])
def test_the_last_orientation_is_a_quarter_turn(shape: int) -> None:
    upright, turned = (draw_sprite(np.array([shape, 3, o, 7.5, 7.5])).astype(int) for o in (0, 3))
    assert np.abs(np.rot90(upright, -1) - turned).max() <= 16  # a point on the very edge of a pixel
    assert np.abs(upright - turned).max() == 255
