"""The page of what a model believes: sheets of pictures, and drawings of numbers."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.base.safe_text import printable
from pipelines.report import words
from pipelines.report.page import render_page, write_page

EXPLORE_PAGE = "explore.html"
COLOURS = 10  # labels that have one of their own; all others share the last
WIDTH, HEIGHT, MARGIN = 760, 600, 34  # of the scatter
BARS_WIDTH, BARS_HEIGHT = 1100, 190
MOST_BARS = 64
SPRITE_ACROSS = 40


@dataclass(frozen=True, slots=True)
class Picture:
    """An image inside the page."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Group:
    """Points of one label."""

    name: str
    colour: int
    points: list[tuple[float, float, int]]  # place, and which image


@dataclass(frozen=True, slots=True)
class Scatter:
    """Images as points.

    Attributes:
        how: "latents", "t-SNE" or "principal components".
        groups: By label, the largest first.
        rings: Radii of one, two and three prior standard deviations, where these are known.
        centre: Where they are around.
        ticks: Places and values on both axes, where these mean something.
    """

    how: str
    groups: list[Group]
    rings: list[float]
    centre: tuple[float, float]
    ticks: list[tuple[float, float, str]]


@dataclass(frozen=True, slots=True)
class Bar:
    """What one latent has."""

    x: float
    y: float
    height: float
    width: float
    active: bool
    name: str
    value: str
    tip: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A correlation."""

    x: int
    y: int
    positive: bool
    strength: float
    tip: str


def embed_picture(data: bytes, width: int, height: int, kind: str = "png") -> Picture:
    """Return an image file as part of the page."""
    return Picture(f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}", width, height)


def lay_out_points(points: NDArray[np.floating[Any]], labels: Sequence[str], how: str, *, standard: bool) -> Scatter:
    """Lay points out.

    Args:
        points: (N, 2).
        labels: One for each; empty: none.
        how: They came about.
        standard: Both numbers are latents whose prior is standard normal, so that its rings can be drawn.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    if standard:
        low, high = np.minimum(low, -3.2), np.maximum(high, 3.2)
    span = np.maximum(high - low, 1e-9)
    room = np.array([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    scale = np.full(2, (room / span).min()) if how == "latents" else room / span
    middle = (low + high) / 2

    def place(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        drawn: NDArray[np.floating[Any]] = np.array([WIDTH / 2, HEIGHT / 2]) + (values - middle) * scale * [1, -1]
        return drawn

    placed = place(points).round(1)
    names = [name for name, _ in Counter(sorted(labels)).most_common()]
    own = len(names) if len(names) <= COLOURS else COLOURS - 1
    groups = [
        Group(printable(name), number, _take_points(placed, [i for i, label in enumerate(labels) if label == name]))
        for number, name in enumerate(sorted(names[:own], key=_natural_key))
    ]
    if rest := set(names[own:]):
        chosen = [i for i, label in enumerate(labels) if label in rest]
        groups.append(Group(f"{len(rest)} others", COLOURS - 1, _take_points(placed, chosen)))
    centre = place(np.zeros(2))
    ticks = _place_ticks(low, high, place) if how == "latents" else []
    rings = [round(float(n * scale[0]), 1) for n in (1, 2, 3)] if standard else []
    return Scatter(how, groups, rings, (round(float(centre[0]), 1), round(float(centre[1]), 1)), ticks)


def _natural_key(name: str) -> tuple[int, str]:
    return (int(name), name) if name.isdecimal() and len(name) < 10 else (10**10, name)


def _take_points(placed: NDArray[np.floating[Any]], chosen: Sequence[int]) -> list[tuple[float, float, int]]:
    return [(float(placed[i, 0]), float(placed[i, 1]), i) for i in chosen]


def _place_ticks(low: NDArray[Any], high: NDArray[Any], place: Any) -> list[tuple[float, float, str]]:  # noqa: ANN401
    step = max(1, round(float((high - low).max()) / 8))
    values = [step * n for n in range(-20, 21)]
    across = [(float(place(np.array([v, low[1]]))[0]), HEIGHT - 8.0, v) for v in values if low[0] <= v <= high[0]]
    down = [(16.0, float(place(np.array([low[0], v]))[1]) + 4, v) for v in values if low[1] <= v <= high[1]]
    return [(round(x, 1), round(y, 1), str(v).replace("-", "\N{MINUS SIGN}")) for x, y, v in across + down]


def lay_out_bars(values: Sequence[float], active: Sequence[bool], names: Sequence[str], unit: str) -> list[Bar]:
    """Return bars of the latents that have most, the highest first; at most `MOST_BARS`."""
    order = np.argsort(-np.asarray(values), kind="stable")[:MOST_BARS]
    top = max([values[i] for i in order] + [1e-9])
    step = min(BARS_WIDTH / max(1, len(order)), 80.0)
    drawn = []
    for number, i in enumerate(int(i) for i in order):
        height = max(1.5, BARS_HEIGHT * max(0.0, values[i]) / top)
        said = "in use" if active[i] else "not in use"
        tip = f"latent {names[i]}: {values[i]:.3g} {unit}, {said}"
        left, above = round((number + 0.12) * step, 1), round(BARS_HEIGHT - height, 1)
        value = words.format_number(max(0.0, values[i]), 2)
        drawn.append(
            Bar(
                x=left, y=above, height=round(height, 1), width=round(0.76 * step, 1),
                active=bool(active[i]), name=names[i], value=value, tip=tip,
            )
        )  # fmt: skip
    return drawn


def lay_out_cells(matrix: NDArray[np.floating[Any]], names: Sequence[str]) -> list[Cell]:
    """Return a correlation matrix, cell by cell."""
    return [
        Cell(
            x=x, y=y, positive=bool(matrix[y, x] >= 0), strength=round(float(min(1.0, abs(matrix[y, x]))), 3),
            tip=f"{names[y]} and {names[x]}: {matrix[y, x]:.2f}".replace("-", "\N{MINUS SIGN}"),
        )
        for y in range(len(names))
        for x in range(len(names))
    ]  # fmt: skip


def write_explore_page(out: Path, facts: Mapping[str, object], names: Sequence[str]) -> Path:
    """Write `explore.html`.

    Args:
        out: Folder that it goes into.
        facts: What the template shows.
        names: Of the images that are points, for what is said of them.
    """
    box = {"width": WIDTH, "height": HEIGHT, "bars": BARS_WIDTH, "bars_height": BARS_HEIGHT}
    styles = ("page.css", "results.css", "explore.css")
    html = render_page(
        "explore.html", {**facts, "box": box}, data={"points": {"names": list(names), "across": SPRITE_ACROSS}},
        styles=styles, scripts=("page.js", "explore.js"),
    )  # fmt: skip
    write_page(out / EXPLORE_PAGE, html)
    return out / EXPLORE_PAGE
