"""A generative adversarial network in two dimensions: points from noise, judged by a network that learns with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lectures.style import BLUE, GREY, ORANGE, Setting, bare, dots, panels, save

SNAPSHOTS = (1, 300, 1500, 6000)  # steps
BATCH, NOISE, MODES, RADIUS, SCALE = 256, 4, 8, 2.0, 0.12


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers with bends between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def ring(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points of eight clouds on a circle, (N, 2), and which cloud each is of."""
    which = torch.randint(MODES, (count,), generator=generator)
    angle = 2 * math.pi * which / MODES
    middle = RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)
    return middle + SCALE * torch.randn((count, 2), generator=generator), which


def optimiser_of(networks: Sequence[nn.Module], rate: float = 1e-3) -> torch.optim.Adam:
    """Adam, with little memory of past gradients, as both sides move."""
    return torch.optim.Adam([weight for one in networks for weight in one.parameters()], lr=rate, betas=(0.5, 0.9))


def play(steps: int, generator: torch.Generator, *, classes: int = 0) -> dict[int, tuple[nn.Module, nn.Module]]:
    """Train generator and discriminator in turns, by the loss that does not saturate; copies at some steps.

    Args:
        steps: Of both.
        generator: Source of chance.
        classes: How many classes both are told of, as one-hot vectors beside their input; 0: none.

    Source: Goodfellow et al. 2014, "Generative adversarial nets", algorithm 1; with classes, Mirza and Osindero 2014;
    the penalty on the discriminator's slope at real points is R1 of Mescheder, Geiger, Nowozin 2018.
    """
    make, judge = perceptron(NOISE + classes, 64, 64, 2), perceptron(2 + classes, 64, 64, 1)
    makes, judges = optimiser_of([make]), optimiser_of([judge])
    kept: dict[int, tuple[nn.Module, nn.Module]] = {}
    for step in range(1, steps + 1):
        real, which = ring(BATCH, generator)
        told = F.one_hot(which, MODES).float()[:, :classes]
        noise = torch.randn((BATCH, NOISE), generator=generator)
        made = make(torch.cat([noise, told], dim=1))
        real.requires_grad_()
        of_real = judge(torch.cat([real, told], dim=1))
        of_made = judge(torch.cat([made.detach(), told], dim=1))
        (slope,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
        loss = F.softplus(-of_real).mean() + F.softplus(of_made).mean() + 0.05 * slope.square().sum(dim=1).mean()
        judges.zero_grad()
        loss.backward()
        judges.step()
        makes.zero_grad()
        F.softplus(-judge(torch.cat([made, told], dim=1))).mean().backward()
        makes.step()
        if step in SNAPSHOTS or step == steps:
            kept[step] = (deepcopy(make).eval(), deepcopy(judge).eval())
    return kept


def draw(setting: Setting) -> None:
    """Real points, made ones, and what the discriminator thinks of the plane, as training goes on."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    kept = play(max(SNAPSHOTS), generator)
    line = torch.linspace(-3, 3, 121)
    down, across = torch.meshgrid(line, line, indexing="ij")
    plane = torch.stack([across, down], dim=-1).reshape(-1, 2)
    noise = torch.randn((800, NOISE), generator=torch.Generator().manual_seed(1))
    real, _ = ring(800, torch.Generator().manual_seed(2))
    figure, axes = panels(len(SNAPSHOTS), height=2.55)
    for one, step in zip(axes, SNAPSHOTS, strict=True):
        make, judge = kept[step]
        with torch.no_grad():
            opinion, made = judge(plane).sigmoid().reshape(121, 121), make(noise)
        bare(one, f"step {step:,}")
        one.imshow(opinion, origin="lower", extent=(-3, 3) * 2, cmap="Greys_r", vmin=-0.5, vmax=1.05)
        dots(one, real, s=3, color=BLUE, label="real")
        dots(one, made, s=3, color=ORANGE, label="made")
        one.set_xlim(-3, 3)
        one.set_ylim(-3, 3)
    axes[0].legend(loc="lower left", markerscale=3, labelcolor=GREY, handletextpad=0.1, fontsize=9)
    save(figure, setting, "gan")
