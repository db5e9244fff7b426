"""Gaps: where an autoencoder puts images, where a VAE does, and what lies between two of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lectures.digits import digit_of, model_of_digits, small
from lectures.style import DIGITS, Setting, bare, dots, panels, save, show, tiled

NAMES = {"none": "autoencoder", "standard": "VAE"}
STEPS, LATENTS = 2500, 16  # those of scripts/gaps.py
PLACES = 9


def draw(setting: Setting) -> None:
    """Two planes of latents, and two ways from one digit to another."""
    figure, axes = panels(2, width=8.6, height=4.2)
    for one, (prior, name) in zip(axes, NAMES.items(), strict=True):
        model = model_of_digits(small(setting), 2, **_options(prior))
        digits = digit_of(model.names())
        means = model.posterior_means(np.arange(len(digits))).numpy()
        bare(one, name)
        dots(one, means, s=7, c=[DIGITS[digit] for digit in digits])
        one.set_aspect("equal", adjustable="datalim")
        low, high = means.min(axis=0), means.max(axis=0)
        one.set_xlabel(f"from {low.min():.0f} to {high.max():.0f}".replace("-", "−"))
    save(figure, setting, "gaps_latents")

    figure, axes = panels(2, width=8.6, height=1.8)
    figure.set_layout_engine("constrained", w_pad=0.12)
    pairs = ((3, 8), (0, 7), (4, 6))
    for one, (prior, name) in zip(axes, NAMES.items(), strict=True):
        model = model_of_digits(setting, LATENTS, STEPS if setting.mnist else None, **_options(prior))
        digits = digit_of(model.names())[model.held_out]
        chosen = [[int(np.flatnonzero(digits == digit)[1]) for digit in pair] for pair in pairs]
        pictures = model.examples.batch(model.held_out)
        rows = []
        for first, last in chosen:
            ends = model.latents_of(pictures[[first, last]])
            shares = torch.linspace(0, 1, PLACES)[:, None, None, None]
            rows.append(model.decoded(ends[:1] + shares * (ends[1:] - ends[:1]))[:, 0].numpy())
        show(one, tiled(np.concatenate(rows), PLACES, gap=1), name)
    save(figure, setting, "gaps_between")


def _options(prior: str) -> dict[str, Any]:
    return {} if prior == "standard" else {"prior": prior}
