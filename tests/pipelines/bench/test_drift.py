"""The benchmark of drift: what it counts, from scores that are made up."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.drift import STATISTICS
from pipelines.bench.drift import RATE, SIZES, _simulate, format_page


def columns_of(move: float, seed: int) -> dict[str, np.ndarray]:
    """Eighty good images and forty defects; moved ones are darker, too, and score higher."""
    random = np.random.default_rng(seed)
    columns = {name: random.normal(size=120) for name in STATISTICS}
    columns["score"][80:] += 6
    columns["score"] += move
    columns["brightness"] -= move
    return columns | {"bad": np.repeat([False, True], [80, 40])}


@pytest.fixture(scope="module")
def cells() -> list[dict]:
    usual = columns_of(0, 0)
    good = ~usual["bad"]
    calibration = Calibration(
        model_sha256="", scores=tuple(usual["score"][good]), map_quantiles={},
        statistics={name: tuple(usual[name][good]) for name in STATISTICS},
    )  # fmt: skip
    return [
        cell
        for change, move in (("none", 0.0), ("exposure x0.8", 4.0))
        for cell in _simulate("made up", change, columns_of(move, 1), calibration)
    ]


def rates(cells: list[dict], change: str, against: str, images: int = 200) -> tuple[float, float]:
    chosen = [c for c in cells if (c["change"], c["against"], c["images"]) == (change, against, images)]
    return np.mean([c["false_alarms"] for c in chosen]).item(), np.mean([c["recall"] for c in chosen]).item()


def test_calibration_fails_after_a_change_and_the_folder_does_not(cells: list[dict]) -> None:
    assert rates(cells, "none", "calibration")[0] < 3 * RATE
    assert rates(cells, "exposure x0.8", "calibration")[0] > 0.8
    for against in ("folder", "auto"):
        false_alarms, recall = rates(cells, "exposure x0.8", against)
        assert false_alarms < 2 * RATE
        assert recall > 0.9


def test_auto_uses_calibration_while_nothing_has_changed(cells: list[dict]) -> None:
    unchanged = [c for c in cells if (c["change"], c["against"]) == ("none", "auto")]
    assert max(c["folder"] for c in unchanged) == 0
    assert rates(cells, "none", "auto", SIZES[-1]) == rates(cells, "none", "calibration", SIZES[-1])


def test_the_page_has_a_row_for_each_change_and_the_share_that_is_kept(cells: list[dict]) -> None:
    page = format_page(cells)
    assert "exposure x0.8" in page
    assert "auto keeps false alarms within 10 % in 100%" in page
