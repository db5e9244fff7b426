"""What is said of an image by what its windows say: the highest score, means of the bound, one map."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pipelines.images.windows import Windows
from pipelines.models.windows import pooled

OUTPUTS = ("score", "elbo", "anomaly_map", "embedding", "embedding_scale", "expert_score")
WINDOWS = Windows.over((8, 26), (8, 8), 2)


def parts(scores: list[float], most: int) -> Iterator[dict[str, np.ndarray]]:
    every = np.array(scores, np.float32)
    for start in range(0, len(every), most):
        some = every[start : start + most]
        yield {
            "score": some,
            "elbo": -10 * some,
            "anomaly_map": np.broadcast_to(some[:, None, None], (len(some), 8, 8)),
            "embedding": np.stack([some, some + 1], axis=1),
            "embedding_scale": np.full((len(some), 2), 0.5, np.float32),
            "expert_score": np.stack([2 * some, 3 * some], axis=1),
        }


@pytest.mark.parametrize("most", [1, 3, 4])
def test_the_highest_window_gives_the_score_and_all_of_them_the_bound(most: int) -> None:
    scores = [1.0, 4.0, -2.0, 3.0]
    assert len(WINDOWS.places) == 4
    found = pooled(WINDOWS, parts(scores, most), OUTPUTS)
    assert found["score"] == 4
    assert found["expert_score"].tolist() == [8, 12]
    assert found["elbo"] == pytest.approx(-15)
    assert found["embedding"].tolist() == [1.5, 2.5]
    assert found["embedding_scale"].tolist() == [0.25, 0.25]  # of a mean of four
    assert found["anomaly_map"].shape == (8, 26)
    assert found["anomaly_map"][0, [0, 9, 25]].tolist() == pytest.approx([1, 4, 3])
    alone = pooled(WINDOWS, parts(scores, 1), OUTPUTS)
    assert all(np.array_equal(found[name], alone[name]) for name in OUTPUTS)


@pytest.mark.parametrize("at", [0, 2, 3])
@pytest.mark.parametrize("most", [1, 4])
def test_a_window_without_a_number_leaves_the_image_without_one(at: int, most: int) -> None:
    scores = [1.0, 4.0, -2.0, 3.0]
    scores[at] = np.nan
    assert np.isnan(pooled(WINDOWS, parts(scores, most), ("score",))["score"])


def test_only_what_is_asked_for_comes_back() -> None:
    assert set(pooled(WINDOWS, parts([1.0, 2.0, 3.0, 4.0], 2), ("embedding",))) == {"embedding"}
