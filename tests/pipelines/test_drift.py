"""Drift of a batch: reported when light or detail change, and at its stated rate when nothing does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipelines.drift import FEWEST, LEVEL, STATISTICS, check_drift, image_facts, mann_whitney


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
