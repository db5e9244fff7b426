"""Which expert an image's score owes most to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def find_foremost(scores: NDArray[np.floating], experts: Sequence[tuple[str, float]]) -> dict[str, str | float]:
    """Return the expert that contributes most to a score, by its weight times its own score, as columns of a row.

    Args:
        scores: (E,), each expert's own, in standard deviations of good images.
        experts: Name and weight of each, in the same order.

    Returns:
        `expert`, its name, and `expert_score`, its own score; nothing where no expert finds the image more unusual than
        the mean good image.

    >>> find_foremost(np.array([9.0, 4.0]), [("linear_vae", 0.2), ("gaussian", 0.8)])
    {'expert': 'gaussian', 'expert_score': 4.0}
    """
    contributions = [weight * float(score) for (_, weight), score in zip(experts, scores, strict=True)]
    at = int(np.argmax(contributions))
    return {"expert": experts[at][0], "expert_score": float(scores[at])} if contributions[at] > 0 else {}
