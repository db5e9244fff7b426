"""Where the good images of a folder lie, found from the scores of good images and some defects."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.folder_scale import FEWEST_IMAGES, FolderScale, NoScale, estimate_scale


def scores_of_good(generator: np.random.Generator, count: int) -> np.ndarray:
    """Skewed, as scores are."""
    return generator.gamma(4.0, size=count)


def calibration_of(scores: np.ndarray) -> Calibration:
    return Calibration(model_sha256="", scores=tuple(scores.tolist()), map_quantiles={})


@pytest.mark.parametrize("defects", [0.0, 0.05, 0.1])
@pytest.mark.parametrize(("move", "stretch"), [(0.0, 1.0), (5.0, 1.0), (20.0, 3.0), (-2.0, 0.5)])
def test_verdicts_keep_their_rate_wherever_good_images_have_gone(move: float, stretch: float, defects: float) -> None:
    generator, rates = np.random.default_rng(1), []
    calibration = calibration_of(scores_of_good(generator, 300))
    for _ in range(30):
        bad = round(200 * defects)
        good = move + stretch * scores_of_good(generator, 200 - bad)
        folder = np.concatenate([good, move + stretch * (scores_of_good(generator, bad) + 12)])
        scale = estimate_scale(folder, calibration)
        assert isinstance(scale, FolderScale)
        threshold = scale.from_calibration(np.array([calibration.threshold(0.05)]))[0]
        rates.append(float((good > threshold).mean()))
    assert 0.005 < np.mean(rates) < 0.09


def test_too_few_images_show_nothing() -> None:
    generator = np.random.default_rng(2)
    found = estimate_scale(scores_of_good(generator, FEWEST_IMAGES - 1), calibration_of(scores_of_good(generator, 99)))
    assert found == NoScale(f"it takes {FEWEST_IMAGES} images to see where good ones lie, and there are 49")


def test_a_folder_whose_images_are_mostly_apart_from_the_rest_has_no_scale() -> None:
    generator = np.random.default_rng(3)
    folder = np.concatenate([scores_of_good(generator, 120), 40 + 200 * generator.random(80)])
    found = estimate_scale(folder, calibration_of(scores_of_good(generator, 300)))
    assert isinstance(found, NoScale)


def test_calibration_images_that_all_score_the_same_give_no_scale() -> None:
    found = estimate_scale(np.arange(60.0), calibration_of(np.ones(30)))
    assert isinstance(found, NoScale)


@pytest.mark.parametrize("images", [200, 1000])
@pytest.mark.parametrize("share", [0.25, 0.3, 0.5])
@pytest.mark.parametrize("above", [8, 12, 40])
def test_defects_of_one_kind_that_are_many_leave_no_scale_behind_which_they_hide(
    images: int, share: float, above: float
) -> None:
    generator, hidden = np.random.default_rng(4), 0
    for _ in range(20):
        calibration, bad = calibration_of(scores_of_good(generator, 300)), round(images * share)
        folder = np.concatenate([scores_of_good(generator, images - bad), scores_of_good(generator, bad) + above])
        scale = estimate_scale(20 + 3 * folder, calibration)
        if isinstance(scale, FolderScale):
            threshold = scale.from_calibration(np.array([calibration.threshold(0.05)]))[0]
            hidden += ((20 + 3 * folder)[images - bad :] > threshold).mean() < 0.5
    assert hidden <= 4


def test_good_images_alone_nearly_always_have_a_scale() -> None:
    generator = np.random.default_rng(5)
    found = [
        estimate_scale(5 + 2 * scores_of_good(generator, 200), calibration_of(scores_of_good(generator, 300)))
        for _ in range(50)
    ]
    assert sum(isinstance(each, NoScale) for each in found) <= 4
