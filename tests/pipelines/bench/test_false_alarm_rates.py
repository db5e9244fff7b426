"""Recall at a rate: counted by hand, by ranks alone, with ties; and what a row's own threshold gives."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from pipelines.bench import false_alarm_rates
from pipelines.bench.false_alarm_rates import measure_rates, recall_at

GOOD = np.arange(1.0, 11.0)  # 1 to 10
BAD = np.array([5.5, 8.5, 9.5, 10.5])


@pytest.mark.parametrize(
    ("rate", "recall"),
    [
        (0.0, 0.25),  # threshold 10
        (0.1, 0.5),  # threshold 9
        (0.05, 0.375),  # half way
        (0.2, 0.75),
        (0.5, 1.0),  # threshold 5
        (1.0, 1.0),
    ],
)
def test_recall_between_two_thresholds_is_interpolated(rate: float, recall: float) -> None:
    assert recall_at(GOOD, BAD, rate) == pytest.approx(recall)
    assert recall_at(np.exp(GOOD[::-1]), np.exp(BAD), rate) == pytest.approx(recall)  # ranks alone count


def test_ties_among_good_images_are_flagged_together() -> None:
    assert recall_at([1.0, 2.0, 2.0, 2.0], [1.5, 3.0], 0.375) == pytest.approx(0.5 + 0.5 / 2)
    assert recall_at([1.0, 1.0], [1.0, 1.0], 0.3) == pytest.approx(0.3)  # a constant score is chance


def test_scores_of_one_distribution_are_flagged_at_the_rate() -> None:
    draws = np.random.default_rng(0).normal(size=(2, 20_000))
    assert recall_at(*draws, 0.05) == pytest.approx(0.05, abs=0.01)


def test_a_rows_own_threshold_is_the_conformal_one() -> None:
    scores = {f"good/{each:g}.png": each for each in GOOD} | {f"crack/{each:g}.png": each for each in BAD}
    found = measure_rates(scores, list(np.arange(199) / 20))  # 0 to 9.9
    assert found["0.05"]["own_promised"] == 0.05
    # The tenth of 200 slots: 9 of 199 calibration scores lie above the threshold, 9.45.
    assert found["0.05"]["own_recall"] == 0.5
    assert found["0.05"]["own_rate"] == pytest.approx(0.1)
    assert found["0.05"]["recall"] == pytest.approx(0.375)


def test_few_calibration_images_promise_what_they_can() -> None:
    scores = {"good/1.png": 1.0, "crack/1.png": 2.0}
    found = measure_rates(scores, [0.5, 1.5, 0.0])
    assert {rate: each["own_promised"] for rate, each in found.items()} == {"0.01": 0.25, "0.05": 0.25}
    assert found["0.01"]["own_recall"] == 1.0
    assert measure_rates(scores, None)["0.01"] == {
        "recall": 1.0, "own_promised": None, "own_recall": None, "own_rate": None,
    }  # fmt: skip
    assert measure_rates({"good/1.png": 1.0}, None)["0.01"]["recall"] is None


def test_examples() -> None:
    assert doctest.testmod(false_alarm_rates) == (0, 1)
