"""Disentanglement: which latent knows which factor, with and without a weight on the latents' dependence."""

from __future__ import annotations

import numpy as np
import torch
from sprites import FACTORS_FILE, measure, sprite_job, write

from lectures.shapes import FACTORS
from lectures.style import BLUE, Setting, bare, panels, save, show, tiled
from lectures.training import Trained, trained

STEPS = {True: 3000, False: 1000}  # those of scripts/sprites.py; fewer where a few minutes are all there is
BETA = 3.0
PLACES = 9
DARKEST = 0.3  # share of a factor's entropy


def draw(setting: Setting) -> None:
    """For each objective what its latents know, and what moves when one of them does."""
    folder = setting.work / "sprites"
    if not (folder / FACTORS_FILE).is_file():
        write(folder)
    steps = STEPS[setting.mnist is not None]
    weighted = {"objective": "total_correlation", "beta": BETA}
    figure, _ = panels(1, width=8.6, height=6.2)
    figure.clear()
    axes = figure.subplots(2, 2, gridspec_kw={"width_ratios": [1, 1.35]})
    for number, (title, options) in enumerate((("VAE", {}), (f"β-TCVAE, β = {BETA:g}", weighted))):
        model = trained(sprite_job(folder, steps, 0, options), setting.work)
        found = measure(model, folder)
        known = np.array(found["information"]).clip(0)
        order = np.lexsort((-known.max(axis=1), known.argmax(axis=1)))  # by the factor that a latent knows most of
        order = np.concatenate([order[known[order].max(axis=1) > 0.05], order[known[order].max(axis=1) <= 0.05]])
        left, right = axes[number]
        left.imshow(known[order].T, cmap="Blues", vmin=0, vmax=DARKEST, aspect="auto")
        left.set_yticks(range(len(FACTORS)), FACTORS)
        left.set_xticks([])
        left.tick_params(length=0)
        left.spines[:].set_visible(False)
        left.set_xlabel(f"latents: mutual information gap {found['mig']:.2f}", color=BLUE)
        left.set_title(title)
        shown = order[: len(FACTORS) + 1]
        show(right, tiled(traversals(model, shown), PLACES, gap=1), "from −2 to 2 of each of them, others fixed")
        bare(right, right.get_title())
    save(figure, setting, "disentanglement")


def traversals(model: Trained, latents: np.ndarray) -> np.ndarray:
    """Pictures (latents * PLACES, H, W): each latent goes from -2 to 2, the others stay where one picture has them."""
    middle = model.names().index("02-03-00-07-07.png")
    z = model.posterior_means(np.array([middle])).reshape(1, -1)
    rows = z.repeat(len(latents) * PLACES, 1)
    for row, latent in enumerate(latents):
        rows[row * PLACES : (row + 1) * PLACES, latent] = torch.linspace(-2, 2, PLACES)
    return model.decoded(rows[:, :, None, None])[:, 0].numpy()
