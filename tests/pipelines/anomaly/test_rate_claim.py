"""Claims: a proof and a measurement are two sentences, and only a split has a proof."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import binom, binomtest

from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.group_thresholds import GroupThresholds
from pipelines.anomaly.rate_claim import Measured, RateClaim
from pipelines.anomaly.verdicts import Verdicts

MEASURED = Measured(rate=0.01, images=100, flagged=2)
CROSS = RateClaim(kind="cross", folds=5, measured=MEASURED)
SENTENCE = "2 of 100 good images in reserve were flagged where 1 % was asked: 2 % (95 % interval 0.24 % to 7 %)"


@pytest.mark.parametrize(("flagged", "images"), [(0, 20), (1, 20), (2, 100), (20, 20), (7, 1000), (1, 1), (0, 1)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_is_that_of_scipy(flagged: int, images: int, level: float) -> None:
    exact = binomtest(flagged, images).proportion_ci(level, "exact")
    found = Measured(rate=0.01, images=images, flagged=flagged).interval(level)
    np.testing.assert_allclose(found, (exact.low, exact.high), rtol=1e-9)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_the_interval_covers_the_rate_as_often_as_it_says(rate: float) -> None:
    ends = [Measured(rate=0.01, images=30, flagged=flagged).interval() for flagged in range(31)]
    covered = [low <= rate <= high for low, high in ends]
    assert binom(30, rate).pmf(np.arange(31))[covered].sum() >= 0.95


def test_more_flagged_than_there_are_is_refused() -> None:
    with pytest.raises(ValidationError, match="3 of 2 images cannot have been flagged"):
        Measured(rate=0.01, images=2, flagged=3)


def test_a_split_is_proved_and_a_cross_is_measured() -> None:
    proof = "at most 5 % of good images like the calibration images are flagged, on average over calibration sets"
    assert list(RateClaim().describe(0.05)) == [("proved", proof)]
    assert list(RateClaim(measured=MEASURED).describe(0.05)) == [("proved", proof), ("measured", SENTENCE)]
    none = (
        "no rate, because this model has seen all good images: 5 other models, each without some of them, gave the "
        'calibration scores. For a proof, set calibrate.kind = "split" in the job file'
    )
    assert list(CROSS.describe(0.05)) == [("proved", none), ("measured", SENTENCE)]
    (_, (which, text)) = RateClaim(kind="cross", folds=5).describe(0.05)
    assert which == "measured"
    assert text.startswith("the out-of-fold scores alone: no good images were kept in reserve")


def test_words_follow_the_kind() -> None:
    assert (RateClaim().is_what, RateClaim().condition) == ("promised", "")
    assert CROSS.is_what == "asked"
    assert CROSS.condition == ", if the calibration scores were those of the deployed model"


def test_no_sentence_of_a_cross_calibration_speaks_of_a_promise() -> None:
    groups = {"a": tuple(map(float, range(60))), "b": tuple(map(float, range(20))), "c": (0.5,)}
    scores = tuple(score for each in groups.values() for score in each)
    cross = Calibration(model_sha256="", scores=scores, map_quantiles={}, groups=groups, kind="cross", folds=5)
    paths = ["a/1.png", "b/1.png", "c/1.png", "d/1.png"]
    said = [cross.describe_proof(0.02), CROSS.describe_measured() or ""]
    for rate in (0.02, 0.05):
        thresholds = GroupThresholds.of(cross, rate)
        said += [*thresholds.explain(paths), *thresholds.warn_of_unrepresented(paths)]
    said += GroupThresholds.of(cross.model_copy(update={"groups": {}}), 0.02).warn_of_unrepresented(paths)
    said += [str(Verdicts.of(cross, 0.02, groups=True).rule), str(Verdicts.of(cross, None, false_discoveries=0.1).rule)]
    assert len(said) > 8
    assert [text for text in said if "promis" in text or "at most" in text] == []
    assert "false-alarm rate of 2 % asked in each of 1 group" in said
    assert "10 % good ones among the flagged images were asked (Benjamini-Hochberg; not proved)" in said


def test_verdicts_of_a_cross_calibration_have_p_values_and_are_not_promised() -> None:
    known = {"scores": tuple(map(float, range(99))), "map_quantiles": {}, "model_sha256": ""}
    found = {}
    for name, facts in {"split": {}, "cross": {"kind": "cross", "folds": 5, "measured": MEASURED}}.items():
        rows = [{"path": "1.png", "status": "ok", "score": 98.5}]
        verdicts = Verdicts.of(Calibration(**known, **facts), 0.01)
        verdicts.fill(rows)
        described = verdicts.describe(["1.png"], 0)
        assert described is not None
        found[name] = (rows[0], described["kind"], described["folds"], described["measured"])
    row = {"path": "1.png", "status": "ok", "score": 98.5, "p_value": 0.01, "is_anomaly": True, "threshold": 98.0}
    row["group"] = None
    assert found["split"] == (row | {"promised": True}, "split", None, None)
    assert found["cross"] == (row | {"promised": False}, "cross", 5, {"rate": 0.01, "images": 100, "flagged": 2})
