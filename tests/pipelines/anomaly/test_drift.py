"""Drift of a batch: reported when light or detail change, and at its stated rate when nothing does."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from pipelines.anomaly import drift
from pipelines.anomaly.drift import FEWEST, LEVEL, MOST, STATISTICS, Sample, check_drift, mann_whitney


@pytest.mark.parametrize("ties", [False, True])
def test_the_test_agrees_with_scipy(ties: bool) -> None:
    generator = np.random.default_rng(0)
    for shift in (0.0, 0.3, -1.0):
        x, y = generator.normal(shift, 1, 70), generator.normal(0, 1, 45)
        if ties:
            x, y = x.round(), y.round()
        effect, p_value = mann_whitney(x, y)
        expected = stats.mannwhitneyu(x, y, alternative="two-sided", method="asymptotic")
        assert p_value == pytest.approx(expected.pvalue, rel=1e-9)
        assert effect == pytest.approx(expected.statistic / (70 * 45))


def test_values_that_are_all_the_same_are_no_drift() -> None:
    assert mann_whitney(np.ones(30), np.ones(40)) == (0.5, 1.0)


def batch(generator: np.random.Generator, count: int, **shift: float) -> dict[str, np.ndarray]:
    return {name: generator.normal(shift.get(name, 0.0), 1, count) for name in STATISTICS}


def test_unchanged_batches_are_reported_at_the_stated_rate_at_most() -> None:
    generator = np.random.default_rng(1)
    reported = 0
    for _ in range(600):
        result = check_drift(batch(generator, 99), batch(generator, 60), level=0.1)
        assert result is not None
        reported += result.drifted
    assert reported / 600 < 0.12


@pytest.mark.parametrize(("shift", "drifted"), [(0.1, False), (0.4, True)])
def test_a_trifle_is_no_drift_however_many_images_show_it(shift: float, drifted: bool) -> None:
    generator = np.random.default_rng(5)
    result = check_drift(batch(generator, 2_000), batch(generator, 20_000, sharpness=shift))
    assert result is not None
    assert result.drifted is drifted
    assert [each.name for each in result.changed] == ["sharpness"] * drifted


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_defects_are_no_drift_however_many_and_good_images_that_score_higher_are(share: float) -> None:
    generator = np.random.default_rng(6)
    some = batch(generator, 300)
    some["score"][: round(300 * share)] += 6
    result = check_drift(batch(generator, 300), some)
    assert result is not None
    assert not result.drifted
    result = check_drift(batch(generator, 300), some | {"score": some["score"] + 1.5})
    assert result is not None
    assert (result.drifted, result.moved) == (True, "score")
    result = check_drift(batch(generator, 300), some | {"score": some["score"] + 9})  # none is usual any more
    assert result is not None
    assert (result.drifted, result.moved) == (True, "score")


def test_rows_of_an_older_version_lack_the_newer_facts() -> None:
    generator = np.random.default_rng(7)
    some = batch(generator, 100)
    some["noise"][:] = np.nan
    result = check_drift(batch(generator, 100), some)
    assert result is not None
    assert "noise" not in [each.name for each in result.statistics]


def test_what_moved_is_named_with_its_direction() -> None:
    generator = np.random.default_rng(2)
    result = check_drift(batch(generator, 150), batch(generator, 80, brightness=-1.0))
    assert result is not None
    assert result.drifted
    assert result.p_value < LEVEL
    assert result.moved == "brightness"
    assert "darker in" in str(result)
    assert result.advice == "Look at lamp, aperture and exposure time"


def test_a_few_defects_are_no_drift() -> None:
    generator = np.random.default_rng(3)
    some = batch(generator, 100)
    some["score"][:3] += 50
    result = check_drift(batch(generator, 150), some)
    assert result is not None
    assert not result.drifted
    assert str(result).startswith("No drift")


def test_too_few_images_tell_nothing() -> None:
    generator = np.random.default_rng(4)
    assert check_drift(batch(generator, FEWEST - 1), batch(generator, 99)) is None
    assert check_drift(batch(generator, 99), batch(generator, FEWEST - 1)) is None
    assert check_drift({}, batch(generator, 99)) is None


def sample_of(values: dict[str, np.ndarray], parts: int) -> Sample:
    sample = Sample()
    for rows in np.array_split(np.arange(len(values["score"])), parts):
        sample.add({name: column[rows] for name, column in values.items()})
    return sample


def test_a_large_batch_is_compared_by_a_sample_that_does_not_depend_on_its_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drift, "MOST", 100)
    values = batch(np.random.default_rng(0), 5_000)
    samples = [sample_of(values, parts) for parts in (1, 7, 400)]
    (kept,) = {tuple(np.sort(sample.values["score"]).tolist()) for sample in samples}
    assert (len(kept), samples[0].images) == (100, 5_000)
    assert not set(kept) <= set(values["score"][:1000].tolist())
    whole = sample_of(batch(np.random.default_rng(0), 80), 3)
    assert sorted(whole.values["score"]) == sorted(batch(np.random.default_rng(0), 80)["score"])


def test_a_sample_keeps_the_rate_and_sees_what_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "MOST", 60)
    generator, reported = np.random.default_rng(3), 0
    for _ in range(300):
        found = check_drift(batch(generator, 99), sample_of(batch(generator, 600), 5).values, level=0.1)
        assert found is not None
        reported += found.drifted
    assert reported / 300 <= 0.1 + 0.035
    moved = sample_of(batch(generator, 600, brightness=-1.0), 5)
    seen = check_drift(batch(generator, 150), moved.values, images=moved.images)
    assert seen is not None
    assert (seen.drifted, seen.moved, seen.images) == (True, "brightness", 600)


def test_what_is_kept_of_a_batch_does_not_grow_with_it() -> None:
    """A million images: their six statistics would take 48 MB."""
    tracemalloc.start()
    try:
        sample = Sample()
        for _ in range(250):
            sample.add(dict.fromkeys(STATISTICS, np.zeros(4_000)))
        assert sample.images == 1_000_000
        assert len(sample.values["score"]) == MOST
        assert tracemalloc.get_traced_memory()[1] < 24_000_000
    finally:
        tracemalloc.stop()


def test_what_lies_between_unchanged_and_changed_good_images_is_usual() -> None:
    generator = np.random.default_rng(8)
    changed = batch(generator, 300, sharpness=-2.0)  # copies that are blurred
    both = changed | {f"unchanged_{name}": values for name, values in batch(generator, 300).items()}
    for sharpness, drifted in ((0.0, False), (-1.0, False), (-2.0, False), (-4.0, True), (1.0, True)):
        result = check_drift(both, batch(generator, 150, sharpness=sharpness))
        assert result is not None
        assert result.drifted is drifted, sharpness


def test_advice_names_only_what_was_compared() -> None:
    generator = np.random.default_rng(9)
    older = {name: values for name, values in batch(generator, 150).items() if name in ("score", "brightness")}
    result = check_drift(older, batch(generator, 150, score=3.0))
    assert result is not None
    assert result.moves_verdicts
    assert (
        result.advice == "These are as they were: brightness. Look at the product itself: many images may be defective"
    )
