"""One image through a segmenter: in tiles, of any channels and depth."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ImageError
from pipelines.images import Image, to_model_input
from pipelines.images.samples import Samples
from pipelines.images.tags import Tags
from pipelines.images.tiles import Place
from pipelines.images.write import FileKind, encode_image
from pipelines.models.session import SegmentingSession, keyed_generator
from pipelines.restoration.pictures import PALETTE
from pipelines.restoration.restorer import Blocks, Floats, Result, in_smaller_tiles, in_tiles

EXACT: tuple[FileKind, ...] = ("png", "tiff")
MASK = np.array([0, 255], np.uint8)  # of two classes: a mask that every viewer shows


def label_image(session: SegmentingSession, image: Image, *, side: int | None = None) -> Result:
    """Label the pixels of an image of any size, channels and depth; memory holds the image, its labels and one tile.

    Args:
        session: The model.
        image: The image.
        side: Most pixels of a tile along a side.

    Returns:
        `pixels` are (H, W, 1): 0 and 255 where there are two classes, else the number of the class; what is fully
        transparent is background. `blocks` are the standard deviation of the most probable class's indicator.

    Raises:
        ImageError: The smallest tile does not fit into memory, or the model gives what is not a number.
    """
    pixels, note = to_model_input(image, channels=session.metadata.channels, dtype=image.pixels.dtype)
    labels, blocks = in_smaller_tiles(lambda side: _label(session, pixels, side), pixels, side)
    hidden = _clear_hidden(labels, image)
    return Result(
        pixels=as_pixels(labels, len(session.metadata.classes))[..., None],
        alpha=image.alpha,
        mean_scale=blocks.mean,
        blocks=blocks.values,
        notes=tuple(filter(None, (note, hidden))),
        labels=labels,
    )


def draw_labels(
    session: SegmentingSession, image: Image, count: int, *, side: int | None = None
) -> Iterator[NDArray[np.uint8]]:
    """More label maps (H, W) of an image, one at a time, each drawn from what they may be.

    The file's content decides the draws: the same file gives the same ones.
    """
    pixels, _ = to_model_input(image, channels=session.metadata.channels, dtype=image.pixels.dtype)
    generator = keyed_generator(image.sha256)
    for _ in range(count):
        noise = generator.standard_normal(session.cells(*pixels.shape[:2]), dtype=np.float32)
        labels = in_smaller_tiles(partial(_sample, session, pixels, noise), pixels, side)
        _clear_hidden(labels, image)
        yield labels


def as_pixels(labels: NDArray[np.uint8], classes: int) -> NDArray[np.uint8]:
    """What a file holds: a mask of 0 and 255 where there are two classes, else the number of each."""
    return MASK[labels] if classes == 2 else labels


def _clear_hidden(labels: NDArray[np.uint8], image: Image) -> str | None:
    """Make background of what nobody sees, and return a note where there is some."""
    if image.alpha is None or (image.alpha != 0).all():
        return None
    labels[image.alpha[..., 0] == 0] = 0
    return "fully transparent pixels are labelled background"


def _label(session: SegmentingSession, pixels: Samples, side: int) -> tuple[NDArray[np.uint8], Blocks]:
    labels, blocks = np.empty(pixels.shape[:2], np.uint8), Blocks(pixels.shape[:2])

    def keep(place: tuple[slice, slice], outputs: tuple[Floats, ...]) -> None:
        probability, spread = outputs
        chosen = classes_of(probability)
        labels[place] = chosen
        blocks.add(np.take_along_axis(spread, chosen[..., None], axis=2)[..., 0], place)

    in_tiles(session, pixels, keep, run=lambda tile, _: session.run(tile), side=side)
    return labels, blocks


def _sample(session: SegmentingSession, pixels: Samples, noise: Floats, side: int) -> NDArray[np.uint8]:
    """Labels under noise for each cell of the whole image: other latents than the most likely ones."""
    labels, step = np.empty(pixels.shape[:2], np.uint8), session.metadata.size_multiple

    def run(tile: Floats, seen: Place) -> tuple[Floats, ...]:
        rows, columns = (slice(part.start // step, -(-part.stop // step)) for part in seen)
        return session.run(tile, noise[None, rows, columns])

    def keep(place: Place, outputs: tuple[Floats, ...]) -> None:
        labels[place] = classes_of(outputs[0])

    in_tiles(session, pixels, keep, run=run, side=side)
    return labels


def classes_of(probability: Floats) -> NDArray[np.uint8]:
    """The most likely class of each pixel, (H, W), of (H, W, K).

    Raises:
        ImageError: There is none.
    """
    if not np.isfinite(probability).all():
        raise ImageError("the model returned NaN for this image")
    found: NDArray[np.uint8] = probability.argmax(axis=2).astype(np.uint8)
    return found


def encode_labels(
    kind: FileKind, labels: NDArray[np.uint8], classes: int, dpi: tuple[float, float] | None, tags: Tags | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """Make a file of one of the `EXACT` kinds of labels: a mask, or a palette image whose indices are the classes.

    Returns:
        The file, and what it could not hold, as `encode_image`.
    """
    palette = PALETTE if classes > 2 else None
    return encode_image(kind, as_pixels(labels, classes)[..., None], dpi=dpi, tags=tags, palette=palette)
