"""The Kullback-Leibler divergence in both directions: one Gaussian for a mixture of two."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lectures.style import BLUE, GREEN, GREY, LIGHT, ORANGE, Setting, panels, save
from vaecore.bound import DiagonalGaussian
from vaecore.priors import GaussianMixture

SAMPLES, STEPS = 512, 600


def two_humps() -> GaussianMixture:
    """p(z), of one dimension."""
    return GaussianMixture(
        torch.tensor([0.6, 0.4]).log(), torch.tensor([[-2.0], [2.2]]), torch.tensor([[0.75], [0.55]]).log()
    )


def cell(values: Tensor) -> Tensor:
    """Numbers as samples of one latent, (1, S, 1, 1, 1)."""
    return values.reshape(1, -1, 1, 1, 1)


def reverse(target: GaussianMixture, start: float) -> tuple[float, float]:
    """Mean and scale that minimise KL(q || p), by reparameterised samples and gradients, from a mean to start with."""
    mean, log_scale = (torch.full((1, 1, 1, 1), value, requires_grad=True) for value in (start, -0.7))
    optimiser = torch.optim.Adam([mean, log_scale], lr=0.02)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(SAMPLES)).float()
    for _ in range(STEPS):
        q = DiagonalGaussian(mean, log_scale)
        z = q.sample(cell(noise))
        optimiser.zero_grad()
        target.kl_from(q.for_samples(), z).mean().backward()
        optimiser.step()
    return mean.item(), log_scale.exp().item()


def forward(target: GaussianMixture) -> tuple[float, float]:
    """Mean and scale that minimise KL(p || q): those of p itself."""
    share, mean, variance = target.log_weight.exp(), target.mean[:, 0], target.log_scale[:, 0].mul(2).exp()
    middle = (share * mean).sum()
    return float(middle), float((share * (variance + mean.square())).sum().sub(middle.square()).sqrt())


def draw(setting: Setting) -> None:
    """The two answers."""
    target, z = two_humps(), torch.linspace(-5, 5, 500)
    p = [target.log_density(cell(value)).exp().item() for value in z]
    answers = [forward(target), reverse(target, -2.0), reverse(target, 2.0)]
    figure, axes = panels(3, height=2.7, sharey=True)
    titles = (
        "forward: KL(p || q)\ncovers all of p",
        "reverse: KL(q || p)\nseeks a hump",
        "reverse, from another start",
    )
    for one, (mean, scale), title, colour in zip(axes, answers, titles, (ORANGE, BLUE, GREEN), strict=True):
        one.fill_between(z, p, color=LIGHT)
        one.plot(z, p, color=GREY, linewidth=1)
        one.plot(z, np.exp(-0.5 * ((z - mean) / scale) ** 2) / (scale * math.sqrt(2 * math.pi)), color=colour)
        one.set_title(title)
        one.set_xlabel("z")
        one.set_yticks([])
        one.set_ylim(0, 0.82)
        one.text(-4.8, 0.8, f"mean {mean:.1f}, scale {scale:.2f}".replace("-", "−"), color=colour, va="top")
    save(figure, setting, "kl")
