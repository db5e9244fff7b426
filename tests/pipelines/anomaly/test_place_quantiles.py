"""The share of good places that are as unusual: it is what it says on new good places, and ties count as high."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.anomaly.place_quantiles import GoodPlaces


def test_new_good_places_have_shares_as_rare_as_they_say() -> None:
    generator = np.random.default_rng(0)
    table = GoodPlaces.of(generator.gamma(2.0, size=1_000_000), 1_000_000)
    assert table.smallest == 1 / 1_000_001
    found = table.p_values(generator.gamma(2.0, size=(1000, 4000)))
    for share in (0.4, 0.1, 0.013, 1e-3, 2e-4):
        assert (found <= share).mean() == pytest.approx(share, rel=0.1)


def test_entries_of_the_table_are_conformal_p_values() -> None:
    """(1 + values as high) / (n + 1), at every share of the table; in between it lies in between."""
    good = np.random.default_rng(1).standard_normal(5000).astype(np.float32)
    table = GoodPlaces.of(good, 5000)
    assert table.smallest == 1 / 5001
    assert table.values[-1] == pytest.approx(good.max(), rel=1e-6)
    exact = (1 + (good[None] > np.array(table.values)[:, None]).sum(axis=1)) / 5001
    np.testing.assert_allclose(exact, table.shares, atol=2 / 5001)
    asked = np.linspace(0, 5, 500)
    found = table.p_values(asked)
    assert (np.diff(found) <= 0).all()
    assert found[-1] == table.smallest


def test_pixels_between_places_do_not_make_a_share_rarer() -> None:
    values = np.repeat(np.arange(100.0), 256)  # each place is seen in 256 pixels
    table = GoodPlaces.of(values, 100)
    assert table.smallest == 1 / 101
    assert table.p_values(np.array([1e9])).tolist() == [pytest.approx(1 / 101)]


@pytest.mark.parametrize(
    ("good", "asked", "expected"),
    [
        (np.zeros(999), [-1.0, 0.0, 1.0], [1.0, 1.0, 1e-3]),  # nothing but ties: as high counts
        (np.array([5.0]), [4.0, 5.0, 6.0], [1.0, 0.5, 0.5]),
        (np.r_[np.zeros(900), np.ones(99)], [0.0, 1.0, 2.0], [1.0, 0.1, 1e-3]),
    ],
)
def test_ties_count_as_high(good: NDArray[np.float64], asked: list[float], expected: list[float]) -> None:
    assert GoodPlaces.of(good, len(good)).p_values(np.array(asked)).tolist() == pytest.approx(expected)


def test_odd_values() -> None:
    table = GoodPlaces.of(np.arange(1000.0), 1000)
    found = table.p_values(np.array([[-np.inf, np.inf, np.nan]], np.float32))
    assert found[0, :2].tolist() == pytest.approx([1.0, 1 / 1001])
    assert np.isnan(found[0, 2])


def test_the_table_ends_at_the_highest_good_value_however_many_places_there_are() -> None:
    """Only what is above every good place is said to be."""
    good = np.random.default_rng(3).standard_normal(400_000)
    table = GoodPlaces.of(good, 400_000)
    assert table.values[-1] == pytest.approx(good.max(), rel=1e-6)
    second, above = table.p_values(np.array([np.sort(good)[-2], good.max() + 1]))
    assert second > above == table.smallest == 1 / 400_001


def test_one_odd_good_image_moves_the_rarest_shares_only() -> None:
    good = np.random.default_rng(2).standard_normal(10_000)
    odd = np.r_[good, 500.0]
    plain, other = GoodPlaces.of(good, 10_000), GoodPlaces.of(odd, 10_001)
    assert other.value(1e-3) == pytest.approx(plain.value(1e-3), abs=0.05)
    assert other.values[-1] == 500.0
