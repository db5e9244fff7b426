"""Heat maps: where in an image the anomaly is, drawn over the image in gold and red.

The scale comes from the calibration's good images, so that a colour means the same in every image and under every
model: the share of good images' places that are as unusual. Clear up to one in a hundred, gold at one in a thousand,
red at one in ten thousand, darker still beyond every good place.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.place_quantiles import GoodPlaces
from pipelines.images.drawing import Rgba, to_8_bits

RAMP = (
    # value, red, green, blue, opacity: each step darker and redder than the last, and more opaque
    (0.00, 255, 232, 150, 0.00),
    (0.12, 255, 214, 80, 0.28),
    (0.35, 255, 180, 0, 0.54),
    (0.65, 246, 92, 10, 0.64),
    (0.85, 214, 26, 30, 0.70),
    (1.00, 150, 0, 44, 0.74),
)
"""From clear over gold to red. Lightness falls all the way, so that the order also reads without colour."""
OWN_QUANTILES = (0.95, 1.0)
"""Without a calibration: the part of the image's own map that is coloured."""


POSITIONS = ((1e-2, 0.0), (1e-3, 0.35), (1e-4, 0.75), (1e-5, 0.85))
"""Where on the ramp a share of good images' places is; between them its logarithm counts. The end of the ramp is beyond
the highest good value by as much as that is above the value where colour begins."""


class HeatScale(NamedTuple):
    """The anomaly values between which the colours run."""

    low: float
    high: float
    steps: tuple[tuple[float, float], ...] = ()  # value and place on the ramp, in between; none: a straight line

    @classmethod
    def of(cls, calibration: Calibration | None, anomaly_map: NDArray[np.floating[Any]]) -> Self:
        """Choose the scale.

        By the table of good places (`POSITIONS`) where the calibration has one. An older one has four quantiles: colour
        begins at the good pixels' 0.99 quantile q, and is full at q + 5 * (0.999 quantile - q). That is six
        standard deviations where good pixels are Gaussian, and about the oddest of ten million good pixels where their
        tail is exponential. The oddest pixel itself is no measure: one odd calibration image would dim all defects.

        Args:
            calibration: The model's. Where there is none, or it has no quantiles, the map's own highest 5 % are
                coloured: then every image shows its worst place, good or not.
            anomaly_map: (H, W), the map to be drawn.
        """
        if calibration is not None and calibration.places is not None:
            return cls._by_share(calibration.places)
        if calibration is not None and calibration.map_quantiles:
            low, rare = calibration.map_quantiles["0.99"], calibration.map_quantiles["0.999"]
            return cls(low, low + 5 * (rare - low))
        finite = anomaly_map[np.isfinite(anomaly_map)]
        if not finite.size:
            return cls(0.0, 0.0)
        low, high = np.quantile(finite, OWN_QUANTILES)
        return cls(float(low), float(high))

    @classmethod
    def _by_share(cls, places: GoodPlaces) -> Self:
        low, top = places.value(POSITIONS[0][0]), places.values[-1]
        steps = {
            value: position(share)
            for share, value in zip(places.shares, places.values, strict=True)
            if share <= POSITIONS[0][0] and value > low
        }  # of equal values the smallest share
        return cls(low, top + max(top - low, 1e-6 * abs(top)), tuple(steps.items()))


def position(share: float) -> float:
    """Where on the ramp a share of good images' places is, from 0 to 1.

    >>> position(0.5), position(0.001), round(position(0.0002), 2)
    (0.0, 0.35, 0.63)
    """
    logs, places = zip(*((math.log(known), place) for known, place in reversed(POSITIONS)), strict=True)
    return float(np.interp(math.log(share), logs, places))


def colourise(anomaly_map: NDArray[np.floating[Any]], scale: HeatScale) -> Rgba:
    """Colour a map.

    Args:
        anomaly_map: (H, W), higher = more abnormal. NaN stays clear.
        scale: Clear at and below its low end, deep red at and above its high end.

    Returns:
        (H, W, 4), red, green, blue and opacity. The colour is defined where it is clear, too, so that the picture can
        be enlarged without dark fringes.
    """
    values = np.asarray(anomaly_map, dtype=np.float32)
    span = scale.high - scale.low
    if scale.steps:
        coloured = values > scale.low  # few, as a rule
        known, places = zip((scale.low, 0.0), *scale.steps, (scale.high, 1.0), strict=True)
        share = np.zeros(values.shape, np.float32)
        share[coloured] = np.interp(values[coloured], known, places)
    else:
        share = (values - scale.low) / span if span > 0 else (values > scale.low).astype(np.float32)
    share = np.nan_to_num(share, nan=0.0).clip(0, 1)
    table = ramp_colours(np.linspace(0, 1, 256))
    return table[(share * 255).round().astype(np.intp)]


def ramp_colours(positions: NDArray[np.float64]) -> Rgba:
    """Colours of the ramp.

    Args:
        positions: (N,), from 0 to 1.

    Returns:
        (N, 4), red, green, blue and opacity.
    """
    ramp = np.array(RAMP)
    table = np.stack([np.interp(positions, ramp[:, 0], ramp[:, channel]) for channel in range(1, 5)], axis=1)
    table[:, 3] *= 255
    return table.round().astype(np.uint8)


def overlay(image: NDArray[Any], heat: Rgba) -> NDArray[np.uint8]:
    """Draw a coloured map over its image.

    Args:
        image: (H, W, C), uint8 or uint16, grey or RGB.
        heat: (H, W, 4), from `colourise`.

    Returns:
        (H, W, 3), RGB.

    Raises:
        ValueError: The two differ in size.
    """
    if image.shape[:2] != heat.shape[:2]:
        raise ValueError(f"image and heat map must be of one size, got {image.shape[:2]} and {heat.shape[:2]}")
    drawn = np.broadcast_to(to_8_bits(image), (*image.shape[:2], 3)).copy()
    coloured = heat[..., 3] > 0  # few pixels, as a rule
    under, over = drawn[coloured].astype(np.float32), heat[coloured].astype(np.float32)
    drawn[coloured] = (under + over[:, 3:] / 255 * (over[:, :3] - under)).round()
    return drawn
