"""Figures of merit: against scikit-learn, against loops over every threshold, and against cases worked by hand."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.measure import label
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from pipelines.anomaly import figures_of_merit
from pipelines.anomaly.figures_of_merit import PixelFigures, average_precision, image_auroc, roc_points
from pipelines.errors import DataError

NAN = float("nan")


def draw(seed: int, n: int = 200, *, ties: bool) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.3
    scores = rng.standard_normal(n) + labels
    return (np.round(scores * 2) / 2 if ties else scores), labels


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_image_figures_agree_with_scikit_learn(seed: int, ties: bool) -> None:
    scores, labels = draw(seed, ties=ties)
    assert image_auroc(scores, labels).value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    curve = roc_points(scores, labels, limit=10_000)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert set(curve) <= set(zip(fpr.tolist(), tpr.tolist(), strict=True))
    assert np.trapezoid(*np.array(curve).T[::-1]) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_delong_variance_is_the_textbook_sum() -> None:
    scores, labels = draw(7, 60, ties=True)
    bad, good = scores[labels], scores[~labels]
    kernel = np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in good] for x in bad])
    area = kernel.mean()
    variance = sum((kernel.mean(1) - area) ** 2) / (len(bad) - 1) / len(bad) + sum((kernel.mean(0) - area) ** 2) / (
        len(good) - 1
    ) / len(good)
    reach = 1.959963984540054 * np.sqrt(variance) / (area * (1 - area))
    logit = np.log(area / (1 - area))
    expected = [1 / (1 + np.exp(-(logit - reach))), 1 / (1 + np.exp(-(logit + reach)))]
    assert image_auroc(scores, labels).interval == pytest.approx(expected, abs=1e-12)


def test_the_interval_covers_the_true_area() -> None:
    """Two unit normals 1.5 apart: the true area is Phi(1.5 / sqrt 2) = 0.8556."""
    rng = np.random.default_rng(11)
    labels = np.arange(90) < 30
    covered = 0
    for _ in range(1000):
        interval = image_auroc(rng.standard_normal(90) + 1.5 * labels, labels).interval
        assert interval is not None
        covered += interval[0] <= 0.85558 <= interval[1]
    assert 0.93 <= covered / 1000 <= 0.97


def test_image_figures_at_their_ends() -> None:
    right, wrong = [0.0, 0.1, 0.8, 0.9], [0.8, 0.9, 0.0, 0.1]
    labels = [False, False, True, True]
    assert image_auroc(right, labels) == (1.0, None)
    assert image_auroc(wrong, labels) == (0.0, None)
    assert image_auroc([1.0] * 4, labels) == (0.5, None)
    assert image_auroc([0.0, 1.0, 0.5], [False, False, True]) == (0.5, None)
    assert average_precision(right, labels) == 1.0
    assert average_precision([1.0] * 4, labels) == 0.5
    assert roc_points(right, labels) == [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    assert roc_points([1.0] * 4, labels) == [(0.0, 0.0), (1.0, 1.0)]


@pytest.mark.parametrize(("scores", "labels"), [([], []), ([1.0, 2.0], [True, True]), ([1.0, 2.0], [False, False])])
def test_a_missing_class_has_no_figures(scores: list[float], labels: list[bool]) -> None:
    assert image_auroc(scores, labels) == (None, None)
    assert average_precision(scores, labels) is None
    assert roc_points(scores, labels) == []


@pytest.mark.parametrize("figure", [image_auroc, average_precision, roc_points])
def test_scores_that_cannot_be_ranked_are_refused(figure: object) -> None:
    assert callable(figure)
    with pytest.raises(DataError, match="1 of 2 scores are NaN"):
        figure([1.0, NAN], [True, False])
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        figure([1.0, 2.0], [True, False, True])


def test_the_roc_curve_is_thinned_evenly() -> None:
    scores, labels = draw(3, 20_000, ties=False)
    whole, thin = (np.array(roc_points(scores, labels, limit)) for limit in (10**6, 200))
    assert len(whole) > 2000
    assert 150 < len(thin) <= 200
    assert thin[0].tolist() == [0, 0]
    assert thin[-1].tolist() == [1, 1]
    assert (np.diff(thin, axis=0) >= 0).all()
    assert max(abs(b - a).sum() for a, b in pairwise(thin)) < 0.02
    area = np.trapezoid(thin[:, 1], thin[:, 0])
    assert area == pytest.approx(roc_auc_score(labels, scores), abs=1e-3)


# --- pixels ---------------------------------------------------------------------------------------------------------

Sample = tuple[NDArray[np.float32], NDArray[np.bool_] | None, str | None]


def naive(samples: list[Sample]) -> tuple[float, float]:
    """Pixel AUROC and AUPRO from one loop over every distinct threshold."""
    goods, bads, regions = [], [], []
    for values, mask, _ in samples:
        inside = np.zeros(values.shape, bool) if mask is None else mask
        goods.append(values[~inside])
        bads.append(values[inside])
        marks = label(inside, connectivity=2)
        regions += [values[marks == mark] for mark in range(1, marks.max() + 1)]
    good, bad = np.concatenate(goods), np.concatenate(bads)
    fpr, tpr, pro = [0.0], [0.0], [0.0]
    for threshold in np.unique(np.concatenate([good, bad]))[::-1]:
        fpr.append((good >= threshold).mean())
        tpr.append((bad >= threshold).mean())
        pro.append(np.mean([(region >= threshold).mean() for region in regions]))
    area = 0.0
    for (x0, x1), (y0, y1) in zip(pairwise(fpr), pairwise(pro), strict=True):
        if x0 < 0.3:
            end = min(x1, 0.3)
            y_end = y0 + (y1 - y0) * ((end - x0) / (x1 - x0) if x1 > x0 else 1)
            area += (end - x0) * (y0 + y_end) / 2
    return float(np.trapezoid(tpr, fpr)), area / 0.3


def data_set(seed: int, *, ties: bool, offset: float = 0.0) -> list[Sample]:
    """Six good images and nine with defects of three kinds, of several sizes, with regions that touch at corners."""
    rng = np.random.default_rng(seed)
    samples: list[Sample] = []
    for index in range(15):
        height, width = rng.integers(9, 24, 2)
        values = rng.standard_normal((height, width))
        mask = None
        if index >= 6:
            mask = np.zeros((height, width), bool)
            for _ in range(3):
                y, x = rng.integers(0, height - 4), rng.integers(0, width - 4)
                mask[y : y + rng.integers(1, 5), x : x + rng.integers(1, 5)] = True
            mask[0, 0], mask[1, 1], mask[2, 0] = True, True, True
            values = values + rng.uniform(0, 2.5) * mask
        if ties:
            values = np.round(values)
        defect = None if index < 6 else ("crack", "stain", "faint")[index % 3]
        samples.append(((values + offset).astype(np.float32), mask, defect))
    return samples


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_pixel_figures_are_those_of_a_loop_over_all_thresholds(seed: int, ties: bool) -> None:
    samples = data_set(seed, ties=ties)
    pixels = PixelFigures()
    for values, mask, defect in samples:
        pixels.add(values, mask, defect=defect)
    overall, defects = pixels.results()
    assert overall == pytest.approx(naive(samples), abs=1e-9)
    assert set(defects) == {"crack", "stain", "faint"}
    for name, result in defects.items():
        assert result == pytest.approx(naive([s for s in samples if s[2] in (None, name)]), abs=1e-9)


def test_aupro_by_hand() -> None:
    """Ten good pixels 0..9; a region {9.5}, found before any false alarm, and a region {7.5, -1}: half found after two.

    The mean overlap is 1/2 up to a rate of 0.2 and 3/4 from there to 0.3: (0.2 / 2 + 0.1 * 3 / 4) / 0.3 = 7/12.
    """
    pixels = PixelFigures()
    pixels.add(np.arange(10, dtype=np.float32).reshape(2, 5), None, defect=None)
    pixels.add(np.array([[9.5, 8.0, 7.5, -1.0]], np.float32), np.array([[True, False, True, True]]), defect="hole")
    pixels_without_8 = PixelFigures()
    pixels_without_8.add(np.array([[9, 8, 7, 6, 5, 4, 3, 2, 1]], np.float32), None, defect=None)
    pixels_without_8.add(np.array([[9.5, 0.0, 7.5, -1.0]], np.float32), np.array([[1, 0, 1, 1]], bool), defect="hole")
    overall, defects = pixels_without_8.results()
    assert overall.aupro == pytest.approx(7 / 12, abs=1e-12)
    assert overall.pixel_auroc == pytest.approx((1 + 0.8 + 0) / 3, abs=1e-12)
    assert defects == {"hole": overall}
    # With the 8.0 as an eleventh good pixel, three of them come before 7.5: past that, 3/11 to 0.3 counts 3/4.
    assert pixels.results()[0].aupro == pytest.approx((3 / 11 / 2 + (0.3 - 3 / 11) * 3 / 4) / 0.3, abs=1e-12)


def test_aupro_counts_regions_and_auroc_pixels() -> None:
    """A large region that is found and a small one that is not: half the regions, nine tenths of the pixels."""
    pixels = PixelFigures()
    pixels.add(np.zeros((5, 5), np.float32), None, defect=None)
    values, mask = np.zeros((5, 5), np.float32), np.zeros((5, 5), bool)
    mask[:3, :3], values[:3, :3] = True, 1
    mask[4, 4], values[4, 4] = True, -1
    pixels.add(values, mask, defect="x")
    assert pixels.results()[0] == pytest.approx((0.9, 0.5))


def test_corners_join_a_region() -> None:
    """A diagonal of three pixels is one region: one third of it found is one third of the overlap."""
    pixels = PixelFigures()
    pixels.add(np.diag([1.0, -1.0, -1.0]).astype(np.float32), np.eye(3, dtype=bool), defect="scratch")
    assert pixels.results()[0].aupro == pytest.approx(1 / 3)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_past_the_limit_of_memory_the_figures_move_by_less_than_promised(
    monkeypatch: pytest.MonkeyPatch, offset: float
) -> None:
    """Blocks of 4,096 pixels and 512 quantiles: ranks are known to 1/1,024, wherever the map's zero is."""
    rng = np.random.default_rng(5)
    exact, rough = PixelFigures(), PixelFigures()
    for index in range(24):
        values = rng.gamma(2.0, 1.0, (60, 70)) + offset
        mask = None
        if index >= 12:
            mask = np.zeros((60, 70), bool)
            mask[5:45, 10:50] = True
            mask[50, 60] = True
            values += rng.uniform(0.5, 3) * mask
        defect = None if index < 12 else ("a", "b")[index % 2]
        for pixels, block, points in ((exact, 2**24, 2**16), (rough, 4096, 512)):
            monkeypatch.setattr(figures_of_merit, "BLOCK", block)
            monkeypatch.setattr(figures_of_merit, "POINTS", points)
            pixels.add(values.astype(np.float32), mask, defect=defect)
    (overall, defects), (overall_rough, defects_rough) = exact.results(), rough.results()
    assert overall_rough != overall
    for one, other in ((overall, overall_rough), *((defects[name], defects_rough[name]) for name in "ab")):
        assert other.pixel_auroc == pytest.approx(one.pixel_auroc, abs=2 / 1024)
        assert other.aupro == pytest.approx(one.aupro, abs=(1 + 1 / 0.3) / 1024)
    kept = sum(block.size for group in (rough._good, *rough._defects.values()) for block, _ in group.steps())
    assert kept < 0.2 * 24 * 60 * 70


def test_regions_are_ranked_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = data_set(1, ties=True)
    results = []
    for batch in (2**22, 5):
        monkeypatch.setattr(figures_of_merit, "BATCH", batch)
        pixels = PixelFigures()
        for values, mask, defect in samples:
            pixels.add(values, mask, defect=defect)
        results.append(pixels.results()[0])
    assert results[1] == pytest.approx(results[0], abs=1e-12)


def test_results_can_be_asked_for_midway_and_the_caller_keeps_its_buffers() -> None:
    samples = data_set(2, ties=False)
    whole, midway = PixelFigures(), PixelFigures()
    for values, mask, defect in samples:
        whole.add(values, mask, defect=defect)
        buffer, buffer_mask = values.copy(), None if mask is None else mask.copy()
        midway.add(buffer, buffer_mask, defect=defect)
        buffer[:] = 99
        midway.results()
    assert midway.results() == whole.results()


def test_images_without_masks_are_counted_and_left_out() -> None:
    pixels = PixelFigures()
    assert pixels.results() == ((None, None), {})
    pixels.add(np.zeros((4, 4), np.float32), None, defect=None)
    pixels.add(np.ones((4, 4), np.float32), None, defect="crack")
    assert pixels.unmasked == 1
    assert pixels.results() == ((None, None), {})
    pixels.add(np.ones((4, 4), np.float32), np.zeros((4, 4), bool), defect="crack")
    assert pixels.results() == ((None, None), {"crack": (None, None)})
    only = PixelFigures()
    only.add(np.ones((4, 4), np.float32), np.ones((4, 4), bool), defect="crack")
    assert only.results()[0] == (None, None)


def test_maps_that_do_not_fit_are_refused() -> None:
    pixels = PixelFigures()
    with pytest.raises(DataError, match="1 of 16 pixels"):
        pixels.add(np.where(np.eye(4)[0] * np.eye(4), np.nan, 0).astype(np.float32), None, defect=None)
    with pytest.raises(DataError, match="a mask is 6 x 5 pixels, its image 4 x 3"):
        pixels.add(np.zeros((3, 4), np.float32), np.zeros((5, 6), bool), defect="x")
    with pytest.raises(DataError, match="16 pixels masked"):
        pixels.add(np.zeros((4, 4), np.float32), np.ones((4, 4), bool), defect=None)


def test_a_batch_worker_imports_it_without_training_libraries() -> None:
    code = (
        "import sys, pipelines.anomaly.figures_of_merit; "
        "print(*{'torch', 'sklearn', 'scipy', 'mlflow', 'prefect'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
