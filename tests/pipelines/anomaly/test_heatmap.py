"""Heat maps: good images stay clean, defects show, the order of colours is the order of values."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2lab

from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.heatmap import HeatScale, colourise, overlay, ramp_colours
from pipelines.anomaly.place_quantiles import GoodPlaces
from pipelines.images.drawing import png, to_8_bits

SCALE = HeatScale(1.0, 3.0)


def calibration(quantiles: dict[str, float]) -> Calibration:
    return Calibration(model_sha256="", scores=(1.0,), map_quantiles=quantiles)


def decoded(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_values_up_to_the_low_end_are_clear_and_more_is_more_opaque_and_darker() -> None:
    heat = colourise(np.linspace(0, 4, 401, dtype=np.float32)[None], SCALE)[0]
    assert heat.shape == (401, 4)
    assert heat.dtype == np.uint8
    assert (heat[:101, 3] == 0).all()
    assert (heat[301:] == heat[300]).all()
    assert (np.diff(heat[:, 3].astype(int)) >= 0).all()
    assert heat[110, 3] > 25  # colour sets in quickly
    assert heat[300, 3] < 220  # the defect can be seen through the deepest red
    lightness = rgb2lab(heat[100:301, :3])[:, 0]
    assert (np.diff(lightness) <= 0.05).all()
    assert lightness[0] - lightness[-1] > 50
    gold, red = heat[170, :3].astype(int), heat[280, :3].astype(int)
    assert gold[1] > 150 > 60 > red[1]


def test_the_scale_keeps_good_images_clean_and_lets_defects_glow() -> None:
    """A Gaussian and an exponential model of good pixels: about 1 % tinted, 0.1 % gold; ten deviations is deep red."""
    rng = np.random.default_rng(0)
    for good in (rng.standard_normal((50, 200, 200)), rng.exponential(size=(50, 200, 200))):
        quantiles = {key: float(np.quantile(good, float(key))) for key in ("0.5", "0.99", "0.999", "1.0")}
        scale = HeatScale.of(calibration(quantiles), good[0])
        heat = colourise(good[0].astype(np.float32), scale)
        assert (heat[..., 3] > 0).mean() < 0.013
        assert (heat[..., 3] > 100).mean() < 0.002
        assert scale.low < quantiles["1.0"] < scale.high * 1.3
        defect = colourise(np.full((2, 2), 20.0, np.float32), scale)
        assert defect[0, 0].tolist() == colourise(np.array([[scale.high]]), scale)[0, 0].tolist()


def test_one_odd_calibration_pixel_does_not_dim_the_defects() -> None:
    usual = {"0.5": 0.0, "0.99": 1.0, "0.999": 1.5, "1.0": 3.0}
    empty = np.zeros((2, 2), np.float32)
    assert (
        HeatScale.of(calibration(usual), empty)
        == HeatScale.of(calibration(usual | {"1.0": 500.0}), empty)
        == (1.0, 3.5, ())
    )


def test_a_colour_is_a_share_of_good_places() -> None:
    """Under two models whose maps differ in every way, the same rarity has the same colour."""
    generator = np.random.default_rng(3)
    for good in (generator.standard_normal(400_000), 7 - 3 * np.log(generator.random(400_000))):
        table = GoodPlaces.of(good, len(good))
        scale = HeatScale.of(calibration({}).model_copy(update={"places": table}), good[None])
        values = np.array([[table.value(share) for share in (0.5, 0.011, 1e-3, 1e-4, 1e-5)]])
        expected = ramp_colours(np.array([0.0, 0.0, 0.35, 0.75, 0.85])).astype(int)
        assert np.abs(colourise(values, scale)[0].astype(int) - expected).max() <= 3
        assert (colourise(values, scale)[0, :2, 3] == 0).all()
        beyond = colourise(np.array([[scale.high, 1e9]]), scale)[0]
        assert (beyond == ramp_colours(np.array([1.0]))[0]).all()


def test_few_or_equal_good_places_have_a_scale_too() -> None:
    for good in (np.array([1.0]), np.full(500, 3.0), np.zeros(500), np.arange(60.0)):
        scale = HeatScale.of(calibration({}).model_copy(update={"places": GoodPlaces.of(good, len(good))}), good[None])
        heat = colourise(np.array([[good.max() - 1e-3, good.max() + 100]]), scale)
        assert heat[0, 1].tolist() == ramp_colours(np.array([1.0]))[0].tolist()
        assert heat[0, 0, 3] < heat[0, 1, 3]


@pytest.mark.parametrize("calibrated", [None, calibration({})])
def test_without_a_calibration_the_map_has_its_own_scale(calibrated: Calibration | None) -> None:
    values = np.arange(1000, dtype=np.float32).reshape(20, 50)
    scale = HeatScale.of(calibrated, values)
    heat = colourise(values, scale)
    assert (heat[..., 3] > 0).sum() == pytest.approx(50, abs=2)
    assert heat[-1, -1].tolist() == colourise(np.array([[1e9]]), SCALE)[0, 0].tolist()


@pytest.mark.parametrize("values", [np.zeros((5, 6), np.float32), np.full((5, 6), np.nan, np.float32)])
def test_a_map_that_says_nothing_is_clear(values: NDArray[np.float32]) -> None:
    assert not colourise(values, HeatScale.of(None, values))[..., 3].any()


def test_odd_values_have_a_place_on_the_scale() -> None:
    heat = colourise(np.array([[np.nan, -np.inf, np.inf]], np.float32), SCALE)
    assert heat[0, :2, 3].tolist() == [0, 0]
    assert heat[0, 2].tolist() == colourise(np.array([[3.0]]), SCALE)[0, 0].tolist()
    flat = colourise(np.array([[0.0, 1.0, 1.1]], np.float32), HeatScale(1.0, 1.0))
    assert (flat[0, :, 3] > 0).tolist() == [False, False, True]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_overlay_changes_only_what_is_coloured(dtype: type, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (30, 40, channels)).astype(dtype)
    values = np.zeros((30, 40), np.float32)
    values[10:20, 5:9] = 3.0
    heat = colourise(values, SCALE)
    drawn = overlay(image, heat)
    assert drawn.shape == (30, 40, 3)
    assert drawn.dtype == np.uint8
    plain = np.broadcast_to(to_8_bits(image), (30, 40, 3))
    np.testing.assert_array_equal(drawn[values == 0], plain[values == 0])
    over = Image.alpha_composite(Image.fromarray(plain.copy()).convert("RGBA"), Image.fromarray(heat)).convert("RGB")
    assert np.abs(drawn.astype(int) - np.asarray(over)).max() <= 1


def test_an_overlay_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(4, 3\)"):
        overlay(np.zeros((3, 4, 1), np.uint8), np.zeros((4, 3, 4), np.uint8))


@pytest.mark.parametrize("place", [(0, 0), (1501, 777), (1999, 2999)])
def test_a_small_defect_survives_the_reduction(place: tuple[int, int]) -> None:
    """Four pixels in six million: an average would leave a hundredth of the colour."""
    values = np.zeros((2000, 3000), np.float32)
    values[max(0, place[0] - 1) : place[0] + 1, max(0, place[1] - 1) : place[1] + 1] = 3.0
    heat = decoded(png(colourise(values, SCALE), longest=320))
    strongest = np.unravel_index(heat[..., 3].argmax(), heat.shape[:2])
    assert heat[..., 3].max() > 120
    assert np.abs(np.array(strongest) - np.array(place) * 320 / 3000).max() <= 1.5
    assert (heat[..., 3] > 0).sum() < 20
