"""One image through a colorizer: of any channels, depth and size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ImageError
from pipelines.images import Image
from pipelines.images.colour_space import profile_for
from pipelines.images.samples import Samples
from pipelines.models.session import ColorizingSession, keyed_generator
from pipelines.restoration.channels import is_grey
from pipelines.restoration.restorer import Blocks, Floats, Result, to_samples

WHOLE = 1_000_000  # pixels that go through the model at once: of larger images colours are found at this size
BAND = 512  # rows that are coloured at a time
GREY = 2 / 255  # of the range: scanned grey pictures have some tint of noise
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # as in `vaecore.graphs.colorization`, which needs torch


def colour_image(session: ColorizingSession, image: Image) -> Result:
    """Colour an image of any size; memory holds the image, its result, and a band.

    Args:
        session: The model.
        image: The image; of a colour image only the luma counts.

    Returns:
        `pixels` are (H, W, 3) of the file's dtype, with its luma.

    Raises:
        ImageError: It does not fit into memory, or the model gives what is not a number.
    """
    notes: tuple[str, ...] = ()
    if image.pixels.shape[2] == 3 and is_colourful(image.pixels[:: image.pixels.shape[0] // 512 + 1]):
        notes += ("colours of the file were not looked at",)
    if image.icc is not None and profile_for(image.icc, 3) is None:
        notes += ("its profile, of grey values, was left out",)
    blocks = Blocks(image.pixels.shape)
    pixels = _colour(session, image.pixels, None, blocks)
    return Result(pixels, image.alpha, blocks.mean, blocks.values, notes)


def draw_colours(session: ColorizingSession, image: Image, count: int) -> Iterator[Samples]:
    """Other colourings of an image, (H, W, 3), one at a time; the file's content decides the draws."""
    generator = keyed_generator(image.sha256)
    for _ in range(count):
        noise = generator.standard_normal((1, session.metadata.latents), dtype=np.float32)
        yield _colour(session, image.pixels, noise)


def _colour(session: ColorizingSession, pixels: Samples, noise: Floats | None, blocks: Blocks | None = None) -> Samples:
    """The image in colours; error bars are added to the blocks."""
    pixels = pixels[..., :1] if is_grey(pixels) else pixels  # its luma to the bit, which sums of thirds are not
    height, width = pixels.shape[:2]
    result = np.empty((height, width, 3), pixels.dtype)
    small = reduce_image(pixels, luma_of)
    try:
        found, spread = (each[0] for each in session.run(small[None], noise))
    except MemoryError:
        raise ImageError("does not fit into memory") from None
    if not (np.isfinite(found).all() and np.isfinite(spread).all()):
        raise ImageError("the model returned NaN for this image")
    chroma = found - small  # of each colour: what has to be added to luma
    for top in range(0, height, BAND):
        rows = slice(top, min(top + BAND, height))
        place = rows, slice(0, width)
        colours = add_chroma(luma_of(pixels[rows]), _enlarge(chroma, rows, height, width))
        result[place] = to_samples(colours, result.dtype)
        if blocks is not None:
            blocks.add(_enlarge(spread.mean(axis=2, keepdims=True), rows, height, width)[..., 0], place)
    return result


def add_chroma(luma: Floats, chroma: Floats) -> Floats:
    """Red, green and blue in [0, 1]: where chroma would leave it, it is made less, so that luma stays.

    Args:
        luma: (H, W, 1), shares.
        chroma: (H, W, 3), what each colour adds to luma.
    """
    room = np.where(chroma > 0, 1 - luma, luma)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(np.abs(chroma) > room, room / np.abs(chroma), 1).min(axis=2, keepdims=True)
    found: Floats = luma + chroma * share.astype(np.float32)
    return found


def is_colourful(pixels: Samples) -> bool:
    """Whether an image (H, W, 3) has colours: a channel is off its luma by more than `GREY` on average."""
    shares = shares_of(pixels)
    return bool(np.abs(shares - luma_of(shares)).mean() > GREY)


def luma_of(pixels: NDArray[Any]) -> Floats:
    """Luma (H, W, 1) of an image (H, W, C), as `shares_of` gives it."""
    shares = shares_of(pixels)
    return shares if pixels.shape[2] == 1 else np.asarray(shares @ LUMA, np.float32)[..., None]


def shares_of(pixels: NDArray[Any]) -> Floats:
    """(H, W, C) as shares of the range, of integers or of what are shares already."""
    shares: Floats = pixels.astype(np.float32)
    if pixels.dtype.kind == "u":
        shares /= np.iinfo(pixels.dtype).max
    return shares


def reduce_image(pixels: Samples, to_shares: Callable[[Samples], Floats]) -> Floats:
    """An image as shares with at most about `WHOLE` pixels, (h, w, C): means of square blocks."""
    height, width = pixels.shape[:2]
    step = int(np.ceil(np.sqrt(height * width / WHOLE)))
    if step == 1:
        return to_shares(pixels)
    starts = [np.arange(0, length, step) for length in (height, width)]
    columns = np.minimum(step, width - starts[1])[:, None]
    rows = [
        np.add.reduceat(to_shares(pixels[top : top + step]).mean(axis=0), starts[1], axis=0) / columns
        for top in starts[0]
    ]
    return np.stack(rows).astype(np.float32)


def _enlarge(values: Floats, rows: slice, height: int, width: int) -> Floats:
    """Some rows of values (h, w, D) at the size of the image, between them on straight lines."""
    if values.shape[:2] == (height, width):
        return values[rows]
    down, right = (
        _between(np.arange(part.start, part.stop), full, few)
        for part, full, few in ((rows, height, len(values)), (slice(0, width), width, values.shape[1]))
    )
    lower, upper, share = down
    band = values[lower] + (values[upper] - values[lower]) * share[:, None, None]
    lower, upper, share = right
    found: Floats = band[:, lower] + (band[:, upper] - band[:, lower]) * share[:, None]
    return found


def _between(places: NDArray[np.intp], full: int, few: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Which two of `few` samples each of some places of `full` lies between, and how far towards the second."""
    step = int(np.ceil(full / few))
    at = np.clip((places + 0.5) / step - 0.5, 0, few - 1)
    lower = at.astype(np.intp)
    return lower, np.minimum(lower + 1, few - 1), (at - lower).astype(np.float32)
