"""Two sets of points without pairs, and two maps between them that undo each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lectures.gan import BATCH, optimiser_of, perceptron
from lectures.style import GREY, Setting, bare, dots, panels, save

STEPS, CYCLE = 3000, 10.0


class Moved(nn.Module):
    """A point, and what a network adds to it."""

    def __init__(self) -> None:
        """Begin near the identity."""
        super().__init__()
        self.added = perceptron(2, 64, 64, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2) to (N, 2)."""
        moved: Tensor = x + self.added(x)
        return moved


def arch(count: int, generator: torch.Generator) -> Tensor:
    """Points along half a circle."""
    angle = torch.pi * torch.rand(count, generator=generator)
    points = torch.stack([2 * angle.cos(), 2 * angle.sin() - 1], dim=1)
    return points + 0.08 * torch.randn((count, 2), generator=generator)


def bar(count: int, generator: torch.Generator) -> Tensor:
    """Points along a slanted bar."""
    along = 4 * torch.rand(count, generator=generator) - 2
    points = torch.stack([along, 0.5 * along], dim=1)
    return points + 0.08 * torch.randn((count, 2), generator=generator)


def trained_maps(cycle: float) -> tuple[nn.Module, nn.Module]:
    """From arch to bar and back, by least-squares adversaries and what is lost on the way there and back.

    Source: Zhu, Park, Isola, Efros 2017, "Unpaired image-to-image translation using cycle-consistent adversarial
    networks", eqs. 1 to 3, with the squared losses of its section 4.
    """
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(0)
    there, back = Moved(), Moved()
    of_bars, of_arches = perceptron(2, 64, 64, 1), perceptron(2, 64, 64, 1)
    makes, judges = optimiser_of([there, back]), optimiser_of([of_bars, of_arches])
    for _ in range(STEPS):
        x, y = arch(BATCH, generator), bar(BATCH, generator)
        made_y, made_x = there(x), back(y)
        judged = [(of_bars, y, made_y.detach()), (of_arches, x, made_x.detach())]
        judges.zero_grad()
        torch.stack(
            [(d(real) - 1).square().mean() + d(made).square().mean() for d, real, made in judged]
        ).sum().backward()
        judges.step()
        makes.zero_grad()
        fooled = (of_bars(made_y) - 1).square().mean() + (of_arches(made_x) - 1).square().mean()
        returned = F.l1_loss(back(made_y), x) + F.l1_loss(there(made_x), y)
        (fooled + cycle * returned).backward()
        makes.step()
    return there.eval(), back.eval()


def draw(setting: Setting) -> None:
    """Points of the arch, where they go, and where they come back to."""
    x = arch(900, torch.Generator().manual_seed(5))
    y = bar(900, torch.Generator().manual_seed(6))
    colours = x[:, 0]
    there, back = trained_maps(CYCLE)
    with torch.no_grad():
        made = there(x)
        returned = back(made)
    figure, axes = panels(3, height=2.6)
    for one, points, title in zip(axes, (x, made, returned), ("x", "G(x), over the real y", "F(G(x))"), strict=True):
        bare(one, title)
        if points is made:
            dots(one, y, s=14, color=GREY, alpha=0.25)
        dots(one, points, s=5, c=colours, cmap="viridis")
        one.set_xlim(-2.6, 2.6)
        one.set_ylim(-1.7, 1.7)
        one.set_aspect("equal")
    save(figure, setting, "cycle_gan")
