"""A mixture of Gaussians, fitted by expectation and maximisation in turns."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from matplotlib.patches import Ellipse
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as ExpectationMaximisation
from torch import Tensor

from lectures.style import BLUE, GREEN, GREY, ORANGE, Setting, bare, dots, panels, save
from vaecore.priors import GaussianMixture

COLOURS = (BLUE, ORANGE, GREEN)
ROUNDS = (1, 4, 10, 40)


def points() -> NDArray[np.float64]:
    """Three clouds, two of which touch."""
    chance = np.random.default_rng(3)
    clouds = [((-1.6, 0.9), (0.9, 0.35)), ((0.2, -1.3), (0.45, 0.7)), ((1.7, 0.9), (0.6, 0.5))]
    return np.concatenate([chance.normal(mean, scale, (150, 2)) for mean, scale in clouds])


def after(data: NDArray[np.float64], rounds: int) -> GaussianMixture:
    """The mixture after so many rounds, from three means that are badly chosen."""
    fit = ExpectationMaximisation(
        3, covariance_type="diag", max_iter=rounds, tol=0, random_state=0, weights_init=[1 / 3] * 3,
        means_init=[[-0.5, 0.0], [0.0, 0.2], [0.5, 0.0]], precisions_init=np.ones((3, 2)),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped on purpose
        fit.fit(data)
    scales = np.log(fit.covariances_) / 2
    return GaussianMixture(*(torch.from_numpy(part) for part in (np.log(fit.weights_), fit.means_, scales)))


def cells(data: NDArray[np.float64]) -> Tensor:
    """Points as latents, (N, 1, 2, 1, 1)."""
    return torch.from_numpy(data)[:, None, :, None, None]


def draw(setting: Setting) -> None:
    """Whom each point belongs to, and what the mixture looks like, as the rounds go by."""
    data = points()
    figure, axes = panels(len(ROUNDS), height=2.6)
    for one, rounds in zip(axes, ROUNDS, strict=True):
        mixture = after(data, rounds)
        share = torch.softmax(mixture.log_joint(cells(data)), dim=2)[:, 0, :, 0, 0].numpy()
        colours = share @ np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
        bare(one)
        dots(one, data, s=5, c=colours.clip(0, 1))
        for mean, scale, colour in zip(mixture.mean, mixture.log_scale.exp(), COLOURS, strict=True):
            for times in (1, 2):
                ring = Ellipse(
                    (float(mean[0]), float(mean[1])), *(2 * times * scale).tolist(), fill=False, edgecolor=colour,
                    linewidth=2 if times == 1 else 1,
                )  # fmt: skip
                one.add_patch(ring)
        one.set_xlim(-4.2, 3.8)
        one.set_ylim(-3.4, 3)
        one.set_aspect("equal")
        level = float(mixture.log_density(cells(data)).mean())
        one.set_title(f"{rounds} round{'s' if rounds > 1 else ''}")
        one.set_xlabel(f"log p = {level:.2f} a point", color=GREY)
    save(figure, setting, "mixture")
