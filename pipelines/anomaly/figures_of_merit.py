"""Figures of merit of anomaly scores and anomaly maps against labels: the numbers that `evaluate` reports.

Image figures take two arrays. Pixel figures are fed one map at a time, since a data set's maps may not fit in memory.

The areas under curves come from one count: for each abnormal image (or pixel), how many good ones score higher. On the
curve it is a step up at that false-positive rate, and a ramp where it ties with good ones. The area under the curve is
the mean of the areas under these steps and ramps: exact, without a list of thresholds, and good pixels are sorted once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import DataError

FPR_LIMIT = 0.3
"""AUPRO is integrated up to this false-positive rate (Bergmann et al. 2021)."""
BLOCK = 2**24
"""A group's good pixels are kept as they are up to this many (64 MiB), and past it as the quantiles of whole blocks."""
POINTS = 2**16
"""Quantiles that stand for a block, or for a region of more pixels than this."""
BATCH = 2**22
"""Abnormal pixels ranked at a time: bounds the working memory of the last step to a few hundred MiB."""

Floats = NDArray[np.float64]


class Auroc(NamedTuple):
    """Area under the ROC curve over images, with its confidence interval. None where undefined."""

    value: float | None
    interval: tuple[float, float] | None


def image_auroc(scores: ArrayLike, labels: ArrayLike, level: float = 0.95) -> Auroc:
    """Probability that an abnormal image scores higher than a good one, ties counting half.

    Args:
        scores: (N,), higher = more abnormal.
        labels: (N,), true = abnormal.
        level: Confidence of the interval, in (0, 1).

    Returns:
        The area, None where a class is missing, and DeLong's interval on the logit scale, which stays within (0, 1).
        The interval is None where its variance is zero or unknown: at an area of 0 or 1, or with one image in a class.

    Raises:
        DataError: a score is NaN.

    Source: DeLong, DeLong, Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
    characteristic curves" (1988); logit scale: Pepe, "The Statistical Evaluation of Medical Tests" (2003), chapter 5.

    >>> image_auroc([0.1, 0.4, 0.3, 0.8], [False, False, True, True]).value
    0.75
    """
    values, abnormal = _check(scores, labels)
    good, bad = np.sort(values[~abnormal]), np.sort(values[abnormal])
    if not good.size or not bad.size:
        return Auroc(None, None)
    of_bad = _placements(bad, good)
    area = float(of_bad.mean())
    if good.size < 2 or bad.size < 2:
        return Auroc(area, None)
    of_good = 1 - _placements(good, bad)
    error = float(np.sqrt(of_bad.var(ddof=1) / bad.size + of_good.var(ddof=1) / good.size))
    if error == 0 or not 0 < area < 1:
        return Auroc(area, None)
    reach = NormalDist().inv_cdf((1 + level) / 2) * error / (area * (1 - area))
    centre = np.log(area / (1 - area))
    low, high = 1 / (1 + np.exp(-(centre + np.array([-reach, reach]))))
    return Auroc(area, (float(low), float(high)))


def share_of(flags: NDArray[np.bool_] | None, among: NDArray[np.bool_]) -> float | None:
    """Share of some images that are flagged; None where there are no verdicts, or no such images."""
    return None if flags is None or not among.any() else float(flags[among].mean())


def separation(good: ArrayLike, bad: ArrayLike) -> float:
    """How well scores tell abnormal images from good ones: their AUROC, and 0.5, chance, where either is missing.

    >>> separation([0.1, 0.3], [0.4, 0.8]), separation([0.1], [])
    (1.0, 0.5)
    """
    scores = np.concatenate([good, bad])
    area = image_auroc(scores, np.arange(scores.size) >= np.size(good)).value
    return 0.5 if area is None else area


def weighted_separation(good: Sequence[tuple[float, float]], bad: Sequence[tuple[float, float]]) -> float:
    """AUROC where each image stands for a number of images, as those of a stratified sample do.

    Args:
        good: Score and weight of each good image.
        bad: Of each abnormal one.

    >>> weighted_separation([(0.1, 1.0), (0.5, 3.0)], [(0.4, 2.0)])
    0.25
    """
    (low, of_good), (high, of_bad) = (np.array(each, dtype=np.float64).reshape(-1, 2).T for each in (good, bad))
    if not (of_good.sum() and of_bad.sum()):
        return 0.5
    right = (high[None] > low[:, None]) + 0.5 * (high[None] == low[:, None])
    return float(of_good @ right @ of_bad / (of_good.sum() * of_bad.sum()))


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Average precision: precision at each threshold, weighted by the gain in recall there.

    Args:
        scores: (N,), higher = more abnormal.
        labels: (N,), true = abnormal.

    Returns:
        The average, None where a class is missing.

    Raises:
        DataError: a score is NaN.

    Source: AP = sum_k (R_k - R_(k-1)) P_k over distinct thresholds, not interpolated, as in scikit-learn.

    >>> round(average_precision([0.1, 0.4, 0.35, 0.8], [False, False, True, True]), 4)
    0.8333
    """
    false, true = _cumulative(scores, labels)
    if not false[-1] or not true[-1]:
        return None
    return float(np.sum(np.diff(true, prepend=0) / true[-1] * true / (true + false)))


def roc_points(scores: ArrayLike, labels: ArrayLike, limit: int = 200) -> list[tuple[float, float]]:
    """The ROC curve from (0, 0) to (1, 1), for drawing.

    Args:
        scores: (N,), higher = more abnormal.
        labels: (N,), true = abnormal.
        limit: Most points that are returned, at least 2. Only corners are kept, and, where they are still too many,
            those that are evenly spread along the curve.

    Returns:
        (false-positive rate, true-positive rate) pairs in rising order; empty where a class is missing.

    Raises:
        DataError: a score is NaN.
    """
    false, true = _cumulative(scores, labels)
    if not false[-1] or not true[-1]:
        return []
    fpr, tpr = np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1])
    # A point between two others on a straight line draws nothing; integer counts make the test exact.
    left, up = np.diff(false, prepend=0), np.diff(true, prepend=0)
    corner = np.ones(fpr.size, dtype=bool)
    corner[1:-1] = left[:-1] * up[1:] != left[1:] * up[:-1]
    fpr, tpr = fpr[corner], tpr[corner]
    if fpr.size > limit:
        kept = np.unique(np.searchsorted(fpr + tpr, np.linspace(0, 2, limit)).clip(max=fpr.size - 1))
        fpr, tpr = fpr[kept], tpr[kept]
    return list(zip(fpr.tolist(), tpr.tolist(), strict=True))


class PixelResult(NamedTuple):
    """Figures over pixels. None where there is no abnormal pixel, or no good one."""

    pixel_auroc: float | None
    aupro: float | None


class PixelFigures:
    """Pixel AUROC and AUPRO of any number of anomaly maps, overall and for each kind of defect.

    A defect's figures are over its own images and all good images. Good pixels are those of good images and those
    outside the masks. AUPRO averages, over regions (8-connected components of the masks), the share of the region above
    the threshold, as a function of the false-positive rate of pixels; its area up to FPR_LIMIT is divided by FPR_LIMIT.

    Exact while each group (good, or one defect) has at most BLOCK = 16.8 million good pixels and no region more than
    POINTS = 65,536 pixels. Past that, values are replaced by 65,536 quantiles of their block or region, which moves a
    rank by at most 1/131,072: 1.6e-5 in pixel AUROC and 3.4e-5 in AUPRO at worst. Memory: twice 64 MiB for each group,
    1/256 of the good pixels past that, and the regions.

    Source: Bergmann et al., "The MVTec Anomaly Detection Dataset: A Comprehensive Real-World Dataset for Unsupervised
    Anomaly Detection" (2021), and the evaluation code published with it (regions, interpolation at the limit).
    """

    def __init__(self) -> None:
        """Start with no images."""
        self.unmasked = 0
        """Images of defects that came without a mask: they are in no pixel figure."""
        self.masked: Counter[str] = Counter()
        """Images of each kind of defect that came with a mask."""
        self._good = _Group()
        self._defects: dict[str, _Group] = {}

    def add(self, anomaly_map: NDArray[np.float32], mask: NDArray[np.bool_] | None, *, defect: str | None) -> None:
        """Take in one image.

        Args:
            anomaly_map: (H, W), higher = more abnormal.
            mask: (H, W), true = abnormal. For a good image None.
            defect: The kind of defect; None for a good image.

        Raises:
            DataError: the map holds NaN, or the mask is of another size.
        """
        values = np.asarray(anomaly_map, dtype=np.float32)
        if missing := int(np.isnan(values).sum()):
            raise DataError(f"{missing} of {values.size} pixels of an anomaly map are NaN: list that image as failed")
        if mask is not None and mask.shape != values.shape:
            raise DataError(f"a mask is {_size(mask)} pixels, its image {_size(values)}: save it at the image's size")
        if defect is None:
            if mask is not None and mask.any():
                raise DataError(
                    f"a good image has {mask.sum()} pixels masked as abnormal: move it to a defect's folder"
                )
            self._good.add(values, np.zeros(values.shape, dtype=bool))
        elif mask is None:
            self.unmasked += 1
        else:
            self.masked[defect] += 1
            self._defects.setdefault(defect, _Group()).add(values, np.asarray(mask, dtype=bool))

    def results(self) -> tuple[PixelResult, dict[str, PixelResult]]:
        """The figures of the images so far: overall, and by defect."""
        groups = [self._good, *self._defects.values()]
        steps = {id(group): group.steps() for group in groups}
        overall, single = _Areas(), {}
        for name, group in self._defects.items():
            single[name] = _Areas()
            own_total = self._good.total + group.total
            for values, starts, sizes in group.regions():
                order = np.argsort(values)  # looked up in order, values hit the cache: ten times as fast
                above_own, ties_own, above, ties = np.zeros((4, values.size))
                for other in groups:
                    above_other, ties_other = _ranks(values[order], steps[id(other)])
                    above[order] += above_other
                    ties[order] += ties_other
                    if other is group or other is self._good:
                        above_own[order] += above_other
                        ties_own[order] += ties_other
                single[name].add(above_own, ties_own, own_total, starts, sizes)
                overall.add(above, ties, sum(other.total for other in groups), starts, sizes)
        return overall.result(), {name: areas.result() for name, areas in single.items()}


class _Group:
    """The pixels of the good images, or of one kind of defect."""

    def __init__(self) -> None:
        self.total = 0  # good pixels
        self._points: list[NDArray[np.float32]] = []  # ascending quantiles, POINTS for each block
        self._recent: list[NDArray[np.float32]] = []
        self._recent_size = 0
        self._regions: list[tuple[NDArray[np.float32], int]] = []  # ascending values, pixels

    def add(self, values: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        good = values[~mask]  # a copy: the caller may use its buffer again
        self.total += good.size
        self._recent.append(good)
        self._recent_size += good.size
        while self._recent_size > BLOCK:
            pixels = np.concatenate(self._recent)
            self._points.append(_quantiles(np.sort(pixels[:BLOCK])))
            self._recent, self._recent_size = [pixels[BLOCK:].copy()], pixels.size - BLOCK
        if mask.any():
            self._regions += [(_quantiles(np.sort(region)), region.size) for region in _regions(values, mask)]

    def steps(self) -> list[tuple[NDArray[np.float32], float]]:
        """The group's good pixels: ascending values, and how many pixels each of them stands for."""
        self._recent, self._points = [_sort(self._recent)], [_sort(self._points)]
        return [(self._recent[0], 1.0), (self._points[0], BLOCK / POINTS)]

    def regions(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.intp]]]:
        """Batches of regions: their values one after the other, where each region starts, its size in pixels."""
        batch: list[tuple[NDArray[np.float32], int]] = []
        held = 0
        for position, (values, size) in enumerate(self._regions, start=1):
            batch.append((values, size))
            held += values.size
            if held >= BATCH or position == len(self._regions):
                lengths = np.array([values.size for values, _ in batch], dtype=np.intp)
                sizes = np.array([size for _, size in batch], dtype=np.intp)
                yield np.concatenate([values for values, _ in batch]), np.cumsum(lengths) - lengths, sizes
                batch, held = [], 0


class _Areas:
    """Sums of areas over regions."""

    def __init__(self) -> None:
        self._pixels = self._regions = 0
        self._roc = self._pro = 0.0

    def add(self, above: Floats, ties: Floats, total: int, starts: NDArray[np.intp], sizes: NDArray[np.intp]) -> None:
        if not total:
            return
        lengths = np.diff(starts, append=above.size)
        roc = np.add.reduceat(_step_areas(above, ties, total, 1.0), starts) / lengths
        pro = np.add.reduceat(_step_areas(above, ties, total, FPR_LIMIT), starts) / lengths
        self._pixels += int(sizes.sum())
        self._regions += sizes.size
        self._roc += float((roc * sizes).sum())
        self._pro += float(pro.sum())

    def result(self) -> PixelResult:
        if not self._regions:
            return PixelResult(None, None)
        return PixelResult(self._roc / self._pixels, self._pro / self._regions / FPR_LIMIT)


def _ranks(values: NDArray[np.float32], steps: list[tuple[NDArray[np.float32], float]]) -> tuple[Floats, Floats]:
    """How many good pixels are above each value, and how many equal it."""
    above, ties = np.zeros((2, values.size))
    for ascending, weight in steps:
        right = np.searchsorted(ascending, values, side="right")
        above += weight * (ascending.size - right)
        ties += weight * (right - np.searchsorted(ascending, values, side="left"))
    return above, ties


def _step_areas(above: Floats, ties: Floats, total: int, limit: float) -> Floats:
    """Area, up to a false-positive rate, under each abnormal value's own curve: 0, a ramp over its ties, then 1."""
    start, end = above / total, (above + ties) / total
    cut = np.divide((limit - start) ** 2, 2 * (end - start), out=np.zeros_like(start), where=end > start)
    return np.where(end <= limit, limit - (start + end) / 2, np.where(start < limit, cut, 0.0))


def _placements(values: Floats, others: Floats) -> Floats:
    """For each value, the share of the (ascending) others that lie below it, ties counting half."""
    below = np.searchsorted(others, values, side="left") + np.searchsorted(others, values, side="right")
    return np.asarray(below / (2 * others.size), dtype=np.float64)


def _cumulative(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """False and true positives at each distinct threshold, from the highest to the lowest; (0,) without images."""
    values, abnormal = _check(scores, labels)
    if not values.size:
        return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    order = np.argsort(-values, kind="stable")
    last = np.append(np.diff(values[order]) != 0, True)
    return np.cumsum(~abnormal[order])[last], np.cumsum(abnormal[order])[last]


def _check(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    values, abnormal = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if values.ndim != 1 or values.shape != abnormal.shape:
        raise ValueError(
            f"scores and labels must be two lists of one length, got shapes {values.shape} and {abnormal.shape}"
        )
    if missing := int(np.isnan(values).sum()):
        raise DataError(f"{missing} of {values.size} scores are NaN: list those images as failed")
    return values, abnormal


def _regions(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    """The values of each 8-connected component of a mask."""
    from scipy.ndimage import label

    labels = label(mask, structure=np.ones((3, 3)))[0][mask]
    order = np.argsort(labels, kind="stable")
    return np.split(values[mask][order], np.flatnonzero(np.diff(labels[order])) + 1)


def _sort(chunks: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.sort(np.concatenate(chunks)) if chunks else np.empty(0, dtype=np.float32)


def _quantiles(ascending: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most POINTS of the values, from the middles of equal shares."""
    if ascending.size <= POINTS:
        return ascending
    return ascending[((np.arange(POINTS) + 0.5) * (ascending.size / POINTS)).astype(np.intp)]


def _size(pixels: NDArray[Any]) -> str:
    return " x ".join(str(length) for length in pixels.shape[::-1])
