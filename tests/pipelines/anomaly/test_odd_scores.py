"""A threshold that a few odd calibration images set hides defects, and the run says so."""

from __future__ import annotations

import numpy as np

from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.odd_scores import warn_of_odd


def calibration_of(*odd: float) -> Calibration:
    scores = np.random.default_rng(0).normal(size=200)
    return Calibration(model_sha256="", scores=(*scores.tolist(), *odd), map_quantiles={})


def test_a_threshold_between_usual_scores_is_fine() -> None:
    for calibration in (calibration_of(), calibration_of(9.0)):
        assert warn_of_odd(calibration, calibration.threshold(0.05), 0.05) == ""


def test_one_odd_image_that_sets_the_threshold_is_told_of() -> None:
    calibration = calibration_of(9.0)
    assert calibration.threshold(0.005) == 9.0
    told = warn_of_odd(calibration, 9.0, 0.005)
    assert told.startswith("The threshold is set by one calibration image that scores unlike the others.")
    assert f"it would be {max(calibration_of().scores):.4f}" in told


def test_without_the_odd_ones_the_rate_must_still_be_told() -> None:
    calibration = calibration_of(9.0, 10.0)
    assert warn_of_odd(calibration, 10.0, 1 / 203) == ""
