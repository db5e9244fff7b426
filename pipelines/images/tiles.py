"""Large images in tiles, without seams: each is run with a margin of the network's halo, and the margin is cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.base.concurrency import in_order

Floats = NDArray[np.float32]
Place = tuple[slice, slice]  # rows and columns


class Tile(NamedTuple):
    """A part of an image: what of it is kept, and what has to be seen for it. Rows and columns, in pixels."""

    kept: tuple[slice, slice]
    seen: tuple[slice, slice]

    @property
    def within(self) -> tuple[slice, slice]:
        """What is kept, counted from the corner of what is seen."""
        rows, columns = (
            slice(kept.start - seen.start, kept.stop - seen.start)
            for kept, seen in zip(self.kept, self.seen, strict=True)
        )
        return rows, columns


def cut(height: int, width: int, *, side: int, halo: int, multiple: int) -> Iterator[Tile]:
    """Divide an image into tiles, row by row.

    Args:
        height: Of the image, a multiple of `multiple`.
        width: As well.
        side: Most pixels that are kept along a side; rounded down to the multiple, at least one of it.
        halo: Pixels of margin, a multiple of `multiple`.
        multiple: The network's total stride: tiles begin on multiples of it, or they would not show what the whole
            image does.

    Raises:
        ValueError: Height, width or halo is not a multiple.
    """
    if height % multiple or width % multiple or halo % multiple:
        msg = f"{height} x {width} with a halo of {halo} is not in multiples of {multiple}"
        raise ValueError(msg)
    steps = tuple(_step(length, side, multiple) for length in (height, width))
    for top in range(0, height, steps[0]):
        for left in range(0, width, steps[1]):
            starts, ends = (top, left), (height, width)
            kept = tuple(
                slice(start, min(start + step, end)) for start, step, end in zip(starts, steps, ends, strict=True)
            )
            seen = tuple(
                slice(max(0, part.start - halo), min(end, part.stop + halo))
                for part, end in zip(kept, ends, strict=True)
            )
            yield Tile((kept[0], kept[1]), (seen[0], seen[1]))


def _step(length: int, side: int, multiple: int) -> int:
    """Equal tiles: a narrow rest would be mostly margin."""
    count = -(-length // max(multiple, side // multiple * multiple))
    return -(-length // count // multiple) * multiple


def padded(image: NDArray[Any], multiple: int) -> NDArray[Any]:
    """An image (H, W, C) mirrored beyond its lower and right border until both sides are multiples."""
    height, width = image.shape[:2]
    missing = [(0, -height % multiple), (0, -width % multiple), (0, 0)]
    return np.pad(image, missing, mode="symmetric") if any(after for _, after in missing) else image


def run_in_tiles(
    image: NDArray[np.generic],
    run: Callable[[Floats, Place], tuple[Floats, ...]],
    keep: Callable[[tuple[slice, slice], tuple[Floats, ...]], None],
    *,
    to_float: Callable[[NDArray[np.generic]], Floats],
    side: int,
    halo: int,
    multiple: int,
    upscale: int = 1,
    workers: int = 1,
) -> None:
    """Run a network over an image of any size; memory holds as many tiles as floats as there are workers.

    Args:
        image: (H, W, C), as the file has it.
        run: From a tile (1, h, w, C), and rows and columns of the image that it shows, to outputs (1, h * upscale,
            w * upscale, ...). Beyond the image's end, a tile is mirrored.
        keep: Called with rows and columns of the result, and the outputs there without their batch axis.
        to_float: From a part of the image to what `run` takes.
        side: Most pixels of the input that are kept of a tile, along a side.
        halo: Pixels of margin; a multiple of `multiple`.
        multiple: The network's total stride.
        upscale: How much larger its output is.
        workers: Tiles at the same time.
    """
    height, width = image.shape[:2]
    whole = (-(-length // multiple) * multiple for length in (height, width))

    def one(tile: Tile) -> tuple[Tile, tuple[Floats, ...]]:
        return tile, run(to_float(padded(image[tile.seen], multiple))[None], tile.seen)

    tiles = list(cut(*whole, side=side, halo=halo, multiple=multiple))
    done = in_order(one, tiles, workers=workers, ahead=1) if len(tiles) > 1 else map(one, tiles)
    for tile, outputs in done:
        place, inside = [], []
        for kept, within, end in zip(tile.kept, tile.within, (height, width), strict=True):
            stop = min(kept.stop, end)  # what was mirrored is no part of the result
            place.append(slice(kept.start * upscale, stop * upscale))
            inside.append(slice(within.start * upscale, (within.start + stop - kept.start) * upscale))
        keep((place[0], place[1]), tuple(output[0, inside[0], inside[1]] for output in outputs))
