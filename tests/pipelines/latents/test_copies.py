"""Neighbours and copies: against brute force, in blocks of any size, and what chance makes of few latents."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from pipelines.images.resaved import alike, coarse, saved_again
from pipelines.latents import copies as module
from pipelines.latents.copies import CHANCE, Metric, chance_distance, find_closest, fit_metric
from pipelines.models.gallery import Gallery

UNIT = Metric("steps", np.ones(3), 1.0)


@pytest.fixture(params=[(512, 4096), (7, 5)], ids=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns = request.param
    monkeypatch.setattr(module, "ROWS", rows)
    monkeypatch.setattr(module, "COLUMNS", columns)


@pytest.mark.usefixtures("blocks")
def test_the_nearest_is_that_of_brute_force() -> None:
    points = 1000 + np.random.default_rng(0).normal(size=(83, 3))
    metric = Metric("steps", np.array([1.0, 0.2, 5.0]), 0.5)
    every = cdist(points / metric.scale, points / metric.scale)
    np.fill_diagonal(every, np.inf)
    counted = []
    found = find_closest(points, metric, advance=counted.append)
    np.testing.assert_array_equal(found.nearest, every.argmin(axis=1))
    np.testing.assert_allclose(found.distance, every.min(axis=1), rtol=1e-9)
    assert sum(counted) == 83
    kept = found.copy_of < 0
    assert 5 < kept.sum() < 80
    assert (every[np.ix_(kept, kept)] > 0.5).all(), "no two of what is left are alike"
    copies = np.flatnonzero(~kept)
    assert (every[copies, found.copy_of[copies]] <= 0.5).all()
    assert kept[found.copy_of[copies]].all(), "no copy of a copy"
    assert (found.copy_of[copies] < copies).all()


@pytest.mark.usefixtures("blocks")
def test_copies_of_copies_form_no_chain() -> None:
    line = np.arange(10)[:, None] * np.array([[0.7, 0.0, 0.0]])
    assert find_closest(line, UNIT).copy_of.tolist() == [-1, 0, -1, 2, -1, 4, -1, 6, -1, 8]


@pytest.mark.usefixtures("blocks")
def test_images_that_are_all_the_same_are_copies_of_the_first() -> None:
    found = find_closest(np.full((40, 3), 0.1, np.float32), Metric("steps", np.ones(3), 0.0))
    assert found.copy_of.tolist() == [-1] + [0] * 39
    assert (found.distance == 0).all()
    assert (found.nearest != np.arange(40)).all()


def test_chance_brings_as_many_pairs_together_as_it_says() -> None:
    generator, mixing = np.random.default_rng(1), np.array([[3.0, 0.0], [2.0, 0.5]])
    limit = chance_distance(mixing @ mixing.T, 400)
    within = []
    for _ in range(60):
        points = generator.normal(size=(400, 2)) @ mixing.T
        within.append((cdist(points, points)[np.triu_indices(400, 1)] < limit).sum())
    assert np.mean(within) == pytest.approx(CHANCE, abs=0.3)


def test_latents_that_say_nothing_do_not_loosen_the_limit() -> None:
    wide = np.diag([25.0, 16.0])
    assert chance_distance(np.diag([25.0, 16.0, 1e-9, 1e-12]), 50) == pytest.approx(chance_distance(wide, 50))
    assert chance_distance(np.zeros((3, 3)), 50) == 0


def moved(mean: np.ndarray, by: float) -> np.ndarray:
    return by * np.random.default_rng(5).normal(size=(50, mean.shape[1]))


def test_copies_are_as_near_as_most_images_that_were_saved_again() -> None:
    generator = np.random.default_rng(0)
    mean, scale = generator.normal(size=(2000, 16)), np.full((2000, 16), 0.1)
    metric = fit_metric(mean, scale, moved(mean, 0.02))
    assert metric.unit == "posterior standard deviations"
    np.testing.assert_allclose(metric.scale, 0.1)
    expected = np.quantile(np.linalg.norm(moved(mean, 0.02), axis=1) / 0.1, 0.9)
    assert (metric.limit, metric.by_chance) == (pytest.approx(expected), False)
    assert fit_metric(mean, scale, moved(mean, 0.0)).limit == 0
    assert fit_metric(mean, scale, np.empty((0, 16))).limit == 0


def test_few_latents_and_many_images_lower_the_limit_and_a_gallery_knows_better() -> None:
    generator = np.random.default_rng(0)
    mean, scale = generator.normal(size=(2000, 2)), np.full((2000, 2), 0.1)
    few = fit_metric(mean, scale, moved(mean, 0.05))
    assert few.by_chance
    assert few.limit < 0.02
    assert not fit_metric(mean[:10], scale[:10], moved(mean, 0.05)).by_chance, "nobody knows how far apart others are"
    codes = generator.normal(size=(50, 16))
    gallery = Gallery(
        tuple("x" * 50), np.zeros(16), np.ones(16), codes, np.zeros((50, 4, 4, 3), np.uint8), np.full((50, 2), 4)
    )
    burst, narrow = 1e-3 * generator.normal(size=(500, 16)), np.full((500, 16), 0.1)  # a camera that stood still
    assert fit_metric(burst, narrow, moved(burst, 0.01)).by_chance
    assert not fit_metric(burst, narrow, moved(burst, 0.01), gallery).by_chance


def test_images_that_are_all_the_same_are_not_alike_by_chance() -> None:
    same, scale = np.full((60, 16), 0.5), np.full((60, 16), 0.1)
    metric = fit_metric(same, scale, moved(same, 0.05))
    assert metric.limit > 0
    assert not metric.by_chance


@pytest.mark.parametrize("scale", [None, np.zeros((40, 2))])
def test_without_a_posterior_scale_distances_are_in_units_of_the_folder(scale: np.ndarray | None) -> None:
    mean = np.random.default_rng(0).normal(size=(40, 2)) * [5.0, 0.0]
    metric = fit_metric(mean, scale, np.zeros((3, 2)))
    assert (metric.unit, metric.limit) == ("standard deviations over the folder", 0.0)
    assert find_closest(mean, metric).copy_of.max() == -1
    mean[7] = mean[30]
    assert find_closest(mean, metric).copy_of[30] == 7


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint8, 3), (np.uint16, 1), (np.uint16, 3)])
def test_an_image_that_is_saved_again_is_nearly_the_same(dtype: type, channels: int) -> None:
    largest = np.iinfo(dtype).max
    ramp = np.linspace(0.1, 1.0, 24)[:, None, None] * np.linspace(0.5, 1.0, 32)[None, :, None]
    pixels = np.repeat((ramp * largest).astype(dtype), channels, axis=2)
    again = saved_again(pixels)
    assert (again.dtype, again.shape) == (pixels.dtype, pixels.shape)
    assert 0 < np.abs(again.astype(float) - pixels).mean() < 0.02 * largest


def test_what_is_called_a_copy_also_looks_like_it() -> None:
    """Whatever a model says: light may differ, what is shown may not."""
    random = np.random.default_rng(0)
    image = np.kron(random.integers(20, 200, (8, 8, 1)), np.ones((4, 4, 1))).astype(np.uint8)
    assert alike(coarse(image), coarse(saved_again(image)))
    assert alike(coarse(image), coarse((image // 2 + 30).astype(np.uint8)))
    assert not alike(coarse(image), coarse(image[:, ::-1]))
    assert not alike(coarse(image), coarse(np.full_like(image, 9)))
    assert alike(coarse(np.full_like(image, 9)), coarse(np.full_like(image, 10)))
