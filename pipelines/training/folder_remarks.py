"""What a person should look at in a folder of good images: a few that are not like the others, several products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from pipelines.anomaly.odd_scores import FEWEST, find_odd
from pipelines.base.percentages import percent

NAMED = 20
KINDS = (2, 3, 4)
APART = 0.5  # mean silhouette from which groups are products; sets of one product that were looked at have up to 0.46
LEAST_KIND = 0.02  # share of the images; fewer are odd images, no product
COMPONENTS = 16


def find_kinds(summaries: NDArray[np.floating]) -> NDArray[np.int64] | None:
    """Which product each image shows, counted from the largest; None where all may show one.

    Args:
        summaries: What each image shows on average, (N, D).

    Source: Rousseeuw 1987, "Silhouettes: a graphical aid to the interpretation and validation of cluster analysis".
    """
    if len(summaries) < 2 * FEWEST or float(np.ptp(summaries, axis=0).max()) == 0:
        return None
    scaled = (summaries - summaries.mean(axis=0)) / summaries.std(axis=0).clip(1e-6)
    points = PCA(min(COMPONENTS, *scaled.shape), random_state=0).fit_transform(scaled)
    found, best = None, APART
    for count in KINDS:
        labels = KMeans(count, n_init=4, random_state=0).fit_predict(points)
        sizes = np.bincount(labels, minlength=count)
        if sizes.min() < max(FEWEST / 4, LEAST_KIND * len(points)):
            continue
        if (apart := float(silhouette_score(points, labels))) > best:
            rank = np.empty(count, dtype=np.int64)
            rank[np.argsort(-sizes, kind="stable")] = np.arange(count)
            found, best = rank[labels], apart
    return found


def remark_on(
    names: Sequence[str], scores: Sequence[float], summaries: NDArray[np.floating] | None, rate: float
) -> list[str]:
    """What to tell a person of the training folder, in sentences.

    Args:
        names: Of the good images.
        scores: Of each, by a model that has not seen it.
        summaries: What each shows on average, (N, D), where that is known.
        rate: Share of good images that may be flagged.
    """
    remarks = []
    if odd := find_odd(scores):
        some = ", ".join(names[position] for position in odd[:NAMED])
        some += f" and {len(odd) - NAMED} more" if len(odd) > NAMED else ""
        one = len(odd) == 1
        remarks.append(
            f"{len(odd)} of {len(scores)} good images {'looks' if one else 'look'} unlike the others: {some}. Look at "
            f"{'it' if one else 'them'}: a defective image belongs elsewhere, and raises the threshold while it is here"
        )
        if len(odd) > rate * len(scores):
            remarks[-1] += (
                f". With {percent(rate)} of good images allowed to be flagged, such images set the threshold, and "
                "a defect that stands out less is missed"
            )
    kinds = None if summaries is None else find_kinds(summaries)
    if kinds is not None:
        each = [np.flatnonzero(kinds == kind) for kind in range(int(kinds.max()) + 1)]
        told = "; ".join(f"{len(members)} like {names[members[0]]}" for members in each)
        remarks.append(
            f"the good images seem to show {len(each)} products: {told}. A model of each one's folder finds more"
        )
    return remarks
