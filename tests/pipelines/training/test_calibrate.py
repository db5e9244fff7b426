"""What calibration keeps of its images stands for all of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pipelines.training import calibrate


def test_facts_are_kept_of_images_all_over_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first paths are those of one sub-folder: of one camera, or of one day."""
    monkeypatch.setattr(calibrate, "STATISTICS_IMAGES", 20)
    found = calibrate._Found(100)
    for number in range(100):
        image = cast("Any", SimpleNamespace(file=SimpleNamespace(relative=f"{number:03}.png")))
        pixels = np.full((4, 4, 1), 2 * number, np.uint8)
        found.add(image, pixels, {"score": float(number)}, np.zeros((2, 2), np.float32))
    assert len(found.statistics["score"]) == 20
    assert np.mean(found.statistics["score"]) == pytest.approx(49.5, abs=1)
    assert found.statistics["brightness"] == sorted(found.statistics["brightness"])
