"""Calibration: the promised false-alarm rate is kept, to the letter of its law, and the file is read with suspicion."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import betabinom

from pipelines.anomaly.calibration import MAP_QUANTILES, Calibration, beta_binomial_cdf
from pipelines.anomaly.place_quantiles import GoodPlaces
from pipelines.anomaly.rate_claim import Measured
from pipelines.errors import CalibrationError

DIGEST = "ab" * 32
QUANTILES = {"0.5": 0.125, "0.99": 1.5, "0.999": 2.0, "1.0": 3.75}


def calibration(scores: object) -> Calibration:
    return Calibration(model_sha256=DIGEST, scores=tuple(map(float, scores)), map_quantiles=QUANTILES)


def test_p_values_are_the_counts_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    known = rng.integers(0, 20, 50) / 4  # few values: many ties
    asked = rng.integers(-2, 24, (7, 11)) / 4
    expected = [[(1 + sum(c >= s for c in known)) / 51 for s in row] for row in asked]
    np.testing.assert_array_equal(calibration(known).p_values(asked), expected)
    np.testing.assert_array_equal(calibration(known).p_values(asked.astype(np.float32)), expected)
    assert calibration(known).p_values(np.array([np.inf, -np.inf])).tolist() == [1 / 51, 1.0]
    assert calibration(known).p_values(np.array([])).shape == (0,)


def test_a_float32_score_ties_with_itself_after_the_round_trip_through_json(tmp_path: Path) -> None:
    scores = np.random.default_rng(1).standard_normal(40).astype(np.float32)
    calibration(scores).save(tmp_path / "calibration.json")
    loaded = Calibration.load(tmp_path / "calibration.json", model_sha256=DIGEST)
    np.testing.assert_array_equal(loaded.p_values(np.sort(scores)[::-1]), np.arange(2, 42) / 41)


@pytest.mark.parametrize("n", [1, 2, 9, 48, 99, 100, 999])
def test_threshold_and_p_value_give_the_same_verdict(n: int) -> None:
    """Also where alpha * (n + 1) is a whole number that floating point misses, such as 0.29 * 100 or 1/49 * 49."""
    rng = np.random.default_rng(n)
    model = calibration(np.round(rng.standard_normal(n), 1))
    asked = np.concatenate([np.round(rng.standard_normal(500), 1), model.scores])
    p = model.p_values(asked)
    rates = [k / (n + 1) for k in range(1, n + 1)] + [k / 100 for k in range(1, 100)] + [model.default_false_alarms()]
    for alpha in (rate for rate in rates if rate >= 1 / (n + 1)):
        np.testing.assert_array_equal(asked > model.threshold(alpha), p <= alpha)


def test_threshold_is_the_order_statistic_of_the_formula() -> None:
    model = calibration(range(1, 100))
    assert model.threshold(0.01) == 99  # k = 0: the largest
    assert model.threshold(0.0199) == 99
    assert model.threshold(0.05) == 95
    assert model.threshold(0.29) == 71  # 0.29 * 100 is 28.999... in floating point
    assert model.threshold(0.995) == 1


def test_ties_at_the_threshold_are_not_flagged() -> None:
    model = calibration([0.0] * 40 + [1.0] * 60)
    assert not (np.array([0.0, 1.0]) > model.threshold(0.05)).any()


def test_a_rate_that_n_cannot_promise_is_refused_with_one_that_it_can() -> None:
    model = calibration(range(50))
    with pytest.raises(CalibrationError, match=r"50 calibration images") as error:
        model.threshold(0.01)
    message = str(error.value)
    assert "calibrate on 99 images" in message
    offered = re.search(r"1/51 = ([0-9.]+)", message)
    assert offered is not None
    assert model.threshold(float(offered[1])) == 49.0
    assert model.default_false_alarms() == 1 / 51
    assert model.threshold(model.default_false_alarms()) == 49.0
    assert calibration(range(200)).default_false_alarms() == 0.01


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, float("nan"), float("inf"), 5e-324])
def test_a_rate_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(CalibrationError, match="false-alarm rate"):
        calibration(range(50)).threshold(alpha)


def test_the_promise_is_kept_and_its_law_is_beta_binomial() -> None:
    """20,000 simulated factories: each calibrates on 60 good images and then looks at 40 more."""
    n, n_test, alpha, runs = 60, 40, 0.1, 20_000
    rng = np.random.default_rng(20)
    known, asked = rng.exponential(size=(runs, n)), rng.exponential(size=(runs, n_test))
    flagged = np.array(
        [(test > calibration(good).threshold(alpha)).sum() for good, test in zip(known, asked, strict=True)]
    )
    k = 5  # floor(0.1 * 61) - 1
    seen = np.bincount(flagged, minlength=n_test + 1) / runs
    law = betabinom(n_test, k + 1, n - k).pmf(np.arange(n_test + 1))
    assert np.abs(seen - law).max() < 4 * np.sqrt(0.25 / runs)
    assert flagged.mean() / n_test == pytest.approx(6 / 61, abs=0.002)  # below 0.1, as promised
    low, high = calibration(known[0]).interval(alpha, n_test)
    inside = ((flagged >= low * n_test) & (flagged <= high * n_test)).mean()
    assert 0.95 <= inside < 0.985
    # A neighbouring law, one order statistic off, would be told apart by this many runs.
    wrong = betabinom(n_test, k + 2, n - k - 1).pmf(np.arange(n_test + 1))
    assert np.abs(seen - wrong).max() > 4 * np.sqrt(0.25 / runs)


@pytest.mark.parametrize(("n", "a", "b"), [(1, 1, 99), (40, 6, 55), (500, 1, 1000), (100, 99, 1), (20_000, 3, 7)])
def test_beta_binomial_agrees_with_scipy(n: int, a: int, b: int) -> None:
    np.testing.assert_allclose(
        np.diff(beta_binomial_cdf(n, a, b), prepend=0), betabinom(n, a, b).pmf(range(n + 1)), atol=1e-12
    )
    assert beta_binomial_cdf(n, a, b)[-1] == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize(("n", "alpha", "n_test"), [(99, 0.01, 100), (132, 0.05, 100), (60, 0.1, 1), (9, 0.9, 17)])
def test_interval_holds_the_central_probability(n: int, alpha: float, n_test: int, level: float) -> None:
    model = calibration(range(n))
    low, high = (round(share * n_test) for share in model.interval(alpha, n_test, level))
    k = np.floor(alpha * (n + 1) + 1e-9) - 1
    law = betabinom(n_test, k + 1, n - k)
    tail = (1 - level) / 2
    assert law.cdf(low - 1) < tail <= law.cdf(low)
    assert law.cdf(high - 1) < 1 - tail <= law.cdf(high) + 1e-12


def test_interval_refuses_nonsense() -> None:
    with pytest.raises(CalibrationError, match="0 good images"):
        calibration(range(99)).interval(0.05, 0)
    with pytest.raises(CalibrationError, match="level of 95"):
        calibration(range(99)).interval(0.05, 10, level=95)


def test_nan_has_no_p_value() -> None:
    with pytest.raises(CalibrationError, match=r"1 of 3 scores are NaN \(the first at position 1\)"):
        calibration(range(9)).p_values(np.array([1.0, np.nan, 2.0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_cannot_be_ranked_are_refused(bad: float) -> None:
    with pytest.raises(CalibrationError, match="1 of 3 calibration scores are not finite"):
        calibration([1.0, bad, 2.0])


def test_the_file_keeps_every_bit_and_equal_calibrations_give_equal_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2**64, 5000, dtype=np.uint64).view(np.float64)
    scores = np.concatenate([bits[np.isfinite(bits)], [0.1, 5e-324, 1.7976931348623157e308, -0.0]])
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    calibration(scores).save(first)
    loaded = Calibration.load(first, model_sha256=DIGEST)
    assert [s.hex() for s in loaded.scores] == [float(s).hex() for s in sorted(scores)]
    assert loaded.map_quantiles == QUANTILES
    Calibration(model_sha256=DIGEST, scores=loaded.scores[::-1], map_quantiles=dict(reversed(QUANTILES.items()))).save(
        second
    )
    assert first.read_bytes() == second.read_bytes()
    assert sorted(tmp_path.iterdir()) == [first, second]  # nothing half-written stays behind


def test_groups_and_places_are_kept_and_a_file_without_them_is_read(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    places = GoodPlaces.of(np.random.default_rng(4).exponential(size=200_000), 200_000)
    names = ["", "camera 2", 'a"b\\u00e9\n', "caf\\xe9", "__proto__"]
    groups = {name: (float(i), float(-i)) for i, name in enumerate(names)}
    scores = tuple(score for group in groups.values() for score in group)
    full = Calibration(model_sha256=DIGEST, scores=scores, map_quantiles=QUANTILES, places=places, groups=groups)
    full.save(path)
    assert path.stat().st_size < 8000
    loaded = Calibration.load(path, model_sha256=DIGEST)
    assert loaded == full
    assert loaded.groups["camera 2"] == (-1.0, 1.0)
    by_group = loaded.of_group("camera 2")
    assert by_group is not None
    assert by_group.p_values(np.array([0.0])).tolist() == [2 / 3]
    assert loaded.of_group("unknown") is None
    path.write_text(json.dumps(GOOD))
    old = Calibration.load(path, model_sha256=DIGEST)
    assert (old.places, old.groups) == (None, {})
    old.save(path)
    assert set(json.loads(path.read_text())) - set(GOOD) <= {"statistics", "groups", "kind"}


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "calibration.json"
    calibration([1.0]).save(path)
    before = path.read_bytes()

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        calibration([2.0]).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_calibration_of_another_model_is_refused(tmp_path: Path) -> None:
    calibration([1.0, 2.0]).save(tmp_path / "calibration.json")
    with pytest.raises(CalibrationError, match="belongs to the model file abababababab, not to cdcdcdcdcdcd"):
        Calibration.load(tmp_path / "calibration.json", model_sha256="cd" * 32)


GOOD = {"format": 1, "model_sha256": DIGEST, "scores": [1.0, 2.0], "map_quantiles": QUANTILES}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a calibration file"),
        ("{", "is not a calibration file"),
        ("[1, 2]", "is not a calibration file"),
        ("\xff\xfe", "is not a calibration file"),
        (json.dumps(GOOD | {"format": 2}), "format"),
        (json.dumps(GOOD | {"scores": "1.0"}), "scores"),
        (json.dumps(GOOD | {"scores": [1.0, "2.0"]}), r"scores\.1"),
        (json.dumps(GOOD | {"scores": [1.0, True]}), r"scores\.1"),
        (json.dumps(GOOD | {"scores": []}), "no calibration scores"),
        (json.dumps(GOOD | {"scores": [1.0, float("nan")]}), "1 of 2 calibration scores"),
        (json.dumps(GOOD | {"map_quantiles": {"0.5": 1.0}}), "map_quantiles"),
        (json.dumps(GOOD | {"map_quantiles": QUANTILES | {"1.0": 0.0}}), "must rise"),
        (json.dumps(GOOD | {"map_quantiles": QUANTILES | {"1.0": float("inf")}}), r"map_quantiles\.1\.0"),
        (json.dumps(GOOD | {"threshold": 3.0}), "threshold"),
        (json.dumps(GOOD | {"groups": {"a": [1.0], "b": [2.5]}}), "the groups' scores are not the scores"),
        (json.dumps(GOOD | {"groups": {"a": [1.0, 2.0], "b": []}}), "no calibration scores"),
        (json.dumps(GOOD | {"places": {"places": 9, "shares": [0.5], "values": [1.0, 2.0]}}), "1 shares for 2 values"),
        (json.dumps(GOOD | {"places": {"places": 9, "shares": [0.1, 0.5], "values": [1.0, 2.0]}}), "shares must fall"),
        (json.dumps(GOOD | {"places": {"places": 9, "shares": [0.5, 0.1], "values": [2.0, 1.0]}}), "shares must fall"),
        (json.dumps({key: value for key, value in GOOD.items() if key != "scores"}), "scores"),
        (json.dumps(GOOD | {"kind": "cv+"}), "kind"),
        (json.dumps(GOOD | {"kind": "cross"}), "2 folds or more, not None"),
        (json.dumps(GOOD | {"kind": "cross", "folds": 1}), "2 folds or more, not 1"),
        (json.dumps(GOOD | {"folds": 5}), "no folds, but this one has 5"),
        (json.dumps(GOOD | {"measured": {"rate": 0.01, "images": 9, "flagged": 10}}), "10 of 9 images"),
        (json.dumps(GOOD | {"measured": {"rate": 0.01, "images": 0, "flagged": 0}}), r"measured\.images"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CalibrationError, match=says) as error:
        Calibration.load(path, model_sha256=DIGEST)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unreadable_file_is_a_calibration_error(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="No such file"):
        Calibration.load(tmp_path / "calibration.json", model_sha256=DIGEST)
    with pytest.raises(CalibrationError, match="directory"):
        Calibration.load(tmp_path, model_sha256=DIGEST)


def test_a_model_without_a_map_has_no_quantiles() -> None:
    assert Calibration(model_sha256=DIGEST, scores=(1.0,), map_quantiles={}).map_quantiles == {}
    assert tuple(calibration([1.0]).map_quantiles) == MAP_QUANTILES


def test_a_batch_worker_imports_it_without_torch_or_scipy() -> None:
    heavy = "{'torch', 'sklearn', 'scipy', 'mlflow', 'prefect'}"
    code = f"import sys, pipelines.anomaly.calibration; print(*{heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_the_rate_of_the_job_is_the_default(tmp_path: Path) -> None:
    asked = calibration(range(200)).model_copy(update={"false_alarms": 0.2})
    asked.save(tmp_path / "calibration.json")
    loaded = Calibration.load(tmp_path / "calibration.json", model_sha256=DIGEST)
    assert loaded.default_false_alarms() == 0.2
    (tmp_path / "old.json").write_text(json.dumps(GOOD))
    assert Calibration.load(tmp_path / "old.json", model_sha256=DIGEST).default_false_alarms() == 1 / 3


def test_a_file_without_a_kind_is_a_split(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(json.dumps(GOOD))
    old = Calibration.load(tmp_path / "old.json", model_sha256=DIGEST)
    assert (old.kind, old.folds, old.measured, old.is_what) == ("split", None, None, "promised")


def test_a_cross_calibration_is_kept_and_its_formulas_are_those_of_a_split(tmp_path: Path) -> None:
    facts = {"kind": "cross", "folds": 5, "measured": Measured(rate=0.05, images=40, flagged=3)}
    groups = {"a": tuple(map(float, range(50))), "b": tuple(map(float, range(50, 99)))}
    scores = tuple(map(float, range(99)))
    cross = Calibration(model_sha256=DIGEST, scores=scores, map_quantiles=QUANTILES, groups=groups, **facts)
    cross.save(tmp_path / "calibration.json")
    loaded = Calibration.load(tmp_path / "calibration.json", model_sha256=DIGEST)
    assert loaded == cross
    assert loaded.measured == Measured(rate=0.05, images=40, flagged=3)
    split = calibration(range(99))
    asked = np.array([3.5, 97.0, 98.0])
    np.testing.assert_array_equal(cross.p_values(asked), split.p_values(asked))
    assert (cross.threshold(0.05), cross.interval(0.05, 40)) == (split.threshold(0.05), split.interval(0.05, 40))
    of_group = cross.of_group("b")
    assert of_group is not None
    # What was measured of the whole says nothing of a group.
    assert (of_group.kind, of_group.folds, of_group.measured) == ("cross", 5, None)


def test_a_rate_below_what_a_cross_calibration_can_tell_is_not_called_a_promise() -> None:
    cross = Calibration(model_sha256=DIGEST, scores=(1.0,) * 9, map_quantiles={}, kind="cross", folds=3)
    with pytest.raises(CalibrationError, match=r"0\.01 cannot be told from 9 calibration images, the smallest is 1/10"):
        cross.threshold(0.01)
