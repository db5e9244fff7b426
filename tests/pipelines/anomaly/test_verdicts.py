"""Rules for the threshold: a promised rate, a budget, a share of false discoveries."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from pipelines.anomaly.against import judge_run
from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.drift import STATISTICS
from pipelines.anomaly.verdicts import Verdicts
from pipelines.errors import CalibrationError


def calibration_of(scores: np.ndarray) -> Calibration:
    return Calibration(model_sha256="", scores=tuple(scores), map_quantiles={})


def rows_of(scores: np.ndarray) -> list[dict[str, Any]]:
    return [{"status": "ok", "score": float(score)} for score in scores] + [{"status": "failed", "score": None}]


def flagged(verdicts: Verdicts, scores: np.ndarray) -> np.ndarray:
    rows = rows_of(scores)
    tally = verdicts.tally()
    if tally is not None:
        tally.add(scores)
    verdicts.settle(tally).fill(rows)
    assert rows[-1]["is_anomaly"] is None
    return np.array([row["is_anomaly"] for row in rows[:-1]])


@pytest.fixture
def good() -> Calibration:
    return calibration_of(np.random.default_rng(0).normal(0, 1, 199))


def test_a_budget_flags_the_worst_of_those_that_would_be_flagged(good: Calibration) -> None:
    scores = np.array([-1.0, 9.0, 5.0, 7.0, 0.0, 8.0])
    assert flagged(Verdicts.of(good, 0.05), scores).tolist() == [False, True, True, True, False, True]
    assert flagged(Verdicts.of(good, 0.05, budget=2), scores).tolist() == [False, True, False, False, False, True]
    assert flagged(Verdicts.of(good, 0.05, budget=9), scores).sum() == 4


def test_ties_never_exceed_the_budget(good: Calibration) -> None:
    assert flagged(Verdicts.of(good, 0.05, budget=2), np.array([9.0, 8.0, 8.0, 8.0])).tolist() == [True] + 3 * [False]


def test_false_discoveries_agree_with_scipy(good: Calibration) -> None:
    generator = np.random.default_rng(1)
    for count in (0, 5, 60):
        scores = np.concatenate([generator.normal(0, 1, 100), generator.normal(4, 1, count)])
        expected = stats.false_discovery_control(good.p_values(scores)) <= 0.1
        assert flagged(Verdicts.of(good, None, false_discoveries=0.1), scores).tolist() == expected.tolist()


def test_thresholds_of_all_scores_come_from_parts_in_any_order(good: Calibration) -> None:
    """Memory stays flat: a million scores would take 8 MB."""
    scores = np.round(np.random.default_rng(1).normal(1, 1.5, 1_000_000), 2)
    for rule in ({"false_discoveries": 0.1}, {"false_alarms": 0.05, "budget": 300}):
        verdicts = Verdicts.of(good, rule.get("false_alarms"), **{k: v for k, v in rule.items() if k != "false_alarms"})
        found = []
        for shown in (scores, scores[::-1]):
            tally = verdicts.tally()
            assert tally is not None
            tracemalloc.start()
            for part in np.array_split(shown, 1_000):
                tally.add(part)
            assert tracemalloc.get_traced_memory()[1] < 500_000
            tracemalloc.stop()
            found.append(verdicts.settle(tally).threshold)
        expected = np.sort(scores)[-301]
        if "budget" not in rule:
            expected = scores[stats.false_discovery_control(good.p_values(scores)) > 0.1].max()
        assert found == [expected, expected]


def test_the_share_of_false_discoveries_is_kept() -> None:
    generator = np.random.default_rng(2)
    shares = []
    for _ in range(300):
        verdicts = Verdicts.of(calibration_of(generator.normal(0, 1, 300)), None, false_discoveries=0.2)
        scores = np.concatenate([generator.normal(0, 1, 80), generator.normal(3.5, 1, 20)])
        found = flagged(verdicts, scores)
        shares.append(found[:80].sum() / max(1, found.sum()))
    assert np.mean(shares) <= 0.2


def test_all_flagged_and_none_flagged_have_a_threshold(good: Calibration) -> None:
    verdicts = Verdicts.of(good, None, false_discoveries=0.1)
    assert flagged(verdicts, np.full(5, 50.0)).all()
    assert not flagged(verdicts, np.full(5, -1.0)).any()


def test_rules_that_exclude_each_other_are_refused(good: Calibration) -> None:
    for other in ({"budget": 3}, {"false_alarms": 0.1}):
        with pytest.raises(CalibrationError, match="is a rule of its own"):
            Verdicts.of(good, other.get("false_alarms"), budget=other.get("budget"), false_discoveries=0.1)
    assert Verdicts.of(good, 0.1).rule is None
    assert "3 worst" in (Verdicts.of(good, 0.1, budget=3).rule or "")


@pytest.mark.parametrize(
    ("calibration", "share", "images", "together"),
    [(99, 0.1, 600, 60), (99, 0.5, 100, None), (18, 0.5, 16, 2), (18, 0.5, 9, None), (999, 0.1, 600, None)],
)
def test_few_calibration_images_let_false_discoveries_flag_nothing_and_say_so(
    calibration: int, share: float, images: int, together: int | None
) -> None:
    """The number is the least that Benjamini and Hochberg's procedure lets pass: one abnormal image fewer, and none."""
    verdicts = Verdicts.of(calibration_of(np.arange(calibration)), None, false_discoveries=share)
    caution = verdicts.caution(images)
    if together is None:
        assert caution is None
        return
    assert f"at least {together} of these {images} images must be flagged together, or none is" in caution
    for count, found in ((together, together), (together - 1, 0)):
        scores = np.r_[np.full(count, 1e4), np.zeros(images - count)]
        assert flagged(verdicts, scores).sum() == found


def test_calibration_images_as_advised_let_a_fiftieth_of_a_folder_be_flagged() -> None:
    few = Verdicts.of(calibration_of(np.arange(99)), None, false_discoveries=0.1)
    assert "calibrate on 499 good images or more" in (few.caution(1000) or "")
    enough = Verdicts.of(calibration_of(np.arange(499)), None, false_discoveries=0.1)
    assert enough.caution(1000) is None
    assert flagged(enough, np.r_[np.full(20, 1e4), np.zeros(980)]).sum() == 20


def test_only_false_discoveries_need_many_calibration_images(good: Calibration) -> None:
    assert Verdicts.of(good, 0.05).caution(1000) is None
    assert Verdicts.of(None, None, false_discoveries=0.1).caution(1000) is None


def test_images_that_are_known_to_be_abnormal_do_not_count_as_drift() -> None:
    """Half of a labelled folder is defects: without this, every evaluation would report drift."""
    generator = np.random.default_rng(0)
    usual = {name: generator.normal(size=100) for name in STATISTICS}
    calibration = calibration_of(usual["score"]).model_copy(update={"statistics": usual})
    values = {name: np.concatenate([generator.normal(size=60), 4 + generator.normal(size=60)]) for name in STATISTICS}
    paths = [f"good/{number}.png" for number in range(60)] + [f"goodness/{number}.png" for number in range(60)]
    rows = pa.table({"status": ["ok"] * 120, "path": paths, **values})
    verdicts = Verdicts.of(calibration, None)
    drift = judge_run(verdicts, lambda: [rows], drift_below=("good",)).drift
    assert drift is not None
    assert (drift.drifted, drift.images) == (False, 60)
    drift = judge_run(verdicts, lambda: [rows]).drift
    assert drift is not None
    assert drift.drifted
