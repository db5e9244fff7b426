"""The false alarms that a promotion is decided by: a promised rate and one that was asked are different figures."""

from __future__ import annotations

import numpy as np

from pipelines.anomaly.calibration import Calibration
from pipelines.training.promotion import _measure_false_alarms


def test_the_limit_of_a_cross_calibration_is_an_assumption() -> None:
    known = {"model_sha256": "", "scores": tuple(map(float, range(99))), "map_quantiles": {}}
    good = np.array([1.0, 2.0, 97.5, 98.5])
    split = _measure_false_alarms(Calibration(**known), good, 0.02)
    cross = _measure_false_alarms(Calibration(**known, kind="cross", folds=5), good, 0.02)
    assert split.keys() == {"false_alarm_rate", "false_alarm_limit", "promised_rate"}
    assert cross.keys() == {"false_alarm_rate", "assumed_false_alarm_limit", "asked_rate"}
    assert (split["false_alarm_rate"], split["promised_rate"]) == (0.5, 0.02)
    assert list(cross.values()) == list(split.values())
