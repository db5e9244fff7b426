"""From what a model says of an image's windows to what is said of the image: the same in scoring as in calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.images.windows import BlendedMap, Windows

OF_HIGHEST = frozenset({"score", "expert_score"})
"""Outputs that are those of the window with the highest score. All others but the map are means over the windows."""
MAP, SPREAD = "anomaly_map", "embedding_scale"


def pooled(
    windows: Windows, parts: Iterable[Mapping[str, NDArray[Any]]], outputs: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Pool the windows of one image.

    The score is the highest of its windows': a defect fills one of them, and the many others say nothing of it. The
    bound and its terms are means, so that they stay those of a window, however large the image is.

    Args:
        windows: Where they lie.
        parts: Outputs of the graph for some windows at a time, in their order, the score among them.
        outputs: Names of those that are wanted.

    Returns:
        Each output of the image, without a batch axis.
    """
    blended, done, best = BlendedMap(windows) if MAP in outputs else None, 0, -np.inf
    sums: dict[str, NDArray[np.float64]] = {}
    highest: dict[str, NDArray[Any]] = {}
    for part in parts:
        scores = part["score"]
        top = int(np.argmax(scores))  # the first that is no number, where there is one: so is the image's
        if not highest or not (np.isnan(best) or scores[top] <= best):
            best, highest = float(scores[top]), {name: part[name][top] for name in outputs if name in OF_HIGHEST}
        for name in outputs:
            if name == MAP and blended is not None:
                for at, values in enumerate(part[name]):
                    blended.add(done + at, values)
            elif name not in OF_HIGHEST:
                values = np.square(part[name], dtype=np.float64) if name == SPREAD else part[name]
                sums[name] = sums.get(name, np.zeros(())) + values.sum(axis=0, dtype=np.float64)
        done += len(scores)
    found = dict(highest)
    for name, total in sums.items():
        mean = np.sqrt(total) / done if name == SPREAD else total / done  # that of a mean of independent latents
        found[name] = np.asarray(mean, np.float32)
    if blended is not None:
        found[MAP] = blended.values
    return found
