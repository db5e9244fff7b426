"""Abnormal regions: counted, measured and outlined where they are, to the pixel."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pipelines.anomaly.abnormal_regions import (
    LOCAL_LEVEL,
    Level,
    Regions,
    describe_scale,
    draw_outlines,
    find_regions,
    local_level,
    simplify,
    svg_path,
)
from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.place_quantiles import GoodPlaces

LEVEL = Level(1.0, 0.001)


def calibration(quantiles: dict[str, float], places: GoodPlaces | None = None) -> Calibration:
    return Calibration(model_sha256="", scores=(1.0,), map_quantiles=quantiles, places=places)


def two_regions() -> np.ndarray:
    values = np.zeros((100, 200), np.float32)
    values[10:30, 20:60] = 3.0  # 800 pixels
    values[70:80, 150:160] = 2.0  # 100
    values[50, 50] = 9.0  # one: a speck below 0.1 %
    return values


def test_regions_are_counted_and_measured() -> None:
    found = find_regions(two_regions(), LEVEL)
    assert found is not None
    assert (found.number, found.area) == (2, pytest.approx(100 * 900 / 20_000))
    assert (found.box, found.centre) == ((20, 10, 40, 20), (40.0, 20.0))
    assert len(found.outlines) == 2
    for outline, box in zip(found.outlines, ((20, 10, 60, 30), (150, 70, 160, 80)), strict=True):
        np.testing.assert_array_equal(outline[0], outline[-1])
        low, high = outline.min(axis=0), outline.max(axis=0)
        assert np.abs(np.r_[low, high] - box).max() <= 0.5  # where the map crosses the level, between two pixels


def test_nothing_above_the_level_is_no_region_and_no_level_is_no_answer() -> None:
    assert find_regions(np.ones((5, 5), np.float32), LEVEL) == Regions()
    assert find_regions(np.full((5, 5), np.nan, np.float32), LEVEL) == Regions()
    assert find_regions(two_regions(), None) is None
    specks = np.zeros((100, 200), np.float32)
    specks[::9, ::9] = 5.0
    assert find_regions(specks, LEVEL) == Regions()
    assert set(Regions().columns().values()) == {0, None}


def test_the_region_with_the_highest_value_is_placed_though_another_is_larger() -> None:
    values = two_regions()  # the speck is the highest value of all, and is no region
    values[75, 155] = 4.0
    found = find_regions(values, LEVEL)
    assert found is not None
    assert (found.box, found.place, found.highest) == ((20, 10, 40, 20), "lower right", (155.5, 75.5))


@pytest.mark.parametrize(
    ("rows", "columns", "shape", "place"),
    [
        ((0, 10), (0, 10), (90, 90), "upper left"),
        ((0, 10), (40, 50), (90, 90), "top"),
        ((40, 50), (40, 50), (90, 90), "centre"),
        ((40, 50), (80, 90), (90, 90), "right"),
        ((80, 90), (80, 90), (90, 90), "lower right"),
        ((40, 50), (5, 85), (90, 90), "across the centre"),
        ((5, 85), (0, 10), (90, 90), "down the left"),
        ((5, 85), (5, 85), (90, 90), "across the image"),
        ((0, 3), (0, 20), (20, 200), "left"),  # a strip has no upper side worth a word
        ((0, 20), (0, 20), (20, 200), "left"),
        ((180, 199), (0, 5), (200, 20), "bottom"),
        ((0, 20), (10, 190), (20, 200), "across the image"),
    ],
)
def test_a_place_is_named_as_a_person_would_point_at_it(
    rows: tuple[int, int], columns: tuple[int, int], shape: tuple[int, int], place: str
) -> None:
    values = np.zeros(shape, np.float32)
    values[slice(*rows), slice(*columns)] = 2.0
    found = find_regions(values, LEVEL)
    assert found is not None
    assert found.place == place


def test_pixels_that_touch_by_a_corner_are_one_region() -> None:
    values = np.zeros((20, 20), np.float32)
    values[2:6, 2:6] = values[6:10, 6:10] = 2.0
    found = find_regions(values, LEVEL)
    assert found is not None
    assert (found.number, len(found.outlines), found.box) == (1, 1, (2, 2, 8, 8))


def test_a_region_at_the_edge_is_closed_within_the_image_and_a_hole_is_outlined() -> None:
    values = np.full((30, 40), 5.0, np.float32)
    values[10:20, 10:20] = 0.0
    values[12, 12] = np.nan
    found = find_regions(values, LEVEL)
    assert found is not None
    assert (found.number, found.box) == (1, (0, 0, 40, 30))
    outer, hole = sorted(found.outlines, key=lambda outline: -np.ptp(outline, axis=0).sum())
    assert outer.min(axis=0).tolist() == [0, 0]
    assert outer.max(axis=0).tolist() == [40, 30]
    assert np.abs(np.r_[hole.min(axis=0), hole.max(axis=0)] - [10, 10, 20, 20]).max() <= 0.5


def test_a_region_beside_another_has_an_outline_of_its_own() -> None:
    """One lies within the other's box."""
    values = np.zeros((40, 40), np.float32)
    values[2:38, 2:6] = values[2:6, 2:38] = 4.0
    values[20:30, 20:30] = 4.0
    found = find_regions(values, LEVEL)
    assert found is not None
    assert (found.number, len(found.outlines)) == (2, 2)


@pytest.mark.parametrize("odd", [np.inf, 3e38])
def test_values_without_measure_have_an_outline(odd: float) -> None:
    values = np.zeros((10, 10), np.float32)
    values[3:6, 3:6] = odd
    found = find_regions(values, LEVEL)
    assert found is not None
    assert np.isfinite(found.outlines[0]).all()
    assert found.box == (3, 3, 3, 3)


def test_a_large_map_is_measured_in_pixels_of_the_image() -> None:
    values = np.zeros((3001, 2000), np.float32)
    values[600:1200, 1500:] = 2.0
    found = find_regions(values, LEVEL)
    assert found is not None
    assert found.box is not None
    assert found.centre is not None
    assert np.abs(np.array(found.box) - (1500, 600, 500, 600)).max() <= 3
    assert np.abs(np.array(found.centre) - (1750, 900)).max() <= 3
    assert found.area == pytest.approx(100 * 600 * 500 / (3001 * 2000), rel=0.01)
    assert (found.outlines[0] <= (2000, 3001)).all()


def test_the_level_is_a_share_of_good_places() -> None:
    good = np.random.default_rng(0).standard_normal(100_000)
    level = local_level(calibration({}, GoodPlaces.of(good, len(good))))
    assert level is not None
    assert level.share == LOCAL_LEVEL
    assert (good > level.value).mean() == pytest.approx(LOCAL_LEVEL, rel=0.05)
    few = local_level(calibration({}, GoodPlaces.of(good, 99)))
    assert few == Level(pytest.approx(good.max()), 0.01, pytest.approx(0.5 / 99))
    assert local_level(calibration({"0.5": 0.0, "0.99": 1.0, "0.999": 1.5, "1.0": 3.0})) == Level(1.5, 0.001)
    assert local_level(calibration({})) is None
    assert local_level(None) is None


def test_a_speck_is_smaller_than_half_a_place_of_the_maps_own_grid() -> None:
    """A place of 32 x 32 is a smaller share of the image than a thousandth: its pixels are a region none the less."""
    two_images = calibration({}, GoodPlaces.of(np.zeros(100), 2 * 32 * 32)).model_copy(update={"scores": (1.0, 2.0)})
    level = local_level(two_images)
    assert level is not None
    assert level.speck == pytest.approx(0.5 / 32**2)
    values = np.zeros((512, 512), np.float32)
    values[16:32, 16:32] = 5.0  # one place of 16 x 16 pixels
    values[100:110, 100:110] = 5.0  # less than half of one
    found = find_regions(values, level)
    assert found is not None
    assert (found.number, found.box) == (1, (16, 16, 16, 16))
    scale = describe_scale(two_images)
    assert scale is not None
    assert scale["speck_percent"] == 100 * level.speck


def test_one_pixel_of_a_fine_grid_is_a_speck() -> None:
    level = local_level(
        calibration({}, GoodPlaces.of(np.zeros(100), 3 * 256 * 256)).model_copy(update={"scores": (1.0, 2.0, 3.0)})
    )
    assert level is not None
    assert level.speck == pytest.approx(2.5e-4)


def test_what_colours_mean_is_told_as_far_as_it_is_known() -> None:
    scale = describe_scale(calibration({}, GoodPlaces.of(np.arange(5000.0), 5000)))
    assert scale is not None
    assert (scale["places"], scale["smallest"], scale["level"]) == (5000, 1 / 5001, 0.001)
    assert [share for share, _ in scale["colours"]] == [0.01, 0.001, 1 / 5001]
    assert describe_scale(None) is None


def test_outlines_are_drawn_on_the_line_and_nowhere_else() -> None:
    found = find_regions(two_regions(), LEVEL)
    assert found is not None
    picture = np.full((100, 200, 3), 128, np.uint8)
    drawn = draw_outlines(picture, found.outlines)
    changed = (drawn != picture).any(axis=2)
    assert changed[10:30, 18:23].any(axis=1).all()  # the left side of the larger one
    assert not changed[14:26, 25:55].any()  # within
    assert not changed[35:65].any()  # between the two, where the speck is
    assert (drawn == 255).all(axis=2).any()
    assert (draw_outlines(picture, ()) == picture).all()


def test_a_path_is_in_pixels_of_the_drawing() -> None:
    square = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 2000.0], [0.0, 0.0]])
    assert svg_path([square], 0.5) == "M0 0L5 0L5 1000Z"
    assert svg_path([], 1.0) == ""


@pytest.mark.parametrize("tolerance", [0.05, 0.15, 0.5, 2.0])
def test_outlines_are_simplified_as_scikit_image_does(tolerance: float) -> None:
    """Against another library, on the outlines of random blobs."""
    from skimage.measure import approximate_polygon, find_contours

    field = gaussian_filter(np.random.default_rng(3).standard_normal((64, 64)), 3)
    outlines = find_contours(field, 0.02)
    assert len(outlines) > 5
    for outline in outlines:
        ours, theirs = simplify(outline, tolerance), approximate_polygon(outline, tolerance)
        assert len(ours) <= 1.1 * len(theirs) + 1
        assert max(min(_distance(point, *ends) for ends in pairwise(ours)) for point in outline) <= tolerance + 1e-9


def _distance(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """From a point to a stretch of a line."""
    along = np.clip((point - start) @ (end - start) / max((end - start) @ (end - start), 1e-12), 0, 1)
    return float(np.linalg.norm(point - start - along * (end - start)))
