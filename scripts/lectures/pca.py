"""Principal components, and the linear autoencoder that gradients bring to the same subspace."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lectures.digits import small_digits
from lectures.style import BLUE, ORANGE, Setting, panels, save, show, tiled
from vaecore.bound import bound_maps, training_loss
from vaecore.networks import LinearVAE
from vaecore.priors import Autoencoder

COUNTS = (2, 8, 24)
SHOWN = (0, 1, 2, 3, 4, 5, 6, 8)


def linear_autoencoder(y: Tensor, latents: int) -> Autoencoder:
    """A linear network without chance in its latents, trained by gradients from a random start."""
    torch.manual_seed(0)
    linear = LinearVAE(channels=1, size=(8, 8), latents=latents).double()
    model = Autoencoder(linear)
    weights = [linear.encoder.weight, linear.decoder.weight, linear.offset]
    optimiser = torch.optim.LBFGS(weights, max_iter=400, line_search_fn="strong_wolfe")
    noise = torch.zeros(len(y), 1, latents, 1, 1, dtype=y.dtype)

    def closure() -> float:
        optimiser.zero_grad()
        loss = training_loss(bound_maps(model, y, noise))
        loss.backward()
        return float(loss.detach())

    optimiser.step(closure)
    return model


def components(flat: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Digits (N, 64) as so many principal components describe them."""
    mean = flat.mean(axis=0)
    axes = np.linalg.svd(flat - mean, full_matrices=False)[2][:count]
    described: NDArray[np.float64] = mean + (flat - mean) @ axes.T @ axes
    return described


def draw(setting: Setting) -> None:
    """Digits as few numbers describe them, and how much is lost."""
    pictures, _ = small_digits()
    flat, y = pictures.reshape(len(pictures), -1), torch.from_numpy(pictures)[:, None]
    figure, axes = panels(2, height=3.4, gridspec_kw={"width_ratios": [1.25, 1]})
    rows, errors = [pictures[list(SHOWN)]], []
    for count in COUNTS:
        model = linear_autoencoder(y, count)
        with torch.inference_mode():
            made = model.decode(model.posterior(y).mean).mean[:, 0].numpy()
        errors.append(np.square(made - pictures).mean())
        rows += [components(flat, count)[list(SHOWN)].reshape(-1, 8, 8), made[list(SHOWN)]]
    show(axes[0], tiled(np.concatenate(rows).clip(0, 1), len(SHOWN), gap=1))
    axes[0].set_yticks([3.5 + 9 * row for row in range(len(rows))])
    labels = ["digit", *(f"{who}, {count}" for count in COUNTS for who in ("components", "autoencoder"))]
    axes[0].set_yticklabels(labels)
    axes[0].tick_params(length=0)

    numbers = range(41)
    lost = [np.square(components(flat, count) - flat).mean() for count in numbers]
    axes[1].plot(numbers, lost, color=BLUE, label="principal components")
    axes[1].plot(COUNTS, errors, "o", color=ORANGE, markersize=9, label="linear autoencoder")
    axes[1].set_xlabel("numbers for each digit of 64 pixels")
    axes[1].set_ylabel("squared error of a pixel")
    axes[1].set_ylim(bottom=0)
    axes[1].legend()
    save(figure, setting, "pca")
