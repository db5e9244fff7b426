"""Synthetic defects: damage to good images, so that two models can be compared before a real defect has been seen.

One function for each kind: a piece of the image in the wrong place, as a patch or as a scar, a scratch, a stain. Each
takes a good image and a random generator and returns the damaged copy with a mask of the pixels that changed. Sizes
follow the image's sides and strengths its contrast, so that one set of numbers fits both depths and all textures.
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
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

VISIBLE = 0.1
"""Least mean change inside the mask, as a share of the image's contrast."""
LEAST_AREA = 2e-4
"""Least share of the image that changes."""
TRIES = 8


class Synthetic(NamedTuple):
    """A damaged image."""

    image: Pixels  # (H, W, C), dtype of the good image
    mask: Bools  # (H, W), exactly the pixels that changed
    kind: str  # "cut_paste", "scar", "scratch" or "stain"


class _Change(NamedTuple):
    """A defect, drawn in a window of the image."""

    top: int
    left: int
    alpha: Floats  # (h, w), how much of the defect covers the image, in [0, 1]
    target: Floats  # (h, w, C), what the defect looks like, in levels


def synthesize(image: Pixels, rng: np.random.Generator) -> Synthetic:
    """Damage a good image in one of four ways, chosen evenly.

    Args:
        image: (H, W, C), uint8 or uint16.
        rng: Decides everything: an equal generator gives an equal defect.

    Returns:
        The damaged image. Its mean absolute change inside the mask is at least VISIBLE * contrast(image), and an image
        of two values (a bilevel scan) keeps to them: there, a grey defect would be found by its colour alone.
    """
    kind = list(KINDS)[rng.integers(len(KINDS))]
    damaged, mask = KINDS[kind](image, rng)
    return Synthetic(damaged, mask, kind)


def decode_with_defects(
    files: Sequence[ImageFile], form: ImageFormat | Metadata, copies: int
) -> Iterator[tuple[Decoded, list[Pixels]]]:
    """Yield each readable image, and copies of it with synthetic defects; equal contents get equal defects."""
    for image in decode_for(files, form):
        if not isinstance(image, Failed):
            generator = keyed_generator(image.sha256)
            yield image, [synthesize(image.pixels, generator).image for _ in range(copies)]


def cut_paste(image: Pixels, rng: np.random.Generator) -> tuple[Pixels, Bools]:
    """Paste a patch of the image elsewhere, of another brightness and contrast.

    Source: Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization" (2021), section 2.1.
    There it has 2 to 15 % of the area, here 0.3 to 4 %, as real defects are small; and its corners are rounded.
    """
    return _visibly(image, rng, lambda: _patch(image, rng, area=rng.uniform(0.003, 0.04), aspect=_log(rng, 0.4, 2.5)))


def scar(image: Pixels, rng: np.random.Generator) -> tuple[Pixels, Bools]:
    """Paste a long thin piece of the image elsewhere, turned.

    Source: Li et al. 2021, section 2.2 (CutPaste-Scar).
    """
    return _visibly(image, rng, lambda: _patch(image, rng, area=rng.uniform(0.001, 0.008), aspect=_log(rng, 5, 12)))


def scratch(image: Pixels, rng: np.random.Generator) -> tuple[Pixels, Bools]:
    """Draw a thin line with a few bends, darker or brighter than its surroundings, antialiased and uneven."""
    return _visibly(image, rng, lambda: _line(image, rng))


def stain(image: Pixels, rng: np.random.Generator) -> tuple[Pixels, Bools]:
    """Blend other texture into a blob with a smooth random outline.

    Source: Zavrtanik, Kristan, Skocaj, "DRAEM: A Discriminatively Trained Reconstruction Embedding for Surface Anomaly
    Detection" (2021), section 3.3. There the texture is from another data set, here from elsewhere in the image.
    """
    return _visibly(image, rng, lambda: _blob(image, rng))


KINDS: dict[str, Callable[[Pixels, np.random.Generator], tuple[Pixels, Bools]]] = {
    "cut_paste": cut_paste,
    "scar": scar,
    "scratch": scratch,
    "stain": stain,
}


def contrast(image: Pixels) -> float:
    """The span of an image's values, in levels: what a defect's strength is measured in.

    From the 1st to the 99th percentile, and never less than a quarter of the brightest value or 1/16 of the range
    (1/256 with 16 bits, where an image may fill only the low values): a defect on a flat image must show, too.
    """
    low, high = np.percentile(_sample(image), [1, 99])
    return float(max(high - low, high / 4, _top(image) / (16 if image.dtype == np.uint8 else 256)))


def _visibly(image: Pixels, rng: np.random.Generator, draw: Callable[[], _Change]) -> tuple[Pixels, Bools]:
    """Draw until the change can be seen; in the end, push one that cannot away from the values under it."""
    floor, flip = VISIBLE * contrast(image), _two_values(image)
    least = max(1.0, LEAST_AREA * image.shape[0] * image.shape[1])
    for _ in range(TRIES):
        change = draw()
        damaged = _blend(image, change, flip)
        before = _under(image, change)
        mask = (damaged != before).any(axis=-1)
        if mask.sum() >= least and np.abs(damaged[mask].astype(np.float64) - before[mask]).mean() >= floor:
            return _put(image, change, damaged)
    covered = change.alpha > 0
    if not covered.any():  # a tiny image can fall between the pixels of a thin line
        covered[rng.integers(covered.shape[0]), rng.integers(covered.shape[1])] = True
    away = np.where(before < _top(image) / 2, 1, -1)  # towards the far end of the range there is always room
    solid = change._replace(target=before + away * rng.uniform(3, 4) * floor, alpha=covered.astype(np.float64))
    return _put(image, solid, _blend(image, solid, flip))


def _blend(image: Pixels, change: _Change, flip: bool) -> Pixels:
    """The window of a change, damaged. With flip, the two values of the image are swapped where it is strong enough."""
    before = _under(image, change)
    after = before + change.alpha[..., None] * (change.target - before)
    if flip:
        low, high = float(image.min()), float(image.max())
        after = np.where(np.abs(after - before) > (high - low) / 4, low + high - before, before)
    return after.round().clip(0, _top(image)).astype(image.dtype)


def _put(image: Pixels, change: _Change, window: Pixels) -> tuple[Pixels, Bools]:
    damaged, mask = image.copy(), np.zeros(image.shape[:2], dtype=bool)
    _under(mask, change)[...] = (window != _under(image, change)).any(axis=-1)
    _under(damaged, change)[...] = window
    return damaged, mask


def _under(image: Pixels, change: _Change) -> Pixels:
    height, width = change.alpha.shape
    return image[change.top : change.top + height, change.left : change.left + width]


def _patch(image: Pixels, rng: np.random.Generator, *, area: float, aspect: float) -> _Change:
    """A turned rectangle with rounded, soft corners that shows the image from another place."""
    sides = np.sqrt(area * image.shape[0] * image.shape[1] * np.array([aspect, 1 / aspect]))
    long, short = sides.clip(1.5, 0.9 * max(image.shape[:2])) / 2
    y0, x0 = _centre(image, rng)
    top, left, y, x = _window(image, y0, x0, max(long, short) * 1.2 + 1)
    angle = rng.uniform(0, np.pi)
    along = (np.cos(angle) * (x - x0) + np.sin(angle) * (y - y0)) / long
    across = (np.cos(angle) * (y - y0) - np.sin(angle) * (x - x0)) / short
    alpha = ((1 - (along**4 + across**4) ** 0.25) * min(long, short) + 0.5).clip(0, 1)
    texture = _elsewhere(image, alpha.shape, rng)
    mean = texture.mean(axis=(0, 1))
    toned = mean + (texture - mean) * rng.uniform(0.8, 1.2) + rng.uniform(-0.15, 0.15) * contrast(image)
    return _Change(top, left, alpha, toned)


def _line(image: Pixels, rng: np.random.Generator) -> _Change:
    short = min(image.shape[:2])
    length = short * rng.uniform(0.15, 0.6)
    radius = max(0.4, short * rng.uniform(0.001, 0.005))
    steps = int(rng.integers(4, 9))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.25, steps))
    path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], axis=1) * length / steps, axis=0)
    middle = np.array(_centre(image, rng))
    path += middle - path.mean(axis=0)
    top, left, y, x = _window(image, middle[0], middle[1], np.abs(path - middle).max() + radius + 1)
    cover = np.sin(np.linspace(0.15, 0.95, steps) * np.pi) ** 0.5 * rng.uniform(0.7, 1, steps)  # fainter at the ends
    alpha = np.zeros((y.size, x.size))
    for start, end, thick in zip(path[:-1], path[1:], cover[1:], strict=True):
        along = end - start
        t = (((y - start[0]) * along[0] + (x - start[1]) * along[1]) / max(along @ along, 1e-9)).clip(0, 1)
        distance = np.hypot(y - start[0] - t * along[0], x - start[1] - t * along[1])
        alpha = np.maximum(alpha, thick * (radius * thick + 0.5 - distance).clip(0, 1))
    change = _Change(top, left, alpha, np.empty(0))
    return _toned(image, change, _under(image, change), rng.uniform(0.3, 0.7), rng)


def _blob(image: Pixels, rng: np.random.Generator) -> _Change:
    radius = np.sqrt(image.shape[0] * image.shape[1]) * rng.uniform(0.05, 0.15)
    stretch = _log(rng, 0.6, 1.7)
    y0, x0 = _centre(image, rng)
    top, left, y, x = _window(image, y0, x0, 1.5 * radius * max(1.0, stretch) + 1)
    reach = np.hypot((y - y0) / (radius * stretch), (x - x0) / radius)
    field = _noise(y.size, x.size, rng) + 1.2 - 1.7 * reach
    change = _Change(top, left, (field / 0.5).clip(0, 1) * rng.uniform(0.5, 0.9), np.empty(0))
    mixed = (_elsewhere(image, change.alpha.shape, rng) + _under(image, change)) / 2
    return _toned(image, change, mixed, rng.uniform(0.1, 0.35), rng)


def _toned(image: Pixels, change: _Change, texture: Pixels, strength: float, rng: np.random.Generator) -> _Change:
    """Make the defect darker or brighter: either way, but rarely into the end of the range where there is no room."""
    weight = change.alpha.sum()
    level = float((_under(image, change).mean(axis=-1) * change.alpha).sum() / weight / _top(image)) if weight else 0.5
    side = 1 if rng.random() > level else -1
    return change._replace(target=texture + side * strength * contrast(image))


def _centre(image: Pixels, rng: np.random.Generator) -> tuple[float, float]:
    height, width = image.shape[:2]
    return rng.uniform(0.1, 0.9) * (height - 1), rng.uniform(0.1, 0.9) * (width - 1)


def _window(image: Pixels, y: float, x: float, reach: float) -> tuple[int, int, Floats, Floats]:
    """The part of the image within reach of a point: its top, its left, and its rows (h, 1) and columns (1, w)."""
    height, width = image.shape[:2]
    top, left = max(0, int(y - reach)), max(0, int(x - reach))
    bottom, right = min(height, int(y + reach) + 2), min(width, int(x + reach) + 2)
    return top, left, np.arange(top, bottom, dtype=np.float64)[:, None], np.arange(left, right, dtype=np.float64)[None]


def _elsewhere(image: Pixels, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """A random window of the image, perhaps mirrored."""
    top, left = (int(rng.integers(side - part + 1)) for side, part in zip(image.shape, shape, strict=False))
    part = image[top : top + shape[0], left : left + shape[1]]
    return part[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])].astype(np.float64)


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


def _log(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _sample(image: Pixels) -> Pixels:
    """About a million pixels at most: what the statistics are taken from."""
    step = max(1, int(np.sqrt(image.shape[0] * image.shape[1] / 1e6)))
    return image[::step, ::step]


def _two_values(image: Pixels) -> bool:
    sample = _sample(image)
    low, high = sample.min(), sample.max()
    return bool(low < high and ((sample == low) | (sample == high)).all())


def _top(image: Pixels) -> int:
    return int(np.iinfo(image.dtype).max)
