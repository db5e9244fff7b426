"""Files as a model takes them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pipelines.base.safe_text import one_line, some_of
from pipelines.images import Decoded, Failed, ImageFile, decode
from pipelines.images.bits import ALL
from pipelines.images.camera_bits import survey_bits
from pipelines.images.parallel_decoding import PIXELS_AHEAD
from pipelines.settings import settings

if TYPE_CHECKING:  # scoring runs without vaecore
    from pipelines.base.concurrency import Clock
    from pipelines.models.model_file import CommonMetadata
    from vaecore.representations.image_format import ImageFormat

_Values = TypeVar("_Values")
MOST_REASONS = 10  # for which images are left out: more are counted


def pixel_type(form: CommonMetadata | ImageFormat) -> np.dtype[Any]:
    """Type of the pixels that a model takes."""
    return np.dtype(np.uint8 if form.bit_depth == 8 else np.uint16)


def decode_for(
    files: Sequence[ImageFile],
    form: CommonMetadata | ImageFormat,
    clock: Clock | None = None,
    *,
    filled: bool = False,
    bits: int = ALL,
) -> Iterator[Decoded | Failed]:
    """Decode files for a model, in their order, within the limits of the settings.

    Args:
        files: What to decode.
        form: Channels and depth.
        clock: Told how long it takes, as "decode".
        filled: Give fully transparent pixels the nearest colour that shows, as models need that make an image of one.
        bits: That 16-bit files fill: see `pipelines.images.camera_bits`.
    """
    limits = settings()
    return decode(
        files, channels=form.channels, dtype=pixel_type(form), workers=limits.workers, max_pixels=limits.max_pixels,
        spent=None if clock is None else lambda seconds: clock.add("decode", seconds), filled=filled, bits=bits,
    )  # fmt: skip


def warn_left_out(log: logging.Logger, failed: Iterable[tuple[str, str]]) -> None:
    """Warn of images that are left out: a line for each reason, with examples, and not one for each image.

    Args:
        log: Where to.
        failed: Name and reason of each.
    """
    reasons: dict[str, list[str]] = {}
    for name, reason in failed:
        reasons.setdefault(reason, []).append(name)
    for reason, names in list(reasons.items())[:MOST_REASONS]:
        count = f"{len(names)} images: " if len(names) > 1 else ""
        log.warning("left out %s%s: %s", count, some_of(names), reason)
    if more := sum(len(names) for names in list(reasons.values())[MOST_REASONS:]):
        log.warning("left out %d more images, for other reasons", more)


def some_readable(
    files: Sequence[ImageFile],
    form: CommonMetadata | ImageFormat,
    accept: Callable[[Decoded], bool] = lambda _: True,
) -> bool:
    """Return whether one of some files that failed before can be read now: a share may have been away.

    Args:
        files: Files that failed.
        form: Channels and depth.
        accept: Return whether an image that can be read is of use.
    """
    images = decode_for(files, form)
    try:
        return any(isinstance(image, Decoded) and accept(image) for image in images)
    finally:
        if isinstance(images, Generator):
            images.close()


def bytes_ahead() -> int:
    """Bytes of pixels that each stage holds at most, beside one image: the processor's share times the workers."""
    return 3 * PIXELS_AHEAD * settings().workers


def weight_of(batch: Sequence[Decoded] | Failed) -> int:
    """Bytes of a batch's pixels."""
    return 0 if isinstance(batch, Failed) else sum(image.pixels.nbytes for image in batch)


def batches(
    images: Iterator[Decoded | Failed], size: Callable[[], int], limit: int | None = None
) -> Iterator[list[Decoded] | Failed]:
    """Put images of equal shape together; failures come alone.

    Args:
        images: Of any shapes.
        size: Returns how many make a batch.
        limit: Bytes of pixels that wait for others of their shape: above it, the batch with the most pixels goes first.
            Default: `bytes_ahead()`.
    """
    limit, held = bytes_ahead() if limit is None else limit, 0
    groups: dict[tuple[int, ...], list[Decoded]] = {}
    try:
        for image in images:
            if isinstance(image, Failed):
                yield image
                continue
            shape = image.pixels.shape
            groups.setdefault(shape, []).append(image)
            held += image.pixels.nbytes
            if len(groups[shape]) < size():
                if held <= limit:
                    continue
                shape = max(groups, key=lambda shape: weight_of(groups[shape]))
            del image  # the caller's now
            held -= weight_of(groups[shape])
            yield groups.pop(shape)
        while groups:
            yield groups.pop(next(iter(groups)))
    finally:
        if isinstance(images, Generator):  # its threads wait for room in memory until they are told that nobody comes
            images.close()


def in_halves(
    batch: Sequence[Decoded],
    run: Callable[[Sequence[Decoded]], _Values],
    what: str,
    too_many: Callable[[int], object] = lambda _: None,
) -> list[tuple[Sequence[Decoded], _Values] | Failed]:
    """A batch through a model; what it cannot take at once goes through in halves, and what it cannot alone, failed.

    Args:
        batch: Images of equal shape.
        run: What the model makes of images.
        what: In words, what is made of a file: "scored".
        too_many: Told how many images did not fit into memory.
    """
    try:
        return [(batch, run(batch))]
    except MemoryError:
        reason = "does not fit into memory"
        too_many(len(batch))
    except Exception as error:  # noqa: BLE001 - a file must never stop a job: ONNX Runtime raises what it likes
        reason = f"cannot be {what}: {one_line(error) or type(error).__name__}"
    if len(batch) == 1:
        return [Failed(batch[0].file, reason, batch[0].sha256)]
    half = len(batch) // 2
    return [*in_halves(batch[:half], run, what, too_many), *in_halves(batch[half:], run, what, too_many)]


def bits_for(metadata: CommonMetadata, files: Sequence[ImageFile]) -> int:
    """Return how many bits of 16-bit images a model is to be given as its whole range.

    A model that has learned dark images as they are, before training brought them to all bits, is given them as they
    are.
    """
    return survey_bits(files) if metadata.bit_depth < ALL or metadata.scales_bits else ALL
