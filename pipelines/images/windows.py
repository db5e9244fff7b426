"""Large images in overlapping windows at full resolution, and one map of the windows' maps, without seams.

Restoration has tiles of its own (`pipelines.images.tiles`): its networks see as far as their halo, whatever the size of
what they are given. What scores is made for one size, sees all of its window, and gives every window a score.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]  # (H, W, C)
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Windows:
    """Where the windows of an image lie: a grid with one at each border, evenly apart.

    An image that is smaller than a window, along either side, is mirrored until it is as large.

    Attributes:
        image: Height and width of the image, in pixels.
        size: Of a window.
        tops: First row of each row of windows.
        lefts: First column of each column of windows.
        overlap: Pixels that neighbours share, at least.
    """

    image: tuple[int, int]
    size: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    overlap: int

    @classmethod
    def over(cls, image: tuple[int, int], size: tuple[int, int], overlap: int) -> Self:
        """Cover an image with as few windows as the overlap allows.

        Args:
            image: Its height and width.
            size: Of a window.
            overlap: Pixels that neighbours share, at least; less than a window's shorter side.

        >>> Windows.over((300, 1000), (256, 256), 64)
        Windows(image=(300, 1000), size=(256, 256), tops=(0, 44), lefts=(0, 186, 372, 558, 744), overlap=64)
        >>> Windows.over((100, 256), (256, 256), 64).places
        [(0, 0)]
        """
        tops, lefts = (_starts(length, side, overlap) for length, side in zip(image, size, strict=True))
        return cls(image, size, tops, lefts, overlap)

    @property
    def places(self) -> list[tuple[int, int]]:
        """First row and first column of each window, row by row."""
        return [(top, left) for top in self.tops for left in self.lefts]

    def cut(self, pixels: Pixels, most: int = 1) -> Iterator[Pixels]:
        """Yield the windows of an image, row by row, `most` at a time: (N, h, w, C)."""
        places, (height, width), source = self.places, self.size, self.filled(pixels)
        for start in range(0, len(places), most):
            yield np.stack(
                [source[top : top + height, left : left + width] for top, left in places[start : start + most]]
            )

    def filled(self, pixels: Pixels) -> Pixels:
        """The image itself, mirrored beyond its lower and right border where it is smaller than a window."""
        missing = [(0, max(0, side - length)) for side, length in zip(self.size, self.image, strict=True)]
        return np.pad(pixels, [*missing, (0, 0)], mode="symmetric") if any(after for _, after in missing) else pixels


class BlendedMap:
    """The map of an image, from its windows' maps: where windows overlap, each counts less towards its own border."""

    def __init__(self, windows: Windows) -> None:
        """Begin with zeros."""
        self._windows = windows
        sides = [max(both) for both in zip(windows.image, windows.size, strict=True)]
        self._total = np.zeros(sides, np.float32)
        self._rows = _weights(windows.tops, windows.size[0], sides[0], windows.overlap)
        self._columns = _weights(windows.lefts, windows.size[1], sides[1], windows.overlap)

    def add(self, number: int, values: Floats) -> None:
        """Add the map (h, w) of a window, by its number in `places`."""
        row, column = divmod(number, len(self._windows.lefts))
        top, left = self._windows.tops[row], self._windows.lefts[column]
        height, width = values.shape
        weighted = values * self._rows[row][:, None] * self._columns[column]
        self._total[top : top + height, left : left + width] += weighted

    @property
    def values(self) -> Floats:
        """The map (H, W), once all windows were added."""
        height, width = self._windows.image
        return self._total[:height, :width]


def _starts(length: int, side: int, overlap: int) -> tuple[int, ...]:
    room = max(0, length - side)
    steps = -(-room // (side - overlap))
    return tuple(np.linspace(0, room, steps + 1).round().astype(int).tolist())


def _weights(starts: tuple[int, ...], side: int, length: int, overlap: int) -> list[Floats]:
    """Weights of each window's rows, or columns: they fall towards its ends, and sum to one at every place."""
    from_end = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
    ramp = np.minimum(1.0, from_end / max(1, overlap))
    total = np.zeros(length)
    for start in starts:
        total[start : start + side] += ramp
    return [(ramp / total[start : start + side]).astype(np.float32) for start in starts]
