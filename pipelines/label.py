"""One image through a model that labels pixels: tiles, any channels and depth, and pictures of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ImageError
from pipelines.images import Image, to_model_input
from pipelines.images.image import Samples
from pipelines.images.write import FileKind
from pipelines.mend import PALETTE, SIDE, Blocks, Floats, Mended, in_smaller_tiles
from pipelines.session import SegmentingSession
from pipelines.tiles import run_in_tiles

EXACT: tuple[FileKind, ...] = ("png", "tiff")
MASK = np.array([0, 255], np.uint8)  # of two classes: a mask that every viewer shows


def label(session: SegmentingSession, image: Image, *, side: int | None = None) -> Mended:
    """Label the pixels of an image of any size, channels and depth; memory holds the image, its labels and one tile.

    Returns:
        `pixels` are (H, W, 1): 0 and 255 where there are two classes, else the number of the class. `blocks` are the
        standard deviation of the most probable class's indicator.

    Raises:
        ImageError: The smallest tile does not fit into memory, or the model gives what is not a number.
    """
    pixels, note = to_model_input(image, channels=session.metadata.channels, dtype=image.pixels.dtype)
    labels, blocks = in_smaller_tiles(lambda side: _label(session, pixels, side), pixels, side)
    binary = len(session.metadata.classes) == 2
    return Mended(
        pixels=(MASK[labels] if binary else labels)[..., None],
        alpha=None,
        mean_scale=blocks.mean,
        blocks=blocks.values,
        notes=() if note is None else (note,),
        labels=labels,
    )


def _label(session: SegmentingSession, pixels: Samples, side: int) -> tuple[NDArray[np.uint8], Blocks]:
    labels, blocks = np.empty(pixels.shape[:2], np.uint8), Blocks(pixels.shape[:2])

    def keep(place: tuple[slice, slice], outputs: tuple[Floats, ...]) -> None:
        probability, spread = outputs
        if not np.isfinite(probability).all():
            raise ImageError("the model gives what is not a number for it")
        chosen = probability.argmax(axis=2)
        labels[place] = chosen
        blocks.add(np.take_along_axis(spread, chosen[..., None], axis=2)[..., 0], place)

    _in_tiles(session, pixels, side, keep)
    return labels, blocks


def probabilities(session: SegmentingSession, pixels: Samples) -> Floats:
    """Of each class at each pixel, (H, W, K), of an image (H, W, C) as the model takes it."""
    found = np.empty((*pixels.shape[:2], len(session.metadata.classes)), np.float32)

    def keep(place: tuple[slice, slice], outputs: tuple[Floats, ...]) -> None:
        found[place] = outputs[0]

    _in_tiles(session, pixels, SIDE, keep)
    return found


def _in_tiles(
    session: SegmentingSession,
    pixels: Samples,
    side: int,
    keep: Callable[[tuple[slice, slice], tuple[Floats, ...]], None],
) -> None:
    metadata, largest = session.metadata, np.float32(np.iinfo(pixels.dtype).max)
    run_in_tiles(
        pixels, session.run, keep, to_float=lambda part: part.astype(np.float32) / largest,
        side=side, halo=metadata.halo or 0, multiple=metadata.size_multiple,
    )  # fmt: skip


def encode_labels(kind: FileKind, mended: Mended, classes: int, dpi: tuple[float, float] | None) -> bytes:
    """A label image as a file: a mask, or a palette image whose indices are the classes.

    Raises:
        ValueError: The kind of file does not keep exact values.
    """
    from PIL import Image as PillowImage

    if kind not in EXACT:
        msg = f"labels are written as {' or '.join(EXACT)}, which keep their values; {kind.upper()} does not"
        raise ValueError(msg)
    picture = PillowImage.fromarray(mended.pixels[..., 0])
    if classes > 2:
        picture.putpalette(PALETTE.tobytes())
    options: dict[str, Any] = {"compression": "tiff_adobe_deflate"} if kind == "tiff" else {}
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options, **({} if dpi is None else {"dpi": dpi}))
    return buffer.getvalue()
