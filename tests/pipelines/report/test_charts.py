from __future__ import annotations

from collections.abc import Callable

import pytest

from pipelines.report.charts import EvaluationFigures, lay_out_evaluation
from pipelines.report.folder import Evaluation


@pytest.fixture
def figures(make) -> Callable[..., EvaluationFigures]:
    return lambda **changes: lay_out_evaluation(Evaluation.model_validate(make.evaluation | changes))


def test_roc_runs_from_the_lower_left_to_the_upper_right(figures) -> None:
    found = figures()
    assert found.roc == "M0.0 280.0L0.0 28.0L8.4 28.0L140.0 0.0L280.0 0.0"
    assert found.point == (8.4, 28.0)


@pytest.mark.parametrize(
    ("realised", "words"), [(0.03, "within what chance"), (0.08, "more than chance"), (0.001, "fewer than expected")]
)
def test_realised_rate_is_judged_by_its_interval(figures, realised: float, words: str) -> None:
    assert words in (figures(fpr_at_threshold=realised).alarm_words or "")


def test_of_a_cross_calibration_the_fold_models_may_be_why(figures) -> None:
    words = figures(fpr_at_threshold=0.08, calibration={"kind": "cross", "folds": 5}).alarm_words or ""
    assert words.endswith("or the deployed model scores otherwise than the fold models")


def test_alarm_bar_puts_all_rates_on_one_scale(figures) -> None:
    found = figures()
    assert found.alarm_bar == {"realised": 0.4898, "low": 0.0327, "high": 0.8, "asked": 0.1633}
    assert found.alarm_scale == pytest.approx(0.049 * 1.25)


def test_hardest_defect_comes_first(figures) -> None:
    assert [row.name for row in figures().defects] == ["crack", "scratch"]


@pytest.mark.parametrize(("auroc", "worse"), [(0.49, True), (0.5, False), (0.51, False), (None, False)])
def test_worse_than_guessing_is_known_as_such(figures, auroc: float | None, worse: bool) -> None:
    (row,) = figures(defects={"crack": {"n": 3, "image_auroc": auroc}}).defects
    assert row.is_worse_than_chance == worse


def test_missing_figures_leave_their_drawings_out() -> None:
    found = lay_out_evaluation(Evaluation())
    assert (found.roc, found.point, found.alarm_bar, found.alarm_words, found.defects) == (None, None, None, None, ())
