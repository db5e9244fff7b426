"""Pictures whose factors of variation are known, since they are drawn from them: to see which latent learned which.

In the manner of dSprites (Matthey, Higgins, Hassabis, Lerchner 2017), made here: white shapes with soft edges on black.
No two combinations look alike: no shape looks the same after a quarter turn, and orientation goes no further than one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FACTORS = {"shape": 3, "size": 4, "orientation": 4, "x": 16, "y": 16}
"""Factors, and how many values each has."""

SHAPES = ("ellipse", "triangle", "heart")
SIZES = (0.13, 0.22)  # radius of the smallest and the largest, as a share of the picture's side
PLACES = (0.27, 0.73)  # of the first and the last centre
FINER = 4  # each pixel is the mean of so many by so many points


def all_factors() -> NDArray[np.int64]:
    """Every combination of factors, a row each, in the order of `FACTORS`."""
    return np.indices(tuple(FACTORS.values())).reshape(len(FACTORS), -1).T.astype(np.int64)


def draw_sprite(factors: NDArray[np.int64], side: int = 32) -> NDArray[np.uint8]:
    """One picture.

    Args:
        factors: One row of `all_factors`; the last two may be fractions, for what lies between two places.
        side: Height and width, in pixels.

    Returns:
        Grey levels, (side, side).
    """
    shape, size, orientation, x, y = (float(value) for value in factors)
    radius = side * _between(SIZES, size / (FACTORS["size"] - 1))
    centre_x, centre_y = (side * _between(PLACES, place / (FACTORS["x"] - 1)) for place in (x, y))
    angle = 0.5 * math.pi * orientation / (FACTORS["orientation"] - 1)
    rows, columns = (_pixels(centre, radius, side) for centre in (centre_y, centre_x))
    across, down = (
        (((pixels[:, None] + (np.arange(FINER) + 0.5) / FINER).ravel()) - centre) / radius
        for pixels, centre in ((columns, centre_x), (rows, centre_y))
    )
    u = math.cos(angle) * across[None, :] + math.sin(angle) * down[:, None]
    v = math.cos(angle) * down[:, None] - math.sin(angle) * across[None, :]
    inside = _inside(SHAPES[int(shape)], u, v).reshape(len(rows), FINER, len(columns), FINER)
    picture = np.zeros((side, side), np.uint8)
    picture[np.ix_(rows, columns)] = np.round(255 * inside.mean(axis=(1, 3)))
    return picture


def _pixels(centre: float, radius: float, side: int) -> NDArray[np.int64]:
    """Those that a shape may reach: no point of one is further from its centre than 1.3 radii."""
    return np.arange(max(0, math.floor(centre - 1.3 * radius)), min(side, math.ceil(centre + 1.3 * radius)))


def _between(limits: tuple[float, float], share: float) -> float:
    return limits[0] + share * (limits[1] - limits[0])


def _inside(shape: str, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points, in radii from the centre, belong to the shape."""
    if shape == "ellipse":
        return np.asarray(u**2 + (v / 0.55) ** 2 <= 1)
    if shape == "triangle":
        return np.asarray((v <= 0.8) & (v >= 3 * np.abs(u) - 1))
    u, v = 1.2 * u, 0.15 - 1.2 * v
    return np.asarray((u**2 + v**2 - 1) ** 3 <= u**2 * v**3)
