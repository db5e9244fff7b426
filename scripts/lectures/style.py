"""How the pictures look, and where they go: one style, on white, legible from the back of a lecture hall."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pipelines.base.files import write_atomically

# Okabe and Ito's colours, which people who see fewer colours can tell apart.
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY, LIGHT, DARK = "#777777", "#DDDDDD", "#222222"
DIGITS = [BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, "#8C564B", "#444444", "#7A5FBF", "#9BBB2E"]
DPI = 110

mpl.use("Agg")
mpl.rcParams.update(
    {
        "font.size": 10.5,
        "axes.titlesize": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.labelcolor": DARK,
        "legend.frameon": False,
        "lines.linewidth": 2,
        "figure.constrained_layout.use": True,
        "savefig.facecolor": "white",
    }
)


@dataclass(frozen=True, slots=True)
class Setting:
    """Where pictures go, and what they are made of."""

    folder: Path  # of the pictures
    work: Path  # checkpoints and images that are made on the way
    mnist: Path | None = None  # PNG files of digits, a sub-folder for each; without: scikit-learn's, of 8 x 8 pixels


def panels(columns: int, *, width: float = 8.6, height: float = 2.9, **options: Any) -> tuple[Figure, list[Axes]]:  # noqa: ANN401
    """A figure with a row of axes; sizes in inches, at 110 dots each."""
    figure, axes = plt.subplots(1, columns, figsize=(width, height), squeeze=False, **options)
    return figure, list(axes[0])


def bare(axes: Axes, title: str = "") -> Axes:
    """Axes without ticks and frame, for pictures."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    return axes


def dots(axes: Axes, points: Any, **options: Any) -> None:  # noqa: ANN401
    """Points (N, 2) without outlines."""
    axes.scatter(points[:, 0], points[:, 1], linewidths=0, **options)


def show(axes: Axes, picture: NDArray[Any], title: str = "") -> None:
    """A picture with values in [0, 1]; grey ones with light ink on dark."""
    bare(axes, title)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def tiled(pictures: NDArray[Any], columns: int, gap: int = 0) -> NDArray[Any]:
    """Pictures (N, H, W) as one, row by row, with white between them."""
    count, height, width = pictures.shape
    rows = -(-count // columns)
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap), pictures.dtype)
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def save(figure: Figure, setting: Setting, name: str, *, colours: int = 256) -> None:
    """Write a PNG of so many colours at most, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    plt.close(figure)
    with Image.open(buffer) as drawn:
        flat = drawn.convert("RGB").quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    setting.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(setting.folder / f"{name}.png", lambda part: flat.save(part, "png", optimize=True))


def save_sheet(sheet: NDArray[Any], setting: Setting, name: str, *, side: int = 840, levels: int = 16) -> None:
    """Write a sheet of pictures in [0, 1] as it is, each pixel a square: sharper than a plot, and smaller."""
    rounded = np.round(np.clip(sheet, 0, 1) * (levels - 1)) * (255 / (levels - 1))
    times = max(1, side // max(sheet.shape))
    pixels = np.kron(rounded.astype(np.uint8), np.ones((times, times), np.uint8))
    flat = Image.fromarray(pixels).quantize(levels, dither=Image.Dither.NONE)
    setting.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(setting.folder / f"{name}.png", lambda part: flat.save(part, "png", optimize=True))
