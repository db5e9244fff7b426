"""The manifold hypothesis: pictures of one thing that moves are a curve, and the straight line leaves it."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt

from lectures.shapes import draw_sprite
from lectures.style import BLUE, GREY, ORANGE, Setting, panels, save, show


def draw(setting: Setting) -> None:
    """A moving shape: in the space of pixels, and halfway in two ways."""
    steps = np.linspace(0, 15, 121)
    pictures = np.stack([draw_sprite(np.array([2, 3, 0, x, 7.5])) / 255 for x in steps])
    first, last, middle = pictures[0], pictures[-1], pictures[60]
    flat = pictures.reshape(len(pictures), -1)
    centred = flat - flat.mean(axis=0)
    axes_of = np.linalg.svd(centred, full_matrices=False)[2][:3]
    curve = centred @ axes_of.T
    chord = np.stack([curve[0], curve[-1]])

    figure, (left, *others) = panels(5, height=2.6, gridspec_kw={"width_ratios": [2.3, 1, 1, 1, 1]})
    where = left.get_subplotspec()
    left.remove()
    space = figure.add_subplot(where, projection="3d")
    space.plot(*curve.T, color=BLUE)
    space.plot(*chord.T, color=ORANGE, linestyle="--")
    space.scatter(*curve[[0, 60, -1]].T, color=BLUE, s=30, depthshade=False)
    space.scatter(*chord.mean(axis=0), color=ORANGE, s=40, marker="X", depthshade=False)
    for axis in (space.xaxis, space.yaxis, space.zaxis):
        axis.set_ticks([])
    space.text2D(0.5, -0.04, "three of 1,024 directions", color=GREY, ha="center", transform=space.transAxes)
    space.view_init(24, -68)
    titles = ("start", "end", "halfway along\nthe curve", "halfway along\nthe line")
    for one, picture, title in zip(others, (first, last, middle, (first + last) / 2), titles, strict=True):
        show(one, picture, title)
    others[2].title.set_color(BLUE)
    others[3].title.set_color(ORANGE)
    save(figure, setting, "manifold")
    plt.close("all")
