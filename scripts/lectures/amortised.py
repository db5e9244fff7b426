"""Amortised inference: one pass of the encoder against a search for each image."""

from __future__ import annotations

import torch
from torch import Tensor

from lectures.digits import small
from lectures.plane import plane_model
from lectures.style import BLUE, GREY, ORANGE, Setting, panels, save
from lectures.training import Trained
from vaecore.bound import DiagonalGaussian, bound_under
from vaecore.bound.regret import LEARNING_RATE, likelihood_regret

IMAGES, STEPS = 100, 150


def searched(model: Trained, y: Tensor) -> list[float]:
    """Mean bound after each step of a search for q(z) of each image by itself, which begins with the prior."""
    mean, log_scale = (torch.zeros((len(y), *model.network.latent_shape), requires_grad=True) for _ in range(2))
    optimiser = torch.optim.Adam([mean, log_scale], lr=LEARNING_RATE)
    generator, reached = torch.Generator().manual_seed(0), []
    for _ in range(STEPS):
        noise = torch.randn((len(y), 16, *model.network.latent_shape), generator=generator)
        bound = bound_under(model.network, DiagonalGaussian(mean, log_scale), y, noise).total().value
        mean.grad, log_scale.grad = torch.autograd.grad(-bound.sum(), [mean, log_scale])
        optimiser.step()
        reached.append(float(bound.detach().mean()))
    return reached


def draw(setting: Setting) -> None:
    """The bound as the search goes on, and what is left to gain after the encoder."""
    model = plane_model(small(setting))
    y = model.examples.batch(model.held_out)[:IMAGES]
    path = searched(model, y)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        noise = torch.randn((len(y), 64, *model.network.latent_shape), generator=generator)
        at_once = float(bound_under(model.network, model.network.posterior(y), y, noise).total().value.mean())
    regret = likelihood_regret(model.network, y, generator)
    figure, axes = panels(2, height=2.9, gridspec_kw={"width_ratios": [1.3, 1]})
    axes[0].plot(range(STEPS), path, color=ORANGE, label="a search for each image")
    axes[0].axhline(at_once, color=BLUE, label="the encoder, at once")
    axes[0].set_xlabel("steps of the search")
    axes[0].set_ylabel("ELBO, nats")
    axes[0].legend(loc="lower right")
    axes[1].hist(regret.numpy(), 25, color=GREY)
    axes[1].set_xlabel("what a search gains after the encoder, nats")
    axes[1].set_ylabel("digits")
    axes[1].axvline(float(regret.mean()), color=ORANGE, linestyle="--")
    axes[1].text(
        float(regret.mean()), axes[1].get_ylim()[1], f"  mean {float(regret.mean()):.2f}", va="top", color=ORANGE
    )
    save(figure, setting, "amortised")
