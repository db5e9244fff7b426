"""A conditional GAN: generator and discriminator are told the class, and the class decides where points go."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from lectures.gan import MODES, NOISE, SCALE, play, ring
from lectures.style import DIGITS, Setting, bare, dots, panels, save

STEPS = 3000


def draw(setting: Setting) -> None:
    """Real points by class, and those that are made for each class."""
    torch.manual_seed(0)
    make, _ = play(STEPS, torch.Generator().manual_seed(0), classes=MODES)[STEPS]
    real, of_real = ring(1200, torch.Generator().manual_seed(2))
    which = torch.arange(1200) % MODES
    noise = torch.randn((1200, NOISE), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        made = make(torch.cat([noise, F.one_hot(which, MODES).float()], dim=1))
    figure, axes = panels(2, width=6.2, height=3.1)
    for one, points, classes, title in zip(
        axes, (real, made), (of_real, which), ("real, by class", "made for each class"), strict=True
    ):
        bare(one, title)
        dots(one, points, s=5, c=[DIGITS[value] for value in classes])
        one.set_xlim(-2 - 6 * SCALE, 2 + 6 * SCALE)
        one.set_ylim(-2 - 6 * SCALE, 2 + 6 * SCALE)
        one.set_aspect("equal")
    save(figure, setting, "conditional_gan")
