"""Plain facts of an image that light, lens, camera and handling change: the same for every model, cheap, with words.

They say what has changed where scores have moved, so that a person knows what to look at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST = 256  # pixels that are looked at along each side
GRAIN_SIDE = 160  # of the middle, at full resolution
EDGES_SIDE = 96
NORMAL_MAD = 0.6745  # median absolute deviation of a Gaussian with standard deviation 1
LAPLACIAN = 6.0  # root of the sum of the squared weights of Immerkaer's mask


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact: what it is called, and what a lower and a higher value mean.

    Attributes:
        name: Of its column.
        title: For a chart.
        lower: How images with a lower value look.
        higher: How images with a higher value look.
        advice: What to look at where it has changed.
    """

    name: str
    title: str
    lower: str
    higher: str
    advice: str


_LIGHT, _COLOUR = "lamp, aperture and exposure time", "lamp and white balance"
_LENS, _PLACE = "focus, lens and motion", "camera, holder and cropping"
FACTS = (
    Fact("brightness", "Brightness", "darker", "brighter", _LIGHT),
    Fact("contrast", "Contrast", "flatter", "richer in contrast", _LIGHT),
    Fact("detail", "Detail", "smoother", "richer in detail", _LENS),
    Fact("sharpness", "Sharpness", "less sharp", "sharper", _LENS),
    Fact("noise", "Noise", "less noisy", "noisier", "gain, exposure time and compression"),
    Fact("red", "Share of red", "less red", "redder", _COLOUR),
    Fact("blue", "Share of blue", "less blue", "bluer", _COLOUR),
    Fact("side", "Side in pixels", "smaller", "larger", "resolution and cropping"),
    Fact("across", "Position across", "further left", "further right", _PLACE),
    Fact("down", "Position down", "higher up", "lower down", _PLACE),
    Fact("turn", "Turn", "turned to the right", "turned to the left", _PLACE),
)
FACT_NAMES = tuple(fact.name for fact in FACTS)


def image_facts(pixels: NDArray[Any]) -> dict[str, float]:
    """Measure the facts of an image.

    Args:
        pixels: (H, W, C), uint8 or uint16.

    Returns:
        By name: `brightness`, `contrast` (standard deviation), `detail` (mean absolute difference of neighbours) and
        `noise` (standard deviation) as shares of the largest value; `sharpness`, fine detail per coarse detail; `red`
        and `blue` as shares of all light (a third each of a grey image); `side`, root of the area in pixels; `across`
        and `down`, the centre of all edges as shares of the sides; `turn`, the sine of four times the angle that
        edges have to the sides, to the left, weighted by their strength: a small turn changes it by four times its
        angle, whether edges lie along or across.

    Source: Immerkaer 1996, "Fast noise variance estimation", eq. 1, with a median in place of the mean, which edges
    move less; Bigun and Granlund 1987, "Optimal orientation detection of linear symmetry", for the turn.
    """
    height, width, channels = pixels.shape
    largest = float(np.iinfo(pixels.dtype).max)
    step = max(1, min(height, width) // LONGEST)
    some = pixels[::step, ::step].astype(np.float32)
    light = np.array([some[..., channel].mean() for channel in range(channels)], np.float64)
    colour = light / light.sum() if channels == 3 and light.sum() > 0 else np.full(3, 1 / 3)
    every = max(1, min(some.shape[:2]) // EDGES_SIDE)
    return {
        "brightness": float(light.mean()) / largest,
        "contrast": float(some.std()) / largest,
        "detail": (_difference(some, 0) + _difference(some, 1)) / largest,
        **_measure_grain(_middle(pixels) / np.float32(largest)),
        "red": float(colour[0]),
        "blue": float(colour[2]),
        "side": math.sqrt(height * width),
        **_measure_edges(some[::every, ::every, :3].mean(axis=2)),
    }


def _difference(values: NDArray[np.float32], axis: int) -> float:
    """Mean absolute difference of neighbours."""
    differences = np.diff(values, axis=axis)
    return float(np.abs(differences, out=differences).mean()) if differences.size else 0.0


def _middle(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """The middle of an image at full resolution, in grey."""
    top, left = (max(0, length - GRAIN_SIDE) // 2 for length in pixels.shape[:2])
    part = pixels[top : top + GRAIN_SIDE, left : left + GRAIN_SIDE, :3]
    return np.asarray(part.mean(axis=2, dtype=np.float32))


def _measure_grain(grey: NDArray[np.float32]) -> dict[str, float]:
    """Noise and sharpness; both 0 where an image has fewer than four rows or columns."""
    if min(grey.shape) < 4:
        return {"sharpness": 0.0, "noise": 0.0}
    rows = grey[:-2] - 2 * grey[1:-1] + grey[2:]
    response = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    height, width = (length // 2 * 2 for length in grey.shape)
    even = grey[:height, :width]
    coarse = np.float32(0.25) * (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2])
    fine_detail, coarse_detail = (_difference(each, 0) + _difference(each, 1) for each in (grey, coarse))
    return {
        "sharpness": fine_detail / coarse_detail if coarse_detail > 0 else 0.0,
        "noise": float(np.median(np.abs(response))) / NORMAL_MAD / LAPLACIAN,
    }


def _measure_edges(grey: NDArray[np.float32]) -> dict[str, float]:
    """Where edges are, and how they lie; in the middle and straight where there are none."""
    down, across = grey[2:, 1:-1] - grey[:-2, 1:-1], grey[1:-1, 2:] - grey[1:-1, :-2]
    strength = np.square(down) + np.square(across)
    total = float(strength.sum())
    if total <= 0:
        return {"across": 0.5, "down": 0.5, "turn": 0.0}
    height, width = strength.shape
    return {
        "across": float(strength.sum(axis=0) @ (np.arange(width) + 0.5)) / total / width,
        "down": float(strength.sum(axis=1) @ (np.arange(height) + 0.5)) / total / height,
        "turn": -float((4 * across * down * (across**2 - down**2) / np.maximum(strength, 1e-12)).sum()) / total,
    }
