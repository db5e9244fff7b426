"""Drift of a batch: reported when light or detail change, and at its stated rate when nothing does."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from pipelines.anomaly import drift
from pipelines.anomaly.drift import FEWEST, LEVEL, MOST, STATISTICS, Sample, check_drift, image_facts, mann_whitney


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
    assert 0.02 < reported / 600 < 0.12


def test_what_moved_is_named_with_its_direction() -> None:
    generator = np.random.default_rng(2)
    result = check_drift(batch(generator, 150), batch(generator, 80, brightness=-1.0))
    assert result is not None
    assert result.drifted
    assert result.p_value < LEVEL
    assert result.moved == "brightness"
    assert "brightness is lower in" in str(result)


def test_a_few_defects_are_no_drift() -> None:
    generator = np.random.default_rng(3)
    some = batch(generator, 100)
    some["score"][:3] += 50
    result = check_drift(batch(generator, 150), some)
    assert result is not None
    assert not result.drifted
    assert str(result).startswith("no drift")


def test_too_few_images_tell_nothing() -> None:
    generator = np.random.default_rng(4)
    assert check_drift(batch(generator, FEWEST - 1), batch(generator, 99)) is None
    assert check_drift(batch(generator, 99), batch(generator, FEWEST - 1)) is None
    assert check_drift({}, batch(generator, 99)) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_facts_are_shares_of_the_range_whatever_the_depth(dtype: type) -> None:
    top = np.iinfo(dtype).max
    board = (np.indices((8, 8)).sum(axis=0) % 2 * top).astype(dtype)[..., None]
    facts = image_facts(board)
    assert facts["brightness"] == pytest.approx(0.5)
    assert facts["contrast"] == pytest.approx(0.5)
    assert facts["detail"] == pytest.approx(2.0)
    assert image_facts(np.full((1, 1, 3), top, dtype)) == pytest.approx({"brightness": 1, "contrast": 0, "detail": 0})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(600, 531, 3), (1, 7, 1), (64, 1, 3)])
def test_facts_are_those_of_floating_point(dtype: type[np.unsignedinteger], shape: tuple[int, ...]) -> None:
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(1).integers(0, top, shape, dtype=dtype, endpoint=True)
    step = max(1, min(shape[:2]) // 256)
    some = pixels[::step, ::step] / top
    detail = sum(np.abs(np.diff(some, axis=axis)).mean() for axis in (0, 1) if some.shape[axis] > 1)
    expected = {"brightness": some.mean(), "contrast": some.std(), "detail": detail}
    assert image_facts(pixels) == pytest.approx(expected, rel=1e-9)


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
