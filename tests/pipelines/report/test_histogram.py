from __future__ import annotations

import numpy as np
import pytest

from pipelines.report.histogram import bin_scores, thin

NONE = np.empty(0)


def test_every_score_is_in_a_bin() -> None:
    scores = np.random.default_rng(0).gamma(9, 0.1, 5000)
    held = np.random.default_rng(1).gamma(9, 0.1, 200)
    bins = bin_scores(scores, held, threshold=1.6)
    assert sum(bins.images) == 5000
    assert sum(bins.calibration) == 200
    assert bins.edges[0] < 1.6 < bins.edges[-1]
    assert len(bins.edges) == len(bins.images) + 1 == len(bins.calibration) + 1
    expected = np.count_nonzero((scores >= bins.edges[3]) & (scores < bins.edges[4]))
    assert bins.images[3] == expected


def test_extreme_scores_do_not_stretch_the_axis() -> None:
    scores = np.concatenate([np.linspace(0, 1, 1000), [1e6, -1e6]])
    bins = bin_scores(scores, NONE, threshold=0.9)
    assert bins.edges[-1] < 5
    assert bins.edges[0] > -5
    assert (bins.below, bins.beyond) == (1, 1)
    assert sum(bins.images) == 1002
    assert bins.calibration == ()


def test_the_axis_holds_the_threshold() -> None:
    bins = bin_scores(np.linspace(0, 1, 100), NONE, threshold=7.0)
    assert bins.edges[-1] > 7.0


@pytest.mark.parametrize("value", [0.0, 3.5, -2.0, 1e-9])
def test_one_value_only(value: float) -> None:
    bins = bin_scores(np.full(5, value), NONE, threshold=None)
    assert bins.edges[0] < value < bins.edges[-1]
    assert sum(bins.images) == 5


def test_a_curve_keeps_its_corners() -> None:
    steps = [(i / 1000, j / 1000) for i in range(0, 1001, 10) for j in (i, min(i + 10, 1000))]
    assert thin(tuple(steps), most=1000) == tuple(steps[:-1])
    short = thin(tuple(steps), most=50)
    assert len(short) == 50
    assert short[0] == steps[0]
    assert short[-1] == (1.0, 1.0)
