"""Findings: a map's regions as columns, its colours as pictures; of a map without places only the image is shown."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.findings import Findings
from pipelines.anomaly.place_quantiles import GoodPlaces

PIXELS = np.full((40, 60, 3), 100, np.uint8)


def calibration() -> Calibration:
    good = np.linspace(0, 1, 10_000)
    return Calibration(model_sha256="", scores=(1.0,), map_quantiles={}).model_copy(
        update={"places": GoodPlaces.of(good, len(good))}
    )


def test_a_region_is_in_the_columns_the_heat_map_and_the_pictures() -> None:
    anomaly_map = np.zeros((40, 60), np.float32)
    anomaly_map[10:20, 30:50] = 5.0
    findings = Findings.of(anomaly_map, calibration())
    assert findings.columns["regions"] == 1
    assert findings.columns["local_p_value"] == pytest.approx(1 / 10_001)
    drawn = np.asarray(Image.open(io.BytesIO(findings.draw_heat_map(PIXELS))))
    assert (drawn[:5] == 100).all()
    assert (drawn[15, 35:45, 0] > drawn[15, 35:45, 2]).all()
    pictures = findings.draw_pictures(PIXELS)
    assert pictures["outlines"].startswith("M")
    assert Image.open(io.BytesIO(pictures["heatmap"])).size == Image.open(io.BytesIO(pictures["thumbnail"])).size


def test_without_a_calibration_regions_are_unknown() -> None:
    findings = Findings.of(np.eye(8, dtype=np.float32), None)
    assert findings.columns == {}
    assert findings.outlines == ()
    assert findings.heat is not None


def test_a_map_without_places_has_a_thumbnail_alone() -> None:
    pictures = Findings().draw_pictures(PIXELS)
    assert pictures["thumbnail"]
    assert (pictures["heatmap"], pictures["outlines"]) == (None, "")
    with pytest.raises(ValueError, match="no heat map"):
        Findings().draw_heat_map(PIXELS)
