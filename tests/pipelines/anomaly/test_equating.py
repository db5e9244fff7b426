"""Scores of folds on the final model's scale: an affine change is found, few images are believed little, none moves."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.equating import Reserve

NO_FOLD = np.zeros(3, dtype=np.int64)
SCORES = np.array([-1.0, 1.0, 3.0])


def drawn(images: int, folds: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What folds and the final model make of images: 1 + final / 0.8 and final, each fold 0.3 off."""
    final = np.random.default_rng(seed).standard_normal(images)
    return 1 + final / 0.8 + np.linspace(-0.3, 0.3, folds)[:, None], final


def test_with_many_images_the_scale_is_the_final_models() -> None:
    folds, final = drawn(4000)
    fold_of = np.array([0, 1, 1])
    expected = 0.8 * (SCORES - 1 - np.array([-0.3, 0.3, 0.3]))
    np.testing.assert_allclose(Reserve(folds, final).equate(SCORES, fold_of), expected, atol=0.02)


def test_nothing_in_reserve_moves_nothing() -> None:
    assert Reserve(np.zeros((2, 0)), np.zeros(0)).equate(SCORES, NO_FOLD) is SCORES


def test_one_odd_image_hardly_moves_a_threshold() -> None:
    alone = Reserve(np.full((2, 1), 20.0), np.array([15.0]))
    np.testing.assert_allclose(alone.equate(SCORES, NO_FOLD), SCORES - 1.0)  # a fifth of five
    folds, final = drawn(12)
    calm = Reserve(folds, final).equate(SCORES, NO_FOLD)
    folds[:, 3], final[3] = 20.0, 15.0
    assert np.abs(Reserve(folds, final).equate(SCORES, NO_FOLD) - calm).max() < 0.5


@pytest.mark.parametrize("images", [2, 3, 40])
def test_images_that_are_all_the_same_do_not_press_the_scores_together(images: int) -> None:
    for spread in (0.0, 1e-9, 1.0):
        folds = 1 + spread * np.random.default_rng(0).standard_normal((2, images))
        found = Reserve(folds, np.zeros(images)).equate(SCORES, NO_FOLD)
        assert np.diff(found).min() >= 0.5 * np.diff(SCORES).min()


def test_many_images_of_one_piece_are_believed_as_one() -> None:
    folds, final = drawn(40)
    moved = SCORES - Reserve(folds, final, ("a",) * 40).equate(SCORES, NO_FOLD)
    np.testing.assert_allclose(moved, -0.2 * np.median(final - folds[0]))


def test_an_image_is_judged_on_a_scale_that_it_took_no_part_in() -> None:
    folds, final = drawn(9)
    changed = final.copy()
    changed[4] += 100
    pairs = zip(Reserve(folds, final).without_each(), Reserve(folds, changed).without_each(), strict=True)
    for image, ((before, own), (after, own_after)) in enumerate(pairs):
        same = np.array_equal(before.equate(SCORES, NO_FOLD), after.equate(SCORES, NO_FOLD))
        assert same == (image == 4)
        assert (own == own_after).all() == (image != 4)
    pieces = ("a", "a", "b", "b", "b", "c", "c", "c", "c")
    assert [len(own) for _, own in Reserve(folds, final, pieces).without_each()] == [2, 3, 4]


def test_the_realised_rate_comes_nearer_to_the_one_asked_and_stays_below_it() -> None:
    chance = np.random.default_rng(1)
    rates: dict[str, list[float]] = {"folds": [], "final": []}
    for _ in range(300):
        reserve, images, new = (chance.standard_normal(count) for count in (20, 240, 2000))
        under_folds = 0.4 + 1.25 * reserve + 0.2 * chance.standard_normal((5, 20))
        scores, fold_of = 0.4 + 1.25 * images, np.arange(240) % 5
        on_scale = Reserve(under_folds, reserve).equate(scores, fold_of)
        for name, calibration in (("folds", scores), ("final", on_scale)):
            made = Calibration(model_sha256="", scores=tuple(calibration.tolist()), map_quantiles={})
            rates[name].append(float((new > made.threshold(0.05)).mean()))
    assert np.mean(rates["folds"]) < 0.02
    assert 0.03 < np.mean(rates["final"]) <= 0.05
