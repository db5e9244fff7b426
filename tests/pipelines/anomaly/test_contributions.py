"""The expert that a score owes most to: by its weight and its own score together."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.anomaly.contributions import find_foremost

EXPERTS = [("linear_vae", 0.7), ("gaussian", 0.3)]


@pytest.mark.parametrize(
    ("scores", "columns"),
    [
        ([4.0, 8.0], {"expert": "linear_vae", "expert_score": 4.0}),  # 2.8 against 2.4
        ([3.0, 8.0], {"expert": "gaussian", "expert_score": 8.0}),  # 2.1 against 2.4
        ([-3.0, 0.5], {"expert": "gaussian", "expert_score": 0.5}),
        ([-3.0, -0.5], {}),  # a usual image owes its score to none
    ],
)
def test_weight_times_score_decides(scores: list[float], columns: dict[str, object]) -> None:
    assert find_foremost(np.array(scores, np.float32), EXPERTS) == columns
