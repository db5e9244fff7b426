"""Abnormal regions: where a map lies above what good images show, as connected regions with an area and an outline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.heatmap import POSITIONS, position

LOCAL_LEVEL = 1e-3
"""A region is where fewer than this share of good images' places are as unusual. A model of windows takes this share
of one window's places: a large image has 190 places above it by chance."""
SPECK_PLACES = 0.5
"""Places below which a region is a speck and is left out: less than one place of the map's own grid."""
SPECK_LEAST = 2.5e-4
"""Share of the image that a region has at least, however fine the grid: on pixels, one of them is noise."""
SPECK_AREA = 1e-3
"""The limit where the grid is not known."""
SPANS = 2 / 3  # of a side: a region that is longer lies along it, not at one end
STRIP = 3  # times as long as wide
LONGEST = 1024  # longest side of the map that is looked at: it is interpolated from a coarser grid
_TOLERANCE = 0.15  # pixels that an outline may be off, for fewer points
_LINE, _CASING = (255, 255, 255), (10, 20, 40)  # white within dark: seen on gold, on red and on any image

Outline = NDArray[np.float64]  # (P, 2), x and y in pixels from the upper left corner, closed


class Level(NamedTuple):
    """What counts as abnormal at one place."""

    value: float  # of the map; above it is abnormal
    share: float  # of good images' places that are higher
    speck: float = SPECK_AREA  # share of the image below which a region is left out


class Regions(NamedTuple):
    """The abnormal regions of one image."""

    number: int = 0
    area: float = 0.0  # of all regions, in % of the image
    box: tuple[int, int, int, int] | None = None  # of the largest: left, top, width, height in pixels
    centre: tuple[float, float] | None = None  # of the largest: its centre of gravity, x and y in pixels
    outlines: tuple[Outline, ...] = ()
    place: str | None = None  # of the region with the highest value, in words
    highest: tuple[float, float] | None = None  # its highest value, x and y in pixels

    def columns(self) -> dict[str, int | float | str | None]:
        """As columns of a row."""
        left, top, width, height = self.box or (None,) * 4
        x, y = self.centre or (None, None)
        highest_x, highest_y = self.highest or (None, None)
        return {
            "regions": self.number,
            "regions_percent": self.area,
            "largest_left": left,
            "largest_top": top,
            "largest_width": width,
            "largest_height": height,
            "largest_x": x,
            "largest_y": y,
            "place": self.place,
            "highest_x": highest_x,
            "highest_y": highest_y,
        }


def local_level(calibration: Calibration | None) -> Level | None:
    """From which value on a place is abnormal; None without good images' map values to tell it by.

    `LOCAL_LEVEL`, or of a model of windows its own; or the smallest share that the good images can tell where they have
    too few places for it.
    """
    if calibration is None:
        return None
    if calibration.places is not None:
        wanted = calibration.local_share or LOCAL_LEVEL
        share = max(wanted, calibration.places.smallest)
        in_each_image = calibration.places.places / calibration.n
        speck = max(SPECK_LEAST * wanted / LOCAL_LEVEL, SPECK_PLACES / in_each_image)
        return Level(calibration.places.value(share), share, speck)
    if calibration.map_quantiles:  # of an older file: four quantiles, of which one is at the level
        return Level(calibration.map_quantiles["0.999"], LOCAL_LEVEL)
    return None


def find_regions(anomaly_map: NDArray[np.floating[Any]], level: Level | None) -> Regions | None:
    """Connected regions (8 neighbours) above a level, without specks.

    Args:
        anomaly_map: (H, W), higher = more abnormal. NaN belongs to no region.
        level: From `local_level`.

    Returns:
        None without a level.
    """
    if level is None:
        return None
    if not (anomaly_map > level.value).any():
        return Regions()
    from skimage.measure import label, regionprops  # 0.6 s, for the first image that needs it

    step = math.ceil(max(anomaly_map.shape) / LONGEST)
    above = np.nan_to_num(anomaly_map[::step, ::step].astype(np.float64) - level.value, nan=-1.0)
    labels = label(above > 0, connectivity=2)
    found = [region for region in regionprops(labels) if region.area >= level.speck * labels.size]
    if not found:
        return Regions()
    largest = max(found, key=lambda region: region.area)
    height, width = anomaly_map.shape
    top, left, bottom, right = (int(step * edge) for edge in largest.bbox)
    y, x = (float(step * (at + 0.5)) for at in largest.centroid)
    highest, peak = _find_highest(above, labels, found)
    return Regions(
        number=len(found),
        area=100 * float(sum(region.area for region in found)) / labels.size,
        box=(left, top, min(right, width) - left, min(bottom, height) - top),
        centre=(round(min(x, width), 1), round(min(y, height), 1)),
        outlines=tuple(
            np.clip(step * outline, 0, (width, height))
            for region in found
            for outline in _outlines(above, labels, region.label, region.bbox)
        ),
        place=name_place(highest.centroid, highest.image.shape, labels.shape),
        highest=(min(step * (peak[1] + 0.5), width), min(step * (peak[0] + 0.5), height)),
    )


def _find_highest(
    above: NDArray[np.float64], labels: NDArray[np.integer[Any]], found: Sequence[Any]
) -> tuple[Any, tuple[int, int]]:
    """Return the region found that has the highest value, and that value's row and column."""
    inside = np.where(np.isin(labels, [region.label for region in found]), above, -np.inf)
    row, column = (int(at) for at in np.unravel_index(inside.argmax(), inside.shape))
    return next(region for region in found if region.label == labels[row, column]), (row, column)


def name_place(centre: tuple[float, float], extent: tuple[int, int], shape: tuple[int, int]) -> str:
    """Return where a region lies, in words that a person can point by.

    Args:
        centre: Row and column of its centre of gravity.
        extent: Rows and columns that it spans.
        shape: Rows and columns of the image.

    >>> name_place((90, 10), (8, 12), (100, 100)), name_place((50, 10), (8, 12), (100, 100))
    ('lower left', 'left')
    >>> name_place((90, 10), (8, 90), (100, 100)), name_place((90, 10), (90, 90), (100, 100))
    ('across the bottom', 'across the image')
    """
    (row, column), (tall, wide), (height, width) = centre, extent, shape
    is_down, is_across = tall > SPANS * height, wide > SPANS * width
    is_high, is_wide = height >= STRIP * width, width >= STRIP * height  # a strip has no thirds of its short side
    has_rows, has_columns = not (is_down or is_wide), not (is_across or is_high)
    vertical = ("top", "centre", "bottom")[int(3 * row / height)]
    horizontal = ("left", "centre", "right")[int(3 * column / width)]
    match has_rows, has_columns:
        case False, False:
            return "across the image"
        case True, False:
            return f"across the {vertical}" if is_across and not is_high else vertical
        case False, True:
            return f"down the {horizontal}" if is_down and not is_wide else horizontal
    if "centre" in {vertical, horizontal}:
        return vertical if horizontal == "centre" else horizontal
    return f"{'upper' if vertical == 'top' else 'lower'} {horizontal}"


def _outlines(
    above: NDArray[np.float64], labels: NDArray[np.integer[Any]], label: int, box: tuple[int, int, int, int]
) -> list[Outline]:
    """Outlines of one region, those of its holes too, where the map crosses the level between pixels."""
    from skimage.measure import find_contours

    rows, columns = (slice(max(0, low - 1), high + 1) for low, high in zip(box[:2], box[2:], strict=True))
    field, inside = above[rows, columns], labels[rows, columns] == label
    cap = min(float(field[inside].max()), 1e30)
    field = np.where(inside | (field <= 0), field, -cap).clip(-cap, cap)  # other regions are not this one's
    padded = np.pad(field, 1, constant_values=-cap)  # a region at the image's edge is closed there
    found = find_contours(padded, 0.0, fully_connected="high")
    corner = np.array([rows.start, columns.start]) - 0.5  # of the padded field; a pixel's centre is half a pixel in
    return [(simplify(outline, _TOLERANCE) + corner)[:, ::-1] for outline in found]


def simplify(outline: Outline, tolerance: float) -> Outline:
    """Fewer points, none of those left out further than the tolerance from the line without it.

    Not skimage's approximate_polygon, whose import takes a second more than all else here together.

    Args:
        outline: (P, 2), closed or not; its ends stay.
        tolerance: In the unit of the points.

    Source: Douglas and Peucker 1973, "Algorithms for the reduction of the number of points required to represent a
    digitized line or its caricature".
    """
    keep = np.zeros(len(outline), bool)
    keep[[0, -1]] = True
    parts = [(0, len(outline) - 1)]
    while parts:
        first, last = parts.pop()
        between, line = outline[first + 1 : last] - outline[first], outline[last] - outline[first]
        if not len(between):
            continue
        along = np.clip(between @ line / max(line @ line, 1e-12), 0, 1)  # of a closed part the ends are one point
        apart = np.hypot(*(between - along[:, None] * line).T)
        furthest = int(apart.argmax())
        if apart[furthest] > tolerance:
            middle = first + 1 + furthest
            keep[middle] = True
            parts += [(first, middle), (middle, last)]
    return outline[keep]


def describe_scale(calibration: Calibration | None) -> dict[str, Any] | None:
    """What the colours and outlines of a run mean, as a record for run.json; None where nothing is known.

    Shares are of good images' places; `colours` pairs some with where on the ramp they are, from 0 to 1.
    """
    level = local_level(calibration)
    if calibration is None or level is None:
        return None
    places = calibration.places
    if places is None:
        colours = [(0.01, 0.0), (0.001, 0.2)]  # low + (rare - low) of low + 5 * (rare - low)
    else:
        colours = [(share, at) for share, at in POSITIONS if share >= places.smallest]
        colours.append((places.smallest, position(places.smallest)))
    return {
        "level": level.share,
        "speck_percent": 100 * level.speck,
        "places": places and places.places,
        "smallest": places and places.smallest,
        "colours": sorted(set(colours), reverse=True),
    }


def svg_path(outlines: Sequence[Outline], scale: float) -> str:
    """Outlines as the data of one SVG path.

    Args:
        outlines: In pixels of the image.
        scale: Pixels of the drawing for each pixel of the image.

    >>> svg_path([np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 2.0], [0.0, 0.0]])], 0.5)
    'M0 0L2 0L2 1Z'
    """
    return "".join(
        "M" + "L".join(f"{x:.4g} {y:.4g}" for x, y in (scale * outline[:-1]).round(1).tolist()) + "Z"
        for outline in outlines
    )


def draw_outlines(picture: NDArray[np.uint8], outlines: Sequence[Outline]) -> NDArray[np.uint8]:
    """Draw outlines on a picture: a white line within a dark one, as wide as suits the picture's size.

    Args:
        picture: (H, W, 3).
        outlines: In pixels of the picture.

    Returns:
        (H, W, 3), another array.
    """
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    line = max(1, round(max(picture.shape) / 400))
    for colour, width in ((_CASING, 3 * line), (_LINE, line)):
        for outline in outlines:
            points = [(float(x), float(y)) for x, y in outline - 0.5]  # from edges to the pixel's centres
            draw.line(points + points[1:2], fill=colour, width=width, joint="curve")
    return np.asarray(image)
