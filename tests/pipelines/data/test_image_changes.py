"""Changes of light and camera: each does what it says, in its range, and is repeatable."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.data.image_changes import NORMAL_CHANGES, add_noise, cast_colour, expose, move, save_as_jpeg, turn, vary
from pipelines.jobfile.tables import DataTable


def picture(dtype: type = np.uint8, channels: int = 3) -> np.ndarray:
    top = np.iinfo(dtype).max
    values = np.random.default_rng(0).uniform(0.3, 0.6, (61, 80, channels))
    values[20:30, 30:50] = 0.7
    return (values * top).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NORMAL_CHANGES)
def test_a_change_keeps_the_form_and_repeats(name: str, channels: int, dtype: type) -> None:
    before = picture(dtype, channels)
    first, again, other = (vary(before, [name], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first.shape, first.dtype) == (before.shape, before.dtype)
    np.testing.assert_array_equal(first, again)
    if (name, channels) != ("colour", 1):
        assert (first != other).any()


def test_without_changes_nothing_changes() -> None:
    assert vary(picture(), [], np.random.default_rng(0)) is not None
    np.testing.assert_array_equal(vary(picture(), [], np.random.default_rng(0)), picture())
    np.testing.assert_array_equal(move(picture(), down=0, across=0), picture())


def test_strengths_are_those_that_are_named() -> None:
    before, random = picture().astype(float), np.random.default_rng(0)
    assert expose(picture(), factor=0.8).mean() == pytest.approx(0.8 * before.mean(), rel=0.01)
    assert (add_noise(picture(), random, levels=5) - before).std() == pytest.approx(5, rel=0.05)
    assert cast_colour(picture(), red=1.1, blue=0.9)[..., 0].mean() == pytest.approx(
        1.1 * before[..., 0].mean(), rel=0.01
    )
    grey = picture(channels=1)
    assert 0 < np.abs(save_as_jpeg(grey, quality=95) - grey.astype(float)).mean() < 4
    bright = np.zeros((100, 100, 1), np.uint8)
    bright[40:60, 40:60] = 200
    rows, columns = (
        np.flatnonzero(move(bright, down=0.1, across=-0.1)[..., 0].max(axis=axis) > 100) for axis in (1, 0)
    )
    assert rows.mean() < 49.5 < columns.mean()
    corner = turn(bright, degrees=10)[..., 0]
    assert corner.sum() > 1.1 * bright.sum()  # the middle is enlarged
    assert not np.array_equal(corner, bright[..., 0])


def test_the_job_file_knows_every_change() -> None:
    table = DataTable(train="x", normal_changes=tuple(NORMAL_CHANGES))  # type: ignore[arg-type]
    assert set(table.normal_changes) == set(NORMAL_CHANGES)
    with pytest.raises(ValueError, match="normal_changes"):
        DataTable(train="x", normal_changes=("weather",))  # type: ignore[arg-type]
