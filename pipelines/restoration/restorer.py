"""One image through a model that mends: tiles, any channels and depth, transparency carried, and pictures of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.anomaly.heatmap import HeatScale, colourise, png, visible
from pipelines.errors import ImageError
from pipelines.images.image import Image, Samples
from pipelines.images.tiles import Place, run_in_tiles
from pipelines.models.session import RestoringSession, SegmentingSession
from pipelines.restoration.channels import Channels

SIDE = 1024  # pixels of a tile, at most, without its margin
LARGE = 30_000_000  # pixels of an image beside which there is room for tiles of half the side only
SMALLEST = 64  # below this, a tile that does not fit into memory is given up
BLOCK = 8  # pixels of the result along a side of a block, for which one error bar is kept
SHOWN = (420, 552)  # rows and columns of the part that the report shows, pixel for pixel: multiples of every scale
WIDE = 0.1  # of the range: an error bar that is drawn in the darkest colour
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

Floats = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Mended:
    """What became of an image.

    Attributes:
        pixels: (H, W, C) in the channels and dtype of the file.
        alpha: (H, W, 1) of the same dtype; None where the file has none.
        mean_scale: Mean predicted standard deviation, as a share of the range of values.
        blocks: (h, w) the same for each block of `BLOCK` x `BLOCK` pixels.
        notes: What a person should know.
        labels: (H, W) class of each pixel, where the model labels them.
    """

    pixels: Samples
    alpha: Samples | None
    mean_scale: float
    blocks: Floats
    notes: tuple[str, ...]
    labels: NDArray[np.uint8] | None = None


class Blocks:
    """Error bars of an image, mean over blocks of `BLOCK` x `BLOCK` pixels, as tiles come."""

    def __init__(self, size: tuple[int, ...]) -> None:
        """Start with none, for a result of so many rows and columns."""
        self._sums = np.zeros([-(-length // BLOCK) for length in size[:2]])
        self._counts = np.outer(*(_lengths(length) for length in size[:2]))

    def add(self, values: Floats, place: tuple[slice, slice]) -> None:
        """Add a tile's (h, w), which need not be aligned with blocks."""
        starts, blocks = [], []
        for part in place:
            first, last = part.start // BLOCK, (part.stop - 1) // BLOCK
            starts.append(np.maximum(np.arange(first, last + 1) * BLOCK - part.start, 0))
            blocks.append(slice(first, last + 1))
        rows = np.add.reduceat(values.astype(np.float64), starts[0], axis=0)
        self._sums[blocks[0], blocks[1]] += np.add.reduceat(rows, starts[1], axis=1)

    @property
    def mean(self) -> float:
        """Of all pixels."""
        return float(self._sums.sum() / self._counts.sum())

    @property
    def values(self) -> Floats:
        """Of each block."""
        found: Floats = (self._sums / self._counts).astype(np.float32)
        return found


def mend(session: RestoringSession, image: Image, *, side: int | None = None) -> Mended:
    """Mend an image of any size, channels and depth; memory holds the image, its result and a few tiles.

    What is true of a whole image stays true: grey stays grey, a channel with one value keeps it. Colour under full
    transparency counts as any other: `pipelines.images.hidden` replaces it before. A tile that does not fit into memory
    is tried again at half the size.

    Raises:
        ImageError: The smallest tile does not fit either, or the model gives what is not a number.
    """
    return in_smaller_tiles(lambda side: _mend(session, image, side), image.pixels, side)


def in_smaller_tiles(work: Callable[[int], T], pixels: Samples, side: int | None) -> T:
    """Do something in tiles of a side, again at half of it where that does not fit into memory.

    Raises:
        ImageError: The smallest tile does not fit either.
    """
    side = side or (SIDE if pixels.shape[0] * pixels.shape[1] < LARGE else SIDE // 2)
    while True:
        try:
            return work(side)
        except MemoryError:
            if side // 2 < SMALLEST:
                raise ImageError(f"does not fit into memory, not even in tiles of {side} pixels") from None
            side //= 2


def _mend(session: RestoringSession, image: Image, side: int) -> Mended:
    channels, scale = Channels.of(image.pixels), session.metadata.scale
    height, width, count = image.pixels.shape
    result = np.empty((height * scale, width * scale, count), image.pixels.dtype)
    blocks = Blocks(result.shape)
    run, note = adapted(session, channels.seen.shape[2])

    def keep(place: tuple[slice, slice], outputs: tuple[Floats, ...]) -> None:
        restored, spread = outputs
        if not (np.isfinite(restored).all() and np.isfinite(spread).all()):
            raise ImageError("the model gives what is not a number for it")
        result[place] = channels.whole(as_file(restored, result.dtype), place, scale)
        blocks.add(spread.mean(axis=2), place)

    in_tiles(session, channels.seen, keep, run=lambda tile, _: run(tile), side=side)
    alpha = image.alpha if image.alpha is None or scale == 1 else _enlarged(image.alpha, scale)
    notes = () if note is None else (note,)
    return Mended(result, alpha, blocks.mean, blocks.values, notes)


def in_tiles(
    session: RestoringSession | SegmentingSession,
    image: NDArray[Any],
    keep: Callable[[Place, tuple[Floats, ...]], None],
    *,
    run: Callable[[Floats, Place], tuple[Floats, ...]],
    side: int,
) -> None:
    """`run_in_tiles` with what the model's metadata says of tiles; integers become shares of their range."""
    metadata = session.metadata
    largest = np.float32(np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1)
    run_in_tiles(
        image, run, keep, to_float=lambda part: part.astype(np.float32) / largest,
        side=side, halo=metadata.halo or 0, multiple=metadata.size_multiple, upscale=metadata.scale,
        workers=session.calls,
    )  # fmt: skip


def as_file(values: Floats, kind: np.dtype[Any]) -> Samples:
    """Shares of the range of values as a file of that type holds them."""
    samples: Samples = (np.clip(values, 0, 1) * np.iinfo(kind).max + 0.5).astype(kind)
    return samples


def adapted(session: RestoringSession, channels: int) -> tuple[Callable[[Floats], tuple[Floats, ...]], str | None]:
    """Return a function that runs the model on tiles of other channels, and a note on it."""
    takes = session.metadata.channels
    if takes == channels:
        return session.run, None
    if channels == 1:  # a grey image and a model of colours

        def as_colour(tile: Floats) -> tuple[Floats, ...]:
            outputs = session.run(np.repeat(tile, 3, axis=3))
            return tuple(output.mean(axis=3, keepdims=True) for output in outputs)

        return as_colour, "grey image mended by a model of colour images"

    def by_channel(tile: Floats) -> tuple[Floats, ...]:
        outputs = session.run(np.ascontiguousarray(tile.transpose(3, 1, 2, 0)))
        return tuple(output.transpose(3, 1, 2, 0) for output in outputs)

    return by_channel, "colour image mended channel by channel by a model of grey images"


def _lengths(length: int) -> NDArray[np.float64]:
    """Pixels in each block of a row."""
    lengths = np.full(-(-length // BLOCK), float(BLOCK))
    lengths[-1] -= -length % BLOCK
    return lengths


def _enlarged(alpha: Samples, scale: int) -> Samples:
    """Transparency at the size of the result, between its pixels on straight lines: no new edges, no overshoot."""
    from scipy.ndimage import zoom

    size = (alpha.shape[0] * scale, alpha.shape[1] * scale)
    larger = zoom(alpha[..., 0].astype(np.float32), scale, order=1, mode="nearest", grid_mode=True)
    return np.rint(larger[: size[0], : size[1], None]).astype(alpha.dtype)


def pictures_of(before: Samples, mended: Mended) -> dict[str, Any]:
    """What the report shows of an image: the part of it that is least sure, pixel for pixel, with its error bars.

    Returns:
        `thumbnail` and `restored` (WebP), and `heatmap` (PNG with transparency), all of one size.
    """
    part, size = shown_part(before, mended)
    clear = _find_clear(mended, part)
    if mended.labels is None:
        seen, wide = seen_alike(before[part.before], mended.pixels[part.after]), WIDE
    else:
        seen, wide = (
            [visible(before[part.before]), tinted(before[part.before], mended.labels[part.after])],
            WIDE_OF_LABELS,
        )
    return {
        "thumbnail": webp(seen[0], size, clear),
        "restored": webp(seen[1], size, clear),
        "heatmap": png(_error_bars(mended.blocks, *part.after, wide)),
    }


class Part(NamedTuple):
    """Rows and columns of an image, and of what was made of it."""

    before: tuple[slice, slice]
    after: tuple[slice, slice]


def shown_part(before: Samples, mended: Mended) -> tuple[Part, tuple[int, int]]:
    """The part of an image that its pictures show, and its height and width in the result."""
    height, width = mended.pixels.shape[:2]
    scale = height // before.shape[0]
    rows, columns = _least_sure(mended.blocks, height, width, scale)
    outer = slice(rows.start // scale, rows.stop // scale), slice(columns.start // scale, columns.stop // scale)
    return Part(outer, (rows, columns)), (rows.stop - rows.start, columns.stop - columns.start)


def picture_of_labels(before: Samples, mended: Mended, labels: NDArray[np.uint8]) -> bytes:
    """Other labels of an image, as `pictures_of` shows its own (WebP)."""
    part, size = shown_part(before, mended)
    return webp(tinted(before[part.before], labels[part.after]), size, _find_clear(mended, part))


def _find_clear(mended: Mended, part: Part) -> NDArray[np.bool_] | None:
    """Return where a part is fully transparent, (h, w); None where the file has no transparency."""
    return None if mended.alpha is None else mended.alpha[part.after][..., 0] == 0


def seen_alike(*parts: Samples) -> list[NDArray[np.uint8]]:
    """Pictures for people, 16 bits being stretched alike in all of them."""
    both = visible(np.concatenate([part.reshape(1, -1, part.shape[2]) for part in parts], axis=1))[0]
    ends = np.cumsum([part.shape[0] * part.shape[1] for part in parts])[:-1]
    return [each.reshape(part.shape) for each, part in zip(np.split(both, ends), parts, strict=True)]


def tinted(before: Samples, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image with its classes in colours over it, (H, W, 3); background stays as it is."""
    seen = visible(before)
    seen = np.repeat(seen, 3, axis=2) if seen.shape[2] == 1 else seen
    mixed = np.rint((1 - OPACITY) * seen + OPACITY * PALETTE[labels]).astype(np.uint8)
    return np.where((labels > 0)[..., None], mixed, seen)


def _least_sure(blocks: Floats, height: int, width: int, scale: int) -> tuple[slice, slice]:
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


def webp(pixels: NDArray[np.uint8], size: tuple[int, int], clear: NDArray[np.bool_] | None = None) -> bytes:
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
