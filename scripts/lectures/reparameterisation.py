"""Gradients through chance: noise from outside, and how much quieter they are than the score function's."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes

from lectures.style import BLUE, DARK, GREY, LIGHT, ORANGE, Setting, bare, panels, save
from vaecore.bound import DiagonalGaussian

MEAN, SCALE, SAMPLES, TRIALS = 1.5, 0.7, 8, 4000


def gradients() -> tuple[list[float], list[float]]:
    """Estimates of d/d mean of E[z^2], which is 2 mean, by both ways under the same noise."""
    noise = torch.randn((TRIALS, SAMPLES, 1, 1, 1), generator=torch.Generator().manual_seed(0))
    ways = []
    for through_samples in (True, False):
        mean = torch.full((TRIALS, 1, 1, 1), MEAN, requires_grad=True)
        q = DiagonalGaussian(mean, torch.full_like(mean, SCALE).log())
        z = q.sample(noise)
        value = z.square() if through_samples else z.detach().square() * q.for_samples().log_prob(z.detach())
        (gradient,) = torch.autograd.grad(value.mean(dim=1).sum(), mean)
        ways.append(gradient.flatten().tolist())
    return ways[0], ways[1]


def draw(setting: Setting) -> None:
    """Where chance enters, and two histograms."""
    figure, axes = panels(2, height=2.9, gridspec_kw={"width_ratios": [1, 1.25]})
    diagram(axes[0])
    through, score = gradients()
    bins = [0.15 * step - 4 for step in range(100)]
    axes[1].hist(score, bins, color=ORANGE, alpha=0.75, label="score function")
    axes[1].hist(through, bins, color=BLUE, alpha=0.85, label="through the sample")
    axes[1].axvline(2 * MEAN, color=DARK, linewidth=1, linestyle="--")
    axes[1].text(2 * MEAN + 0.15, axes[1].get_ylim()[1] * 0.97, "true gradient", va="top", color=DARK)
    axes[1].set_xlabel(f"estimates of a gradient, from {SAMPLES} samples each")
    axes[1].set_yticks([])
    axes[1].set_xlim(-4, 10)
    axes[1].legend(loc="upper left")
    save(figure, setting, "reparameterisation")


def diagram(axes: Axes) -> None:
    """Image, mean and scale, noise, sample, picture."""
    bare(axes)
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 6)
    spots = {
        "y": (0.8, 4), "mean": (3.3, 5), "scale": (3.3, 3), "z": (6.2, 4), "p(y|z)": (9.1, 4), "noise": (6.2, 1.0),
    }  # fmt: skip
    for word, spot in spots.items():
        chance = word == "noise"
        style = {"boxstyle": "round,pad=0.35", "facecolor": LIGHT if chance else "white"}
        axes.text(*spot, word, ha="center", va="center", bbox={**style, "edgecolor": GREY if chance else BLUE})
    for start, end in (("y", "mean"), ("y", "scale"), ("mean", "z"), ("scale", "z"), ("z", "p(y|z)"), ("noise", "z")):
        colour = GREY if start == "noise" else BLUE
        arrow = {"arrowstyle": "->", "color": colour, "shrinkA": 17, "shrinkB": 17, "linewidth": 1.6}
        axes.annotate("", spots[end], spots[start], arrowprops=arrow)
    axes.text(5, 5.75, "gradients go back along blue", ha="center", color=BLUE)
