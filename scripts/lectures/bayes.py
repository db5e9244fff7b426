"""Bayes' rule for one image, summed on a grid of two latents: what no sum can do in thirty-two."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.patches import Ellipse
from torch import Tensor

from lectures.digits import small
from lectures.plane import plane_model
from lectures.style import ORANGE, Setting, panels, save, show
from lectures.training import Trained

SIDE, REACH = 161, 4.0  # of the grid of latents, and how far it goes
IMAGE = 4  # of those held out


def latent_grid() -> Tensor:
    """Latents on the square of +-4, (SIDE * SIDE, 2, 1, 1), the second one growing with the row."""
    line = torch.linspace(-REACH, REACH, SIDE)
    down, across = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([across, down], dim=-1).reshape(-1, 2, 1, 1)


@torch.inference_mode()
def on_the_grid(model: Trained, y: Tensor) -> tuple[Tensor, Tensor]:
    """log p(z) at every point of the grid, (SIDE, SIDE), and log p(y | z) of images there, (B, SIDE, SIDE)."""
    z = latent_grid()
    prior = model.network.prior(z[:, None]).log_density(z[:, None])[:, 0]
    p_y = model.network.decode(z)
    likelihood = [p_y.log_prob(one.expand(len(z), -1, -1, -1)).sum(dim=(1, 2, 3)) for one in y]
    return prior.reshape(SIDE, SIDE), torch.stack(likelihood).reshape(-1, SIDE, SIDE)


def log_evidence(prior: Tensor, likelihood: Tensor) -> float:
    """log p(y), the integral of p(y | z) p(z), by adding up the grid."""
    cell = (2 * REACH / (SIDE - 1)) ** 2
    return float(torch.logsumexp((prior + likelihood).flatten().double(), dim=0) + np.log(cell))


def draw(setting: Setting) -> None:
    """Prior, likelihood, posterior, and what the encoder says."""
    model = plane_model(small(setting))
    y = model.examples.batch(model.held_out)[IMAGE : IMAGE + 1]
    prior, (likelihood,) = on_the_grid(model, y)
    with torch.inference_mode():
        q = model.network.posterior(y)
    figure, axes = panels(4, height=2.6, gridspec_kw={"width_ratios": [0.7, 1, 1, 1]})
    show(axes[0], y[0, 0].numpy(), "image y")
    joint = prior + likelihood
    found = (("prior p(z)", prior), ("likelihood p(y | z)", likelihood), ("posterior p(z | y)", joint))
    for one, (title, value) in zip(axes[1:], found, strict=True):
        density = torch.exp(value - value.max())
        one.imshow(density, origin="lower", extent=(-REACH, REACH) * 2, cmap="Blues", vmin=0, vmax=1)
        one.set_xlim(-3, 3)
        one.set_ylim(-3, 3)
        one.set_xticks([-2, 0, 2])
        one.set_yticks([-2, 0, 2])
        one.set_title(title)
    mean, scale = q.mean[0, :, 0, 0].tolist(), q.log_scale[0, :, 0, 0].exp().tolist()
    ring = Ellipse((mean[0], mean[1]), 4 * scale[0], 4 * scale[1], fill=False, edgecolor=ORANGE, linewidth=2)
    axes[3].add_patch(ring)
    axes[3].text(-2.8, -2.8, "encoder's q(z | y)", color=ORANGE)
    axes[0].set_xlabel(f"log p(y) = {log_evidence(prior, likelihood):.2f}")
    save(figure, setting, "bayes")
