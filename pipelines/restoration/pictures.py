"""Pictures of what was made of an image, as the report shows them: before, after, and its error bars."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.anomaly.heatmap import HeatScale, colourise
from pipelines.images.drawing import png, to_8_bits
from pipelines.images.samples import Samples
from pipelines.restoration.restorer import BLOCK, Floats, Result

SHOWN = (420, 552)  # rows and columns of the part that the report shows, pixel for pixel: multiples of every scale
WIDE = 0.1  # of the range: an error bar that is drawn in the darkest colour
WIDE_OF_COLOURS = 0.25
WIDE_OF_LABELS = 0.5  # the widest that the indicator of a class can have
CHECKER = np.array([255, 232], np.uint8)  # greys of the squares that stand for full transparency
SQUARE = 8  # pixels along a side of them
OPACITY = 0.45  # of classes over their image
# Of classes, black for background, told apart without red and green (Okabe and Ito 2008, "Color universal design").
_DISTINCT = np.array(
    [(0, 114, 178), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167)]
)
_ROUNDS = np.arange(256)[:, None] // len(_DISTINCT)  # each darker than the last
PALETTE = np.rint(np.resize(_DISTINCT, (256, 3)) * 0.8**_ROUNDS).astype(np.uint8)
PALETTE[0] = 0
DRAWING = "mended 2"  # another one when pictures of an earlier version must be made again


def draw_pictures(before: Samples, made: Result) -> dict[str, Any]:
    """What the report shows of an image: the part of it that is least sure, pixel for pixel, with its error bars.

    Returns:
        `thumbnail` and `restored` (WebP), and `heatmap` (PNG with transparency), all of one size.
    """
    part, size = choose_part(before, made)
    clear = _find_clear(made, part.after)
    shown = before[part.before]
    if made.labels is None:
        seen, wide = stretch_alike(shown, made.pixels[part.after]), WIDE
    else:
        seen, wide = [to_8_bits(shown), overlay_labels(shown, made.labels[part.after])], WIDE_OF_LABELS
    return {
        "thumbnail": encode_webp(seen[0], size, clear),
        "restored": encode_webp(seen[1], size, clear),
        "heatmap": png(_error_bars(made.blocks, *part.after, wide)),
    }


class Part(NamedTuple):
    """Rows and columns of an image, and of what was made of it."""

    before: tuple[slice, slice]
    after: tuple[slice, slice]


def choose_part(before: Samples, made: Result) -> tuple[Part, tuple[int, int]]:
    """The part of an image that its pictures show, and its height and width in the result."""
    height, width = made.pixels.shape[:2]
    scale = height // before.shape[0]
    rows, columns = _find_least_sure(made.blocks, height, width, scale)
    outer = slice(rows.start // scale, rows.stop // scale), slice(columns.start // scale, columns.stop // scale)
    return Part(outer, (rows, columns)), (rows.stop - rows.start, columns.stop - columns.start)


def draw_sample(before: Samples, made: Result, sample: Samples) -> bytes:
    """Draw another result of an image, labels (H, W) or colours (H, W, 3), as the first one is shown (WebP)."""
    if sample.ndim == 3:
        return draw_colour_picture(sample, before, _find_clear(made))
    part, size = choose_part(before, made)
    seen = overlay_labels(before[part.before], sample[part.after])
    return encode_webp(seen, size, _find_clear(made, part.after))


def stretch_alike(*parts: Samples) -> list[NDArray[np.uint8]]:
    """Pictures for people, 16 bits being stretched alike in all of them."""
    both = to_8_bits(np.concatenate([part.reshape(1, -1, part.shape[2]) for part in parts], axis=1))[0]
    ends = np.cumsum([part.shape[0] * part.shape[1] for part in parts])[:-1]
    return [each.reshape(part.shape) for each, part in zip(np.split(both, ends), parts, strict=True)]


def overlay_labels(before: Samples, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image with its classes in colours over it, (H, W, 3); background stays as it is."""
    seen = to_8_bits(before)
    seen = np.repeat(seen, 3, axis=2) if seen.shape[2] == 1 else seen
    mixed = np.rint((1 - OPACITY) * seen + OPACITY * PALETTE[labels]).astype(np.uint8)
    return np.where((labels > 0)[..., None], mixed, seen)


def _find_least_sure(blocks: Floats, height: int, width: int, scale: int) -> tuple[slice, slice]:
    """The window of at most `SHOWN` pixels with the largest mean error bar, on whole pixels of the input."""
    from scipy.ndimage import uniform_filter

    sizes = [min(shown, length) for shown, length in zip(SHOWN, (height, width), strict=True)]
    cells = [max(1, size // BLOCK) for size in sizes]
    mean = uniform_filter(blocks, size=cells, mode="nearest")
    place = np.unravel_index(int(mean.argmax()), mean.shape)
    spans = []
    for middle, cell, size, length in zip(place, cells, sizes, (height, width), strict=True):
        start = min(max(0, (int(middle) - cell // 2) * BLOCK), length - size) // scale * scale
        spans.append(slice(start, start + size))
    return spans[0], spans[1]


def _error_bars(blocks: Floats, rows: slice, columns: slice, wide: float) -> NDArray[np.uint8]:
    """Colours from clear to dark red, as wide as the error bar is."""
    index = [np.arange(part.start, part.stop) // BLOCK for part in (rows, columns)]
    return colourise(blocks[np.ix_(*index)], HeatScale(0.0, wide))


def draw_colour_pictures(before: Samples, made: Result) -> dict[str, Any]:
    """What the report shows of an image: all of it, reduced, with its error bars. See `draw_pictures`."""
    height, width = (part.stop for part in _shown(before.shape))
    index = [
        np.arange(length) * full // length // BLOCK
        for length, full in zip((height, width), before.shape[:2], strict=True)
    ]
    clear = _find_clear(made)
    return {
        "thumbnail": draw_colour_picture(before, before, clear),
        "restored": draw_colour_picture(made.pixels, before, clear),
        "heatmap": png(colourise(made.blocks[np.ix_(*index)], HeatScale(0.0, WIDE_OF_COLOURS))),
    }


def draw_colour_picture(pixels: Samples, before: Samples, clear: NDArray[np.bool_] | None = None) -> bytes:
    """An image as `draw_colour_pictures` shows it (WebP), 16 bits being stretched as those of the one before are.

    Args:
        pixels: (H, W, C).
        before: The grey image, of the same size.
        clear: (H, W), where it is fully transparent.
    """
    step = max(1, *(length // shown for length, shown in zip(pixels.shape[:2], SHOWN, strict=True)))
    few, seen_before = pixels[::step, ::step], before[::step, ::step]
    like = np.broadcast_to(seen_before, (*seen_before.shape[:2], few.shape[2]))
    size = tuple(part.stop for part in _shown(pixels.shape))
    if clear is not None:
        near = (np.arange(length) * full // length for length, full in zip(size, clear.shape, strict=True))
        clear = clear[np.ix_(*near)]
    return encode_webp(stretch_alike(like, few)[1], (size[0], size[1]), clear)


def _shown(shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the picture."""
    scale = min(1.0, *(shown / length for length, shown in zip(shape[:2], SHOWN, strict=True)))
    rows, columns = (slice(0, max(1, round(length * scale))) for length in shape[:2])
    return rows, columns


def _find_clear(made: Result, part: tuple[slice, slice] = (slice(None), slice(None))) -> NDArray[np.bool_] | None:
    """Find where a part of a result is fully transparent."""
    return None if made.alpha is None else made.alpha[part][..., 0] == 0


def encode_webp(pixels: NDArray[np.uint8], size: tuple[int, int], clear: NDArray[np.bool_] | None = None) -> bytes:
    """Return a picture for the report, of a given size.

    Args:
        pixels: (H, W, 1 or 3).
        size: Rows and columns of the picture.
        clear: Where it is fully transparent, of that size: a light checker is shown there, not what fills it.
    """
    from PIL import Image as PillowImage

    picture = PillowImage.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), PillowImage.Resampling.BICUBIC)
    if clear is not None and clear.any():
        rows, columns = np.ogrid[: size[0], : size[1]]
        squares = CHECKER[(rows // SQUARE + columns // SQUARE) % 2]
        picture.paste(PillowImage.fromarray(squares).convert(picture.mode), mask=PillowImage.fromarray(clear))
    buffer = io.BytesIO()
    picture.save(buffer, "webp", quality=90, method=1)  # a third of the time of the usual one, a little larger
    return buffer.getvalue()
