"""The evidence lower bound, the tighter one, and the integral that both are below."""

from __future__ import annotations

import numpy as np
import torch

from lectures.bayes import log_evidence, on_the_grid
from lectures.digits import small
from lectures.plane import plane_model
from lectures.style import BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, Setting, panels, save
from vaecore.bound import elbo, iwae

IMAGES, SAMPLES = 24, (1, 2, 4, 8, 16, 32, 64, 128, 256)


def draw(setting: Setting) -> None:
    """Parts of the bound of some images, and the mean bounds of many."""
    model = plane_model(small(setting))
    y = model.examples.batch(model.held_out)[:IMAGES]
    prior, likelihoods = on_the_grid(model, y)
    truth = np.array([log_evidence(prior, likelihood) for likelihood in likelihoods])
    generator = torch.Generator().manual_seed(0)

    def noise(samples: int) -> torch.Tensor:
        return torch.randn((len(y), samples, *model.network.latent_shape), generator=generator)

    with torch.inference_mode():
        bound = elbo(model.network, y, noise(500))
        tighter = [
            float(np.mean([iwae(model.network, y, noise(samples)).mean() for _ in range(1024 // samples)]))
            for samples in SAMPLES
        ]
    figure, axes = panels(2, height=3.1, gridspec_kw={"width_ratios": [1.15, 1]})
    some = np.arange(8)
    distortion, rate = bound.distortion[: len(some)].numpy(), bound.rate[: len(some)].numpy()
    axes[0].bar(some, distortion, color=BLUE, label="distortion")
    axes[0].bar(some, rate, bottom=distortion, color=ORANGE, label="rate")
    for at, level in zip(some, -truth[: len(some)], strict=True):
        axes[0].plot([at - 0.45, at + 0.45], [level, level], color=DARK, linewidth=2)
    axes[0].plot([], [], color=DARK, label="−log p(y)")
    axes[0].set_xticks([])
    axes[0].set_xlabel("eight digits")
    axes[0].set_ylabel("nats")
    axes[0].set_ylim(0, 1.3 * float((distortion + rate).max()))
    axes[0].legend(ncols=3, loc="upper left", columnspacing=1.0, handlelength=1.2)
    axes[1].axhline(truth.mean(), color=DARK, label="log p(y), summed on a grid")
    axes[1].plot(SAMPLES, tighter, "o-", color=GREEN, label="importance-weighted bound")
    axes[1].axhline(float(bound.value.mean()), color=BLUE, linestyle="--", label="ELBO")
    axes[1].set_xscale("log", base=2)
    axes[1].set_xlabel("samples")
    axes[1].set_ylabel(f"mean of {IMAGES} digits, nats")
    axes[1].legend(loc="center right")
    axes[1].grid(axis="y", color=LIGHT)
    axes[1].tick_params(color=GREY)
    save(figure, setting, "elbo")
