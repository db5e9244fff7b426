"""A VAE with two latents: the plane of what it can draw, and where it puts the digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

from lectures.digits import digit_of, model_of_digits
from lectures.style import DIGITS, Setting, dots, panels, save, save_sheet, tiled
from lectures.training import Trained

SHOWN = 4000  # points: more hide each other


def plane_model(setting: Setting) -> Trained:
    """Two latents, ten passes over the digits."""
    return model_of_digits(setting, 2)


def grid_of_latents(side: int) -> Tensor:
    """Latents (side * side, 2, 1, 1) that divide the prior's probability evenly: the normal CDF's inverse of a grid.

    The first row is the upper end of the second latent, as in a plot of the plane.
    """
    shares = (np.arange(side) + 0.5) / side
    across = norm.ppf(shares)
    grid = np.stack(np.meshgrid(across, across[::-1]), axis=-1).reshape(-1, 2)
    return torch.from_numpy(grid).float()[:, :, None, None]


def apart(spots: NDArray[Any], least: float = 0.5) -> NDArray[np.float64]:
    """Places (N, 2) for labels, moved until no two are nearer than so much."""
    spots = spots.astype(np.float64)
    for _ in range(100):
        between = spots[:, None] - spots[None]
        far = np.linalg.norm(between, axis=-1, keepdims=True)
        push = np.where((far > 0) & (far < least), between / np.maximum(far, 1e-9) * (least - far) / 2, 0)
        spots += push.sum(axis=1)
    return spots


def draw(setting: Setting) -> None:
    """Two grids, and the means of the posteriors."""
    model = plane_model(setting)
    for side in (15, 30):
        save_sheet(tiled(model.decoded(grid_of_latents(side))[:, 0].numpy(), side), setting, f"plane_{side}", levels=12)

    digits = digit_of(model.names())
    some = np.sort(np.random.default_rng(0).permutation(len(digits))[:SHOWN])
    means = model.posterior_means(some).numpy()
    figure, (axes,) = panels(1, width=5.8, height=5.2)
    spots = apart(np.stack([np.median(means[digits[some] == digit], axis=0) for digit in range(10)]))
    for digit, spot in enumerate(spots):
        dots(axes, means[digits[some] == digit], s=5, color=DIGITS[digit], alpha=0.75)
        axes.text(
            spot[0], spot[1], str(digit), fontsize=15, weight="bold", ha="center", va="center",
            bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": DIGITS[digit], "alpha": 0.9},
        )  # fmt: skip
    axes.set_aspect("equal")
    axes.set_xlim(-3.6, 3.6)
    axes.set_ylim(-3.6, 3.6)
    axes.set_xlabel("first latent")
    axes.set_ylabel("second latent")
    save(figure, setting, "plane_scatter")
