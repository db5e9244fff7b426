"""What an anomaly map shows of an image: its abnormal regions as columns of a row, and its colours as pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipelines.anomaly.abnormal_regions import Outline, draw_outlines, find_regions, local_level, svg_path
from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.heatmap import HeatScale, colourise, overlay
from pipelines.images.drawing import LONGEST, Rgba, png, thumbnail

DRAWING = "regions 5"  # another one when rows or pictures of an earlier version must be made again


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What is known of an image's places. Of a model whose map has no places, nothing is.

    Attributes:
        columns: Of the row: the regions, and the p-value of the most abnormal place.
        outlines: Of the regions, in pixels of the image.
        heat: (H, W, 4), the map in colours.
    """

    columns: dict[str, Any] = field(default_factory=dict)
    outlines: tuple[Outline, ...] = ()
    heat: Rgba | None = None

    @classmethod
    def of(cls, anomaly_map: NDArray[np.floating[Any]], calibration: Calibration | None) -> Self:
        """Look at a map (H, W) as the calibration's good images have it."""
        regions = find_regions(anomaly_map, local_level(calibration))
        columns: dict[str, Any] = {} if regions is None else dict(regions.columns())
        if calibration is not None and calibration.places is not None:
            columns["local_p_value"] = float(calibration.places.p_values(np.fmax.reduce(anomaly_map, axis=None)))
        outlines = () if regions is None else regions.outlines
        return cls(columns, outlines, colourise(anomaly_map, HeatScale.of(calibration, anomaly_map)))

    def draw_heat_map(self, pixels: NDArray[Any]) -> bytes:
        """Draw the map and the outlines over the image (PNG).

        Raises:
            ValueError: The map has no places.
        """
        if self.heat is None:
            raise ValueError("a map without places has no heat map")
        return png(draw_outlines(overlay(pixels, self.heat), self.outlines))

    def draw_pictures(self, pixels: NDArray[Any]) -> dict[str, Any]:
        """Draw what the report shows of the image, as columns of a row: `thumbnail`, `heatmap` and `outlines`."""
        return {
            "thumbnail": thumbnail(pixels),
            "heatmap": None if self.heat is None else png(self.heat, longest=LONGEST),
            "outlines": svg_path(self.outlines, min(1.0, LONGEST / max(pixels.shape[:2]))),
        }


def describe_drawing(calibration: Calibration | None) -> list[Any]:
    """List what regions and pictures depend on beside the map, as values for JSON."""
    shares = calibration and [calibration.map_quantiles, calibration.places and calibration.places.model_dump()]
    return [shares, local_level(calibration), DRAWING]
