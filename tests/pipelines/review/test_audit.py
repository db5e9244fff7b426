"""Audits: the sample, and what it tells."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.review.audit import (
    Audit,
    Stratum,
    count_answers_needed,
    draw_audit,
    estimate_precision,
    estimate_recall,
)


def deliver(random: np.random.Generator, prevalence: float, images: int = 3000):
    """Scores of a delivery, its defects (some easy, some hard to see), and what a threshold flags."""
    bad = random.random(images) < prevalence
    bad[random.integers(images)] = True
    scores = random.normal(0, 1, images) + bad * random.choice([1.5, 4.5], images)
    return scores, bad, scores > np.quantile(scores[~bad], 0.97)


def answer(audit: Audit, bad: np.ndarray, answers: int) -> list[Stratum]:
    chosen = audit.order[:answers]
    return [
        Stratum(each.flagged, each.images, int((audit.stratum[chosen] == number).sum()),
                int(bad[chosen][audit.stratum[chosen] == number].sum()))
        for number, each in enumerate(audit.strata)
    ]  # fmt: skip


@pytest.mark.parametrize("prevalence", [0.002, 0.01, 0.05])
@pytest.mark.parametrize("answers", [60, 400])
def test_the_interval_holds_the_true_recall_wherever_somebody_stops(prevalence: float, answers: int) -> None:
    random, held = np.random.default_rng(1), []
    for number in range(150):
        scores, bad, flagged = deliver(random, prevalence)
        found = estimate_recall(answer(draw_audit(scores, flagged, number), bad, answers))
        held.append(found.low <= (bad & flagged).sum() / bad.sum() <= found.high)
    assert np.mean(held) >= 0.94


def test_an_audit_without_a_miss_does_not_promise_that_there_is_none() -> None:
    found = estimate_recall([Stratum(True, 40, 40, 10), Stratum(False, 2000, 100, 0)])
    assert found.value == 1
    assert found.low < 0.4
    assert found.high == 1


def test_answers_about_every_image_leave_nothing_open() -> None:
    strata = [Stratum(True, 40, 40, 9), Stratum(False, 500, 500, 3)]
    recall, precision = estimate_recall(strata), estimate_precision(strata)
    assert (recall.low, recall.value, recall.high) == (0.75, 0.75, 0.75)
    assert (precision.low, precision.value, precision.high) == (0.225, 0.225, 0.225)


def test_no_answers_tell_nothing() -> None:
    strata = [Stratum(True, 40), Stratum(False, 500)]
    for found in (estimate_recall(strata), estimate_precision(strata), estimate_precision(strata[1:])):
        assert (found.value, found.low, found.high) == (None, 0, 1)


def test_every_image_is_asked_about_once_in_shares_that_hold_from_the_start() -> None:
    scores, _, flagged = deliver(np.random.default_rng(0), 0.01)
    audit = draw_audit(scores, flagged, seed=3)
    assert sorted(audit.order.tolist()) == list(range(len(scores)))
    early = np.bincount(audit.stratum[audit.order[:200]], minlength=4) / 200
    np.testing.assert_allclose(early, [0.25, 0.35, 0.2, 0.2], atol=0.02)
    assert not np.array_equal(audit.order, draw_audit(scores, flagged, seed=4).order)
    np.testing.assert_array_equal(audit.order, draw_audit(scores, flagged, seed=3).order)


def test_within_a_stratum_every_image_is_as_likely_to_be_early() -> None:
    scores, flagged = np.arange(100.0), np.arange(100) >= 90
    early = np.zeros(100)
    for seed in range(2000):
        early[draw_audit(scores, flagged, seed).order[:20]] += 1
    of_flagged = early[90:] / early[90:].mean()
    assert np.abs(of_flagged - 1).max() < 0.15


@pytest.mark.parametrize("flags", [0, 50])
def test_runs_that_flag_nothing_or_everything_are_audited_too(flags: int) -> None:
    scores = np.arange(50.0)
    audit = draw_audit(scores, scores >= 50 - flags, seed=0)
    assert sum(each.images for each in audit.strata) == 50
    assert len(audit.order) == 50


def test_a_narrower_interval_takes_more_answers() -> None:
    strata = [Stratum(True, 100, 30, 15), Stratum(False, 300, 40, 2), Stratum(False, 2600, 60, 0)]
    wide, narrow = (count_answers_needed(strata, width) for width in (0.6, 0.3))
    assert wide is not None
    assert narrow is not None
    assert 0 < wide < narrow < 2870
    assert count_answers_needed(answer_all(strata), 0.5) == 0


def answer_all(strata: list[Stratum]) -> list[Stratum]:
    return [Stratum(each.flagged, each.images, each.images, each.images // 10) for each in strata]
