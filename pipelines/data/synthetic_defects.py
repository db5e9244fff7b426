"""Synthetic defects: damage to good images, so that models can be compared before a real defect has been seen.

One function for each kind. Each takes a good image and a random generator, and draws one defect in a window of the
image. Sizes follow the image's shorter side and strengths the contrast around the defect, so that one set of numbers
fits both depths and all textures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.images import Decoded, Failed, ImageFile
from pipelines.models.inputs import decode_for
from pipelines.models.session import keyed_generator

if TYPE_CHECKING:
    from pipelines.models.model_file import Metadata
    from vaecore.representations.image_format import ImageFormat

Pixels = NDArray[Any]  # (H, W, C), uint8 or uint16
Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

FLAT = 0.25
"""Least contrast of a defect's surroundings, as a share of the image's contrast: a flat surface has some, too."""
VISIBLE = 0.2
"""Least change at a defect's strongest pixel, as a share of the contrast of its surroundings."""
ENERGY = 1.5
"""Least root of the summed squared changes, as a multiple of that contrast, of images of 256 pixels; larger ones need
more pixels. The contrast spans about three standard deviations of noise, and a signal of five is seen (Rose 1948).
"""
TRIES = 8


class Synthetic(NamedTuple):
    """A damaged image."""

    image: Pixels  # (H, W, C), dtype of the good image
    mask: Bools  # (H, W), exactly the pixels that changed
    kind: str  # a key of KINDS


class _Scene(NamedTuple):
    """A good image, and what sizes and strengths follow."""

    image: Pixels  # (H, W, C)
    contrast: float  # in levels
    bright: float  # 99th percentile, in levels
    blur: float  # in pixels
    is_bilevel: bool

    @property
    def short(self) -> int:
        return int(min(self.image.shape[:2]))


class _Place(NamedTuple):
    """The window of the image that a defect is drawn in."""

    top: int
    left: int
    y: Floats  # (h, 1), rows from the defect's centre, in pixels
    x: Floats  # (1, w), columns from the defect's centre, in pixels
    before: Floats  # (h, w, C), the window of the good image, in levels
    contrast: float  # of the surroundings, in levels
    brightness: float  # of the surroundings, as a share of the image's bright values


_Change = tuple[_Place, Floats]  # where, and the window (h, w, C) with the defect, in levels


def synthesize(image: Pixels, rng: np.random.Generator, kind: str | None = None) -> Synthetic:
    """Damage a good image in one place.

    Args:
        image: (H, W, C), uint8 or uint16.
        rng: Decides everything: an equal generator gives an equal defect.
        kind: A key of KINDS. By default, all are equally likely.

    Returns:
        The damaged image. Where a kind cannot be seen (a flat surface with a part displaced), it has a spot instead.
        An image of two values (a bilevel scan) keeps to them: there, a grey defect would be found by its colour alone.
    """
    from scipy.ndimage import gaussian_filter  # takes a while to import

    kind = kind or list(KINDS)[rng.integers(len(KINDS))]
    scene = _Scene(image, contrast(image), float(np.percentile(_sample(image), 99)), blur(image), _is_bilevel(image))
    for draw in [KINDS[kind]] * TRIES + [_spot]:
        place, after = draw(scene, rng)
        if scene.is_bilevel:
            low, high = float(image.min()), float(image.max())
            after = np.where(after > (low + high) / 2, high, low)
        elif scene.blur:
            after = place.before + gaussian_filter(after - place.before, (scene.blur, scene.blur, 0))
        after = after.round().clip(0, _top(image))
        change = np.abs(after - place.before).max(axis=-1)
        energy = np.sqrt(np.square(change).sum()) / max(1, scene.short / 256)
        if change.max() >= VISIBLE * place.contrast and energy >= ENERGY * place.contrast:
            break
    height, width = change.shape
    window = slice(place.top, place.top + height), slice(place.left, place.left + width)
    damaged, mask = image.copy(), np.zeros(image.shape[:2], dtype=bool)
    damaged[window], mask[window] = after, change > 0
    return Synthetic(damaged, mask, "stain" if draw is _spot else kind)


def decode_with_defects(
    files: Sequence[ImageFile], form: ImageFormat | Metadata, copies: int
) -> Iterator[tuple[Decoded, list[Pixels]]]:
    """Yield each readable image, and copies of it with synthetic defects; equal contents get equal defects."""
    for image in decode_for(files, form):
        if not isinstance(image, Failed):
            generator = keyed_generator(image.sha256)
            yield image, [synthesize(image.pixels, generator).image for _ in range(copies)]


def scratch(scene: _Scene, rng: np.random.Generator) -> _Change:
    """Draw a thin curved line, uneven and with soft edges; often the other side of the groove catches the light."""
    length = _size(scene, rng, 0.05, 0.6)
    thickness = _size(scene, rng, 0.001, 0.01, least=1)
    heading = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.5) * np.linspace(-1, 1, 24)
    path = _path(heading + np.cumsum(rng.normal(0, 0.04, 24)), length)
    place = _choose_place(scene, rng, length / 2 + 3 * thickness)
    fade = np.sin(np.linspace(0.1, 0.9, 24) * np.pi) ** 0.5  # towards both ends
    cover = fade * np.interp(range(24), range(0, 24, 4), rng.uniform(0.4, 1, 6))
    line = _stroke(place, path, cover, thickness)
    if rng.random() < 0.5:
        beside = path + rng.choice([-1, 1], 2) * thickness
        line = line - rng.uniform(0.2, 0.7) * _stroke(place, beside, cover, thickness)
    return place, place.before + line[..., None] * _amplitude(scene, place, thickness * 4, rng)


def crack(scene: _Scene, rng: np.random.Generator) -> _Change:
    """Draw a jagged thin line with up to three branches, dark unless the surface is."""
    length = _size(scene, rng, 0.05, 0.6)
    thickness = _size(scene, rng, 0.001, 0.006, least=0.8)
    place = _choose_place(scene, rng, length / 2 + 3 * thickness)
    steps, direction = int(rng.integers(8, 20)), rng.uniform(0, 2 * np.pi)
    main = _path(direction + np.cumsum(rng.normal(0, 0.15, steps)) + rng.normal(0, 0.45, steps), length)
    line = _stroke(place, main, np.linspace(1, 0.4, steps), thickness)
    for _ in range(rng.integers(4)):
        root, parts = main[rng.integers(1, steps)], int(rng.integers(3, 7))
        side = direction + rng.choice([-1, 1]) * rng.uniform(0.4, 1.2)
        branch = _path(side + rng.normal(0, 0.4, parts), length * rng.uniform(0.15, 0.4))
        line = np.maximum(line, _stroke(place, branch - branch[0] + root, np.linspace(0.8, 0.3, parts), thickness))
    return place, place.before + line[..., None] * _amplitude(scene, place, thickness * 4, rng, dark=0.9)


def stain(scene: _Scene, rng: np.random.Generator) -> _Change:
    """Darken or brighten a blob with an irregular outline; it may hide the texture below, or have a rim."""
    size = _size(scene, rng)
    place = _choose_place(scene, rng, 1.2 * size)
    cover = _blob(place, size, rng)
    opaque = rng.uniform(0, 0.8) * cover[..., None]
    if rng.random() < 0.3:
        cover = cover * (1 - rng.uniform(0.4, 0.9) * cover**2) * 2
    smooth = place.before + opaque * (place.before.mean(axis=(0, 1)) - place.before)
    return place, smooth + cover[..., None] * _amplitude(scene, place, size, rng)


def dent(scene: _Scene, rng: np.random.Generator) -> _Change:
    """Shade a hollow or a bump: bright on the side that faces the light, dark on the other."""
    size = _size(scene, rng, least=4)
    place = _choose_place(scene, rng, 1.2 * size)
    along, across = _turned(place, rng.uniform(0, 2 * np.pi))
    radius, wide = size / 4, size / 4 * _log(rng, 0.7, 1.4)
    slope = along / radius * np.exp(0.5 - ((along / radius) ** 2 + (across / wide) ** 2) / 2)
    return place, place.before + slope[..., None] * _amplitude(scene, place, size, rng)


def missing(scene: _Scene, rng: np.random.Generator) -> _Change:
    """Fill a patch with the mean of its surroundings, or with their darkest or brightest values: what lies below."""
    size = _size(scene, rng)
    place = _choose_place(scene, rng, 1.2 * size)
    cover = _blob(place, size, rng) if rng.random() < 0.5 else _plate(place, size, size * _log(rng, 0.3, 1), rng)
    mean = place.before.mean(axis=(0, 1))
    below = [mean, *np.percentile(place.before, [5, 95], axis=(0, 1))][rng.integers(3)]
    fill = below + rng.uniform(0, 0.4) * (place.before - mean)
    return place, place.before + cover[..., None] * (fill - place.before)


def displaced(scene: _Scene, rng: np.random.Generator) -> _Change:
    """Show a patch of the image in the wrong place: from anywhere, or from a few pixels beside it.

    Source: Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization" (2021), section 2.
    """
    size = _size(scene, rng, least=3)
    place = _choose_place(scene, rng, size)
    cover = _plate(place, size, size * _log(rng, 0.15, 1), rng)
    last = np.subtract(scene.image.shape[:2], cover.shape)
    top, left = rng.integers(last + 1)
    if rng.random() < 0.5:
        shift = rng.integers(1, max(2, round(size / 4)) + 1, 2) * rng.choice([-1, 1], 2)
        top, left = np.clip(np.array([place.top, place.left]) + shift, 0, last)
    part = scene.image[top : top + cover.shape[0], left : left + cover.shape[1]].astype(np.float64)
    part += rng.uniform(0, 0.5) * _amplitude(scene, place, size, rng)
    return place, place.before + cover[..., None] * (part - place.before)


def broken_edge(scene: _Scene, rng: np.random.Generator) -> _Change:
    """Extend one side of an edge over the other: a gap or a notch, a bridge or a spur, as on printed circuit boards."""
    size = _size(scene, rng, 0.005, 0.05)
    span = size * _log(rng, 0.7, 3)
    reach = max(1, round(size / 2))
    sides = np.array(scene.image.shape[:2])
    points = rng.integers(sides, size=(32, 2))

    def beside(offset: Floats) -> Floats:
        y, x = np.clip((points + offset).round(), 0, sides - 1).astype(int).T
        return np.asarray(scene.image[y, x], dtype=np.float64)

    slopes = np.stack([(beside(step) - beside(-step)).mean(axis=-1) for step in reach * np.eye(2)])
    best = int(np.hypot(*slopes).argmax())
    angle = float(np.arctan2(*slopes[:, best])) + rng.choice([0, np.pi])
    step = np.array([np.sin(angle), np.cos(angle)])
    fill = beside(reach * step)[best]
    middle = points[best] - step * span / 2
    place = _choose_place(scene, rng, max(span, size), middle)
    cover = _plate(place, span + 2 * reach, size, rng, angle + rng.normal(0, 0.2)) * rng.uniform(0.6, 1)
    return place, place.before + cover[..., None] * (fill - place.before)


KINDS: dict[str, Callable[[_Scene, np.random.Generator], _Change]] = {
    draw.__name__: draw for draw in (scratch, crack, stain, dent, missing, displaced, broken_edge)
}


def _spot(scene: _Scene, rng: np.random.Generator) -> _Change:
    """Draw a round spot that any image shows: towards the far end of the range there is always room."""
    size = _size(scene, rng)
    centre = np.array([int(rng.integers(side)) for side in scene.image.shape[:2]])
    place = _choose_place(scene, rng, size, centre)
    cover = (size / 2 + 0.5 - np.hypot(place.y, place.x)).clip(0, 1)[..., None]
    away = np.where(place.before < _top(scene.image) / 2, 1, -1)
    return place, place.before + cover * away * place.contrast * rng.uniform(0.6, 1)


def contrast(image: Pixels) -> float:
    """The span of an image's values, in levels.

    From the 1st to the 99th percentile, and never less than a quarter of the brightest value or 1/16 of the range
    (1/256 with 16 bits, where an image may fill only the low values): a defect on a flat image must show, too. Where an
    image has two values, their difference.
    """
    if _is_bilevel(image):
        return float(image.max()) - float(image.min())
    low, high = np.percentile(_sample(image), [1, 99])
    return float(max(high - low, high / 4, _top(image) / (16 if image.dtype == np.uint8 else 256)))


def blur(image: Pixels) -> float:
    """The standard deviation, in pixels, of the Gaussian that blurs a step as much as the image's sharpest edges are.

    Such a step of height 1 changes by 0.4 / deviation from one pixel to the next, and by 1 over a few pixels. A defect
    is not sharper than the image that shows it. 0 where the edges are sharp, at most 3.
    """
    lines = [
        np.moveaxis(image, axis, 0)[:, :: max(1, image.shape[1 - axis] // 64)].astype(np.float32) for axis in (0, 1)
    ]
    near, far = (
        max((np.percentile(np.abs(line[k:] - line[:-k]), 99.5) for line in lines if len(line) > k), default=0.0)
        for k in (1, 8)
    )
    deviation = 0.4 * far / near if near else 0.0
    return float(min(deviation, 3.0)) if deviation > 0.6 else 0.0


def _choose_place(scene: _Scene, rng: np.random.Generator, reach: float, centre: Floats | None = None) -> _Place:
    """The window within reach of a point, by default of any in the image, and what the defect's strength follows.

    The contrast is the geometric mean of the contrast around the defect and of the image's. The first alone would make
    defects of flat parts too faint to matter, the second alone would make them glaring.
    """
    height, width = scene.image.shape[:2]
    y, x = rng.uniform(0.03, 0.97, 2) * (height - 1, width - 1) if centre is None else centre
    margin = reach + 3 * scene.blur
    rows, columns = _around(y, margin, height), _around(x, margin, width)
    wide = reach + max(4, scene.short / 16)
    surroundings = _sample(scene.image[_around(y, wide, height), _around(x, wide, width)], 2500)
    low, high = np.percentile(surroundings, [5, 95])
    around = scene.contrast if scene.is_bilevel else np.sqrt((high - low) * scene.contrast)
    dy, dx = np.arange(rows.start, rows.stop)[:, None] - y, np.arange(columns.start, columns.stop)[None] - x
    before = scene.image[rows, columns].astype(np.float64)
    strength = float(np.clip(around, FLAT * scene.contrast, scene.contrast))
    brightness = float(surroundings.mean() / max(1.0, scene.bright))
    return _Place(rows.start, columns.start, dy, dx, before, strength, brightness)


def _amplitude(
    scene: _Scene, place: _Place, size: float, rng: np.random.Generator, dark: float | None = None
) -> Floats:
    """The change (C,) of a defect, in levels: darker or brighter, rarely towards the end of the range where no room is.

    A small defect changes more: one as faint as a large one would not be seen (Ricco's law, softened).
    """
    strength = 1.0 if scene.is_bilevel else _log(rng, 0.2, 1) * (size / scene.short / 0.05) ** -0.2
    darker = rng.random() < (place.brightness if dark is None or place.brightness < 0.2 else dark)
    channels = scene.image.shape[2]
    tint = 1 + rng.normal(0, 0.2, channels) * (channels > 1)
    return np.asarray((-1 if darker else 1) * strength * place.contrast * tint)


def _size(scene: _Scene, rng: np.random.Generator, low: float = 0.005, high: float = 0.25, least: float = 2) -> float:
    """A length in pixels, log-uniform between two shares of the image's shorter side, and not much below the blur."""
    return max(least + 2 * scene.blur, scene.short * _log(rng, low, high))


def _path(heading: Floats, length: float) -> Floats:
    """The points (n, 2) of a line of a length in pixels with the given headings (n,), around the origin."""
    points = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], axis=1) * length / len(heading), axis=0)
    return np.asarray(points - points.mean(axis=0))


def _stroke(place: _Place, path: Floats, cover: Floats, thickness: float) -> Floats:
    """A soft line (h, w) in [0, 1] along a path (n, 2) from the centre, Gaussian across, with the cover (n,) along."""
    from scipy.ndimage import gaussian_filter  # takes a while to import

    sigma = max(0.4, thickness / 2.4)  # the thickness is the width at half of the height
    arc = np.append(0, np.cumsum(np.hypot(*np.diff(path, axis=0).T)))
    steps = np.linspace(0, arc[-1], int(2 * arc[-1] / min(1, sigma)) + 2)
    y, x = np.interp(steps, arc, path[:, 0]) - place.y[0, 0], np.interp(steps, arc, path[:, 1]) - place.x[0, 0]
    ink = np.interp(steps, arc, cover) * steps[1] * np.sqrt(2 * np.pi) * sigma
    height, width = place.before.shape[:2]
    canvas = np.zeros((height, width), np.float32)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):  # the four pixels around each point share its ink
        rows, columns = np.floor(y).astype(int) + row, np.floor(x).astype(int) + column
        share = ink * (1 - np.abs(y - rows)) * (1 - np.abs(x - columns))
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        np.add.at(canvas, (rows[inside], columns[inside]), share[inside])
    return np.asarray(gaussian_filter(canvas, sigma, mode="constant", truncate=3).clip(0, 1), dtype=np.float64)


def _blob(place: _Place, size: float, rng: np.random.Generator) -> Floats:
    """A blob (h, w) in [0, 1] with an irregular outline, sharp or soft."""
    along, across = _turned(place, rng.uniform(0, np.pi))
    stretch = _log(rng, 0.5, 2) ** 0.5
    reach = np.hypot(along / stretch, across * stretch) / (size / 2)
    rough = rng.uniform(0.1, 0.5) * _noise(place.y.size, place.x.size, rng)
    soft = max(_log(rng, 0.05, 1), 2 / size)
    return np.asarray(((1 - reach + rough) / soft + 0.5).clip(0, 1))


def _plate(place: _Place, long: float, short: float, rng: np.random.Generator, angle: float | None = None) -> Floats:
    """A turned rectangle (h, w) in [0, 1] with rounded corners and the edges of a lens, by default at any angle."""
    along, across = _turned(place, rng.uniform(0, np.pi) if angle is None else angle)
    short = max(1.5, short)
    power = rng.uniform(2, 6)
    reach = (np.abs(along / (long / 2)) ** power + np.abs(across / (short / 2)) ** power) ** (1 / power)
    return np.asarray(((1 - reach) * short / 2 / rng.uniform(0.8, 1.5) + 0.5).clip(0, 1))


def _turned(place: _Place, angle: float) -> tuple[Floats, Floats]:
    """Coordinates (h, w) along and across a direction, from the centre, in pixels."""
    sin, cos = np.sin(angle), np.cos(angle)
    return sin * place.y + cos * place.x, cos * place.y - sin * place.x


def _noise(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Smooth noise in about [-1, 1]: two octaves of random grids, each interpolated smoothly (value noise)."""
    total = np.zeros((height, width))
    for cells, weight in ((5, 1.0), (11, 0.4)):
        grid = rng.uniform(-1, 1, (cells + 1, cells + 1))
        total += weight * _stretch(_stretch(grid, height).T, width).T
    return total


def _stretch(grid: Floats, length: int) -> Floats:
    place = np.linspace(0, len(grid) - 1, length, endpoint=False)
    low = place.astype(int)
    t = (place - low)[:, None]
    smooth = t * t * (3 - 2 * t)
    return np.asarray(grid[low] * (1 - smooth) + grid[low + 1] * smooth)


def _around(middle: float, reach: float, side: int) -> slice:
    return slice(max(0, int(middle - reach)), min(side, int(middle + reach) + 2))


def _log(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _sample(image: Pixels, pixels: float = 3e4) -> Pixels:
    """Return a subsample of about `pixels` pixels at most, which the statistics are taken from."""
    step = max(1, int(np.sqrt(image.shape[0] * image.shape[1] / pixels)))
    return image[::step, ::step]


def _is_bilevel(image: Pixels) -> bool:
    sample = _sample(image)
    low, high = sample.min(), sample.max()
    return bool(low < high and ((sample == low) | (sample == high)).all())


def _top(image: Pixels) -> int:
    return int(np.iinfo(image.dtype).max)
