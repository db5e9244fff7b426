from __future__ import annotations

import numpy as np
import pytest

from pipelines.anomaly.excess import find_excess

ASKED = 0.05


def draw(random, good, bad=0, stretch=1.0, move=0.0):
    """Scores of good images, skewed as those of real ones are, and of defects above most of them."""
    usual = move + stretch * random.gamma(3.0, 1.0, good)
    return np.concatenate([usual, random.normal(9.0, 2.0, bad)])


def threshold_of(calibration):
    return float(np.quantile(calibration, 1 - ASKED))


@pytest.mark.parametrize(("bad", "most"), [(0, 3), (10, 3), (40, 8)])
def test_an_unchanged_folder_is_hardly_ever_reported_however_many_defects_it_has(bad, most):
    random, found = np.random.default_rng(bad), []
    for _ in range(100):
        calibration = draw(random, 230)
        found.append(find_excess(draw(random, 200 - bad, bad), calibration, threshold_of(calibration), ASKED))
    assert sum(share is not None for share in found) <= most


def test_good_images_that_spread_wider_are_reported_with_their_share_above_the_threshold():
    random = np.random.default_rng(0)
    calibration = draw(random, 400)
    folder = draw(random, 380, 20, stretch=1.5, move=-0.5)
    truth = float((folder[:380] > threshold_of(calibration)).mean())
    share = find_excess(folder, calibration, threshold_of(calibration), ASKED)
    assert truth > 0.15
    assert share == pytest.approx(truth, abs=0.05)


def test_good_images_that_score_lower_are_not_reported():
    random = np.random.default_rng(0)
    calibration = draw(random, 400)
    assert find_excess(draw(random, 400, move=-1.0), calibration, threshold_of(calibration), ASKED) is None


@pytest.mark.parametrize(("folder", "calibration"), [(49, 200), (200, 19)])
def test_too_few_images_tell_nothing(folder, calibration):
    random = np.random.default_rng(0)
    usual = draw(random, calibration)
    assert find_excess(draw(random, folder, move=5.0), usual, threshold_of(usual), ASKED) is None


def test_calibration_images_that_all_score_the_same_tell_nothing():
    random = np.random.default_rng(0)
    assert find_excess(draw(random, 200), np.ones(200), 1.0, ASKED) is None
