"""Many files to pixels, on threads, in order, with a bound on what is held in memory; `read` decodes each.

The decoders release Python's lock, so threads are as good as processes here, and hand over arrays without a copy.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from pipelines.base.safe_text import one_line
from pipelines.errors import ImageError
from pipelines.images.bits import ALL
from pipelines.images.convert import check_target, to_model_input
from pipelines.images.hidden import fill_hidden
from pipelines.images.image import Image
from pipelines.images.listing import ImageFile
from pipelines.images.read import decode_bytes, read_bytes
from pipelines.images.samples import Samples

Ready = TypeVar("Ready")
FILES_AHEAD = 2  # files under way or waiting to be taken, for each worker
PIXELS_AHEAD = 24_000_000  # pixels under way or waiting to be taken, for each worker


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """One file, ready for the model.

    Attributes:
        file: Where it came from.
        pixels: (height, width, C) as the model wants them.
        width: Width of the upright image in pixels.
        height: Height of the upright image in pixels.
        bit_depth: Bits per sample in the file.
        sha256: Digest of the file's bytes, hexadecimal.
        note: What a person should know: frames left out, depth changed, transparency ignored.
    """

    file: ImageFile
    pixels: Samples
    width: int
    height: int
    bit_depth: int
    sha256: str
    note: str | None


@dataclass(frozen=True, slots=True)
class Failed:
    """One file that cannot be decoded; `sha256` is None where its bytes could not even be read."""

    file: ImageFile
    reason: str
    sha256: str | None


@dataclass(slots=True, eq=False)
class Opened:
    """One file in its own channels and depth, hidden pixels filled: what a restored copy has to keep is all there."""

    file: ImageFile
    image: Image | None

    def take(self) -> Image:
        """The image, which is then the caller's alone: of a large one, memory has no room for much beside it."""
        image, self.image = self.image, None
        assert image is not None  # noqa: S101 - it is taken once
        return image


def decode(
    files: Sequence[ImageFile],
    *,
    channels: int,
    dtype: np.dtype[Any],
    workers: int,
    max_pixels: int,
    spent: Callable[[float], None] | None = None,
    filled: bool = False,
    bits: int = ALL,
) -> Iterator[Decoded | Failed]:
    """Decode files in their order.

    At most `FILES_AHEAD * workers` files are under way or waiting, and of images beyond the next one at most
    `PIXELS_AHEAD * workers` pixels, so memory stays flat however slow the caller is. Closing the iterator
    cancels the rest.

    Args:
        files: What to decode.
        channels: 1 (grey) or 3 (RGB).
        dtype: uint8 or uint16.
        workers: Number of threads, 1 or more.
        max_pixels: Larger images fail.
        spent: Told the seconds that each file took, waiting for memory aside; called on the threads.
        filled: Give fully transparent pixels the nearest colour that shows; else the one that the file has there.
        bits: That 16-bit files fill, as `to_model_input` takes it.

    Yields:
        One `Decoded` or `Failed` for each file: no file raises.

    Raises:
        ValueError: `channels`, `dtype` or `workers` is not possible (at the call, not at the first file).
    """
    check_target(channels, dtype)

    def prepare(file: ImageFile, image: Image) -> Decoded:
        image = fill_hidden(image) if filled else image
        pixels, converted = to_model_input(image, channels=channels, dtype=dtype, bits=bits)
        note = "; ".join(filter(None, (image.note, converted, _transparency(image)))) or None
        height, width = image.pixels.shape[:2]
        return Decoded(file, pixels, width, height, image.bit_depth, image.sha256, note)

    return _start(files, prepare, workers, max_pixels, spent)


def open_images(
    files: Sequence[ImageFile], *, workers: int, max_pixels: int, spent: Callable[[float], None] | None = None
) -> Iterator[Opened | Failed]:
    """The same for whole images, in the channels and at the depth of each file, with hidden pixels filled."""
    return _start(files, lambda file, image: Opened(file, fill_hidden(image)), workers, max_pixels, spent)


def _start(
    files: Sequence[ImageFile],
    prepare: Callable[[ImageFile, Image], Ready],
    workers: int,
    max_pixels: int,
    spent: Callable[[float], None] | None,
) -> Iterator[Ready | Failed]:
    if workers < 1:
        raise ValueError(f"workers is {workers}: at least 1 is needed")
    return _decode(files, prepare, workers, max_pixels, spent or (lambda _: None))


def _decode(
    files: Sequence[ImageFile],
    prepare: Callable[[ImageFile, Image], Ready],
    workers: int,
    max_pixels: int,
    spent: Callable[[float], None],
) -> Iterator[Ready | Failed]:
    budget = _PixelBudget(PIXELS_AHEAD * workers)

    def one(index: int, file: ImageFile) -> Ready | Failed:
        sha256, start, waited = None, time.perf_counter(), 0.0

        def admit(pixels: int) -> None:
            nonlocal waited
            asked = time.perf_counter()
            budget.wait(index, pixels)
            waited += time.perf_counter() - asked

        try:
            data, sha256 = read_bytes(file.path, max_pixels=max_pixels)
            image = decode_bytes(data, sha256, max_pixels=max_pixels, admit=admit)
            del data
            ready = prepare(file, image)
            spent(time.perf_counter() - start - waited)
            return ready
        except ImageError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - a file must never stop a job: not by a full memory, nor by a bug
            reason = f"cannot be decoded: {one_line(error) or type(error).__name__}"
        budget.give_back(index)
        return Failed(file, reason, sha256)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="kintsugi-decode")
    upcoming = iter(enumerate(files))
    under_way: deque[Future[Ready | Failed]] = deque()
    try:
        for index, file in islice(upcoming, FILES_AHEAD * workers):
            under_way.append(pool.submit(one, index, file))
        for taken in range(len(files)):
            budget.start(taken)
            result = under_way.popleft().result()
            for index, file in islice(upcoming, 1):
                under_way.append(pool.submit(one, index, file))
            yield result
            del result  # the caller's now: do not keep it alive while waiting for the next
    finally:
        budget.close()
        pool.shutdown(wait=True, cancel_futures=True)


def _transparency(image: Image) -> str | None:
    if image.alpha is None or bool((image.alpha == np.iinfo(image.alpha.dtype).max).all()):
        return None
    return "transparency ignored"


class _PixelBudget:
    """Lets decoders go on while the pixels held stay below a limit, and always the one that the caller waits for."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[int, int] = {}
        self._next = 0
        self._closed = False
        self._changed = threading.Condition()

    def wait(self, index: int, pixels: int) -> None:
        """Wait until the file may hold a number of pixels; of several requests the largest counts.

        Raises:
            ImageError: nobody wants the result any more.
        """
        with self._changed:
            # What it holds stays its own while it waits for more: nobody else may count on that room.
            held = self._held.get(index, 0)
            more = max(0, pixels - held)
            self._changed.wait_for(
                lambda: (
                    self._closed or more == 0 or index == self._next or sum(self._held.values()) + more <= self._limit
                )
            )
            if self._closed:
                raise ImageError("was left out: the run was stopped")
            self._held[index] = held + more

    def give_back(self, index: int) -> None:
        """Note that the file holds no pixels any more."""
        with self._changed:
            self._held.pop(index, None)
            self._changed.notify_all()

    def start(self, index: int) -> None:
        """Note that the caller waits for this file, and is done with the one before it."""
        with self._changed:
            self._held.pop(index - 1, None)
            self._next = index
            self._changed.notify_all()

    def close(self) -> None:
        """Turn away everybody who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
