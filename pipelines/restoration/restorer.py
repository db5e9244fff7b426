"""One image through a restorer: in tiles, of any channels and depth, with its transparency."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ImageError
from pipelines.images.image import Image
from pipelines.images.samples import Samples
from pipelines.images.tiles import Place, run_in_tiles
from pipelines.models.session import RestoringSession, SegmentingSession
from pipelines.restoration.channels import Channels
from pipelines.restoration.noise import estimate_noise

SIDE = 1024  # pixels of a tile, at most, without its margin
LARGE = 30_000_000  # pixels of an image beside which there is room for tiles of half the side only
SMALLEST = 64  # below this, a tile that does not fit into memory is given up
BLOCK = 8  # pixels of the result along a side of a block, for which one error bar is kept

Floats = NDArray[np.float32]
RunTile = Callable[[Floats], tuple[Floats, ...]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What a model made of an image.

    Attributes:
        pixels: (H, W, C) in the channels and dtype of the file.
        alpha: (H, W, 1) of the same dtype; None where the file has none.
        mean_scale: Mean predicted standard deviation, as a share of the range of values.
        blocks: (h, w) the same for each block of `BLOCK` x `BLOCK` pixels.
        notes: What a person should know.
        labels: (H, W) class of each pixel, where the model labels them.
        noise: Estimated standard deviation before and after, as shares of the range; None where the size changes.
    """

    pixels: Samples
    alpha: Samples | None
    mean_scale: float
    blocks: Floats
    notes: tuple[str, ...]
    labels: NDArray[np.uint8] | None = None
    noise: tuple[float, float] | None = None


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


def restore_image(session: RestoringSession, image: Image, *, strength: float = 1.0, side: int | None = None) -> Result:
    """Restore an image of any size, channels and depth; memory holds the image, its result and a few tiles.

    What is true of a whole image stays true: grey stays grey, a channel with one value keeps it. Colour under full
    transparency counts as any other: `pipelines.images.hidden` replaces it before. A tile that does not fit into memory
    is tried again at half the size.

    Args:
        session: The model.
        image: The image.
        strength: 1 is the result, 0 the image, what lies between a mixture of both; for models that keep the size.
            The error bar is then that of the mixture: how far it may be from the truth.
        side: Pixels of a tile.

    Raises:
        ImageError: The smallest tile does not fit either, or the model gives what is not a number.
    """
    return in_smaller_tiles(lambda side: _restore(session, image, side, strength), image.pixels, side)


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


def _restore(session: RestoringSession, image: Image, side: int, strength: float) -> Result:
    channels, scale = Channels.of(image.pixels), session.metadata.scale
    height, width, count = image.pixels.shape
    result = np.empty((height * scale, width * scale, count), image.pixels.dtype)
    blocks = Blocks(result.shape)
    run, note = adapt_channels(session, channels.seen.shape[2])

    def keep(place: tuple[slice, slice], outputs: tuple[Floats, ...]) -> None:
        restored, spread = outputs
        if not (np.isfinite(restored).all() and np.isfinite(spread).all()):
            raise ImageError("the model returned NaN for this image")
        if strength < 1:
            restored, spread = _mix(to_floats(channels.seen[place]), restored, spread, strength)
        result[place] = channels.whole(to_samples(restored, result.dtype), place, scale)
        blocks.add(spread.mean(axis=2), place)

    in_tiles(session, channels.seen, keep, run=lambda tile, _: run(tile), side=side)
    alpha = image.alpha if image.alpha is None or scale == 1 else _enlarge(image.alpha, scale)
    before, after = (None, None) if scale > 1 else (estimate_noise(image.pixels), estimate_noise(result))
    noise = None if before is None or after is None else (before, after)
    notes = () if note is None else (note,)
    return Result(result, alpha, blocks.mean, blocks.values, notes, noise=noise)


def _mix(given: Floats, restored: Floats, spread: Floats, strength: float) -> tuple[Floats, Floats]:
    """Mix an image and its result; what is left in of their difference is added to the error bar, in squares."""
    left = (1 - strength) * (given - restored)
    return restored + left, np.sqrt(np.square(spread) + np.square(left))


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
    run_in_tiles(
        image, run, keep, to_float=to_floats,
        side=side, halo=metadata.halo or 0, multiple=metadata.size_multiple, upscale=metadata.scale,
        workers=session.calls,
    )  # fmt: skip


def to_floats(image: NDArray[Any]) -> Floats:
    """Integers as shares of the range of their type; floats as they are."""
    largest = np.float32(np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1)
    floats: Floats = image.astype(np.float32) / largest
    return floats


def to_samples(values: Floats, kind: np.dtype[Any]) -> Samples:
    """Shares of the range of values as a file of that type holds them."""
    samples: Samples = (np.clip(values, 0, 1) * np.iinfo(kind).max + 0.5).astype(kind)
    return samples


def adapt_channels(session: RestoringSession, channels: int) -> tuple[RunTile, str | None]:
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


def _enlarge(alpha: Samples, scale: int) -> Samples:
    """Transparency at the size of the result, between its pixels on straight lines: no new edges, no overshoot."""
    from scipy.ndimage import zoom

    size = (alpha.shape[0] * scale, alpha.shape[1] * scale)
    larger = zoom(alpha[..., 0].astype(np.float32), scale, order=1, mode="nearest", grid_mode=True)
    return np.rint(larger[: size[0], : size[1], None]).astype(alpha.dtype)
