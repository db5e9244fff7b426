"""Files as a model takes them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.images import Decoded, Failed, ImageFile, decode
from pipelines.settings import settings

if TYPE_CHECKING:  # scoring runs without vaecore
    from pipelines.modelfile import CommonMetadata
    from pipelines.stages import Clock
    from vaecore.image_format import ImageFormat


def pixel_type(form: CommonMetadata | ImageFormat) -> np.dtype[Any]:
    """Type of the pixels that a model takes."""
    return np.dtype(np.uint8 if form.bit_depth == 8 else np.uint16)


def decode_for(
    files: Sequence[ImageFile], form: CommonMetadata | ImageFormat, clock: Clock | None = None
) -> Iterator[Decoded | Failed]:
    """Decode files for a model, in their order, within the limits of the settings.

    Args:
        files: What to decode.
        form: Channels and depth.
        clock: Told how long it takes, as "decode".
    """
    limits = settings()
    return decode(
        files, channels=form.channels, dtype=pixel_type(form), workers=limits.workers, max_pixels=limits.max_pixels,
        spent=None if clock is None else lambda seconds: clock.add("decode", seconds),
    )  # fmt: skip


def batches(images: Iterator[Decoded | Failed], size: Callable[[], int]) -> Iterator[list[Decoded] | Failed]:
    """Images of equal shape together, as soon as there are `size()` of them, the rest at the end; failures alone."""
    groups: dict[tuple[int, ...], list[Decoded]] = {}
    try:
        for image in images:
            if isinstance(image, Failed):
                yield image
                continue
            group = groups.setdefault(image.pixels.shape, [])
            group.append(image)
            if len(group) >= size():
                yield groups.pop(image.pixels.shape)
        yield from groups.values()
    finally:
        if isinstance(images, Generator):  # its threads wait for room in memory until they are told that nobody comes
            images.close()
