"""PixelCNN: what a pixel may look at, and digits that are written row by row."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from lectures.digits import small_digits
from lectures.style import GREY, ORANGE, Setting, bare, panels, save, show, tiled
from vaecore.bound import bound_maps
from vaecore.likelihoods import BernoulliLikelihood
from vaecore.networks import MaskedNetwork, PixelCNN

STEPS, BATCH = 800, 64
LAYERS = (0, 1, 2, 3)  # of the networks whose receptive fields are shown
ROWS = (2, 4, 6, 8)  # that are there
SIDE, WRITTEN = 9, 16


def field(layers: int) -> NDArray[np.bool_]:
    """Pixels that the distribution of the one in the middle depends on, by gradients, (9, 9)."""
    torch.manual_seed(0)
    network, x = MaskedNetwork(1, 1, width=8, layers=layers), torch.randn(1, 1, SIDE, SIDE, requires_grad=True)
    network(x)[0, 0, SIDE // 2, SIDE // 2].backward()
    assert x.grad is not None  # noqa: S101 - for the type checker
    seen: NDArray[np.bool_] = (x.grad[0, 0] != 0).numpy()
    return seen


def black_or_white(shades: Tensor, generator: torch.Generator) -> Tensor:
    """Shades of grey as probabilities of white, drawn."""
    return torch.bernoulli(shades, generator=generator)


def minus_log_p(model: PixelCNN, y: Tensor) -> Tensor:
    """-log p(y) of each image, (N,), in nats."""
    return bound_maps(model, y, torch.zeros(len(y), 1, *model.latent_shape)).total().distortion


def train(generator: torch.Generator) -> PixelCNN:
    """A PixelCNN of small digits, whose shades are drawn anew at each step."""
    digits = torch.from_numpy(small_digits()[0]).float()[:, None]
    model = PixelCNN(channels=1, size=(8, 8), likelihood=BernoulliLikelihood(), levels=1, width=24, layers=4)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=STEPS + 1)
    for _ in range(STEPS):
        some = torch.randint(len(digits), (BATCH,), generator=generator)
        optimiser.zero_grad()
        minus_log_p(model, black_or_white(digits[some], generator)).mean().backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def draw(setting: Setting) -> None:
    """The receptive field by layers, and sixteen samples after 2, 4, 6 and 8 rows."""
    model = train(torch.Generator().manual_seed(0))
    kept: dict[int, NDArray[np.float32]] = {}

    def watch(rows: int, y: Tensor) -> None:
        there = y[:, 0].numpy().copy()
        there[:, rows:] = 0.5
        kept[rows] = there

    model.sample_prior(WRITTEN, torch.Generator().manual_seed(1), watch)
    figure, axes = panels(1 + len(ROWS), width=10.4, height=2.4)
    needed = len(LAYERS) - sum(field(layers).astype(int) for layers in LAYERS)
    colours = ListedColormap(["#0072B2", "#4C9CCB", "#8FC3E2", "#CFE4F2", "white"])
    bare(axes[0], "layers 1 to 4 see").imshow(needed, cmap=colours, vmin=-0.5, vmax=4.5)
    axes[0].add_patch(Rectangle((SIDE // 2 - 0.5, SIDE // 2 - 0.5), 1, 1, color=ORANGE))
    for side in np.arange(SIDE + 1) - 0.5:
        axes[0].axhline(side, color=GREY, linewidth=0.3)
        axes[0].axvline(side, color=GREY, linewidth=0.3)
    for one, rows in zip(axes[1:], ROWS, strict=True):
        show(one, tiled(kept[rows], 4, gap=1), f"{rows} of 8 rows")
    save(figure, setting, "autoregressive")
