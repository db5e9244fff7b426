"""Vectors of millions of images: on disk, where they are too many for memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
IN_MEMORY = 256 * 2**20  # bytes of vectors that are kept in memory; beyond that they go to disk
ROWS = 4096  # that are read at once


class Vectors(Protocol):
    """(N, E) numbers, of which some rows are read at a time: an array is one, too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N and E."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, rows: Any, /) -> Floats:  # noqa: ANN401 - as of arrays
        """Consecutive rows, or those at some indices."""


class StoredVectors:
    """Float32 vectors that are added in their order; a file without a name holds them once they are many.

    Use it as a context: its end removes the file.
    """

    def __init__(self, width: int, folder: Path) -> None:
        """Begin with none.

        Args:
            width: E, numbers of each.
            folder: Where the file is to be.
        """
        self._width, self._folder = width, folder
        self._parts: list[NDArray[np.float32]] = []
        self._held = 0  # bytes in `_parts`
        self._written = 0  # rows in the file
        self._file: Any = None

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.close()

    def add(self, rows: Floats) -> None:
        """Add vectors (n, E)."""
        part = np.ascontiguousarray(rows, np.float32)
        self._parts.append(part)
        self._held += part.nbytes
        if self._held > IN_MEMORY or (self._file is not None and self._held > IN_MEMORY // 16):
            self._spill()

    def __len__(self) -> int:
        """How many vectors."""
        return self._written + sum(len(part) for part in self._parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """N and E."""
        return len(self), self._width

    def __getitem__(self, rows: Any, /) -> NDArray[np.float32]:  # noqa: ANN401 - as of arrays
        """Consecutive rows, or those at some indices."""
        if self._file is None:
            some: NDArray[np.float32] = self._gathered()[rows]
            return some
        self._spill()
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self._written)
            return self._read(start, max(0, stop - start))
        found = np.empty((len(rows), self._width), np.float32)
        for at, row in enumerate(np.asarray(rows).tolist()):
            found[at] = self._read(row, 1)[0]
        return found

    def _gathered(self) -> NDArray[np.float32]:
        if len(self._parts) != 1:
            self._parts = [np.concatenate([np.empty((0, self._width), np.float32), *self._parts])]
        return self._parts[0]

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder, prefix="kintsugi-")  # noqa: SIM115 - closed in __exit__
        self._file.seek(self._written * self._width * 4)
        for part in self._parts:
            self._file.write(part.tobytes())
            self._written += len(part)
        self._file.flush()
        self._parts, self._held = [], 0

    def _read(self, start: int, count: int) -> NDArray[np.float32]:
        self._file.seek(start * self._width * 4)
        return np.frombuffer(self._file.read(count * self._width * 4), np.float32).reshape(count, self._width)


def blocks_of(vectors: Vectors) -> Iterator[NDArray[np.float64]]:
    """Go through vectors, some at a time, as float64."""
    for start in range(0, len(vectors), ROWS):
        yield vectors[start : start + ROWS].astype(np.float64)


def mean_of(vectors: Vectors) -> NDArray[np.float64]:
    """Return the mean vector (E,)."""
    total = np.zeros(vectors.shape[1])
    for block in blocks_of(vectors):
        total += block.sum(axis=0)
    mean: NDArray[np.float64] = total / len(vectors)
    return mean


def mean_square_of(vectors: Vectors, around: Floats | float = 0.0) -> NDArray[np.float64]:
    """Return the mean square (E,) of what is left without `around`."""
    total = np.zeros(vectors.shape[1])
    for block in blocks_of(vectors):
        total += np.square(block - around).sum(axis=0)
    mean: NDArray[np.float64] = total / len(vectors)
    return mean


def first_of_equals(vectors: Vectors) -> NDArray[np.int64]:
    """Return the indices, ascending, of one of each set of vectors that are equal to the last bit.

    By a digest of 8 bytes: that two vectors share one is as good as impossible.
    """
    factors = np.random.default_rng(0).integers(1, 2**63, 2 * vectors.shape[1], np.uint64) | np.uint64(1)
    digests = np.empty(len(vectors), np.uint64)
    at = 0
    for block in blocks_of(vectors):
        words = np.ascontiguousarray(block + 0.0).view(np.uint32).astype(np.uint64)  # -0 is 0
        mixed = (words ^ (words >> np.uint64(15))) * factors
        digests[at : at + len(block)] = (mixed ^ (mixed >> np.uint64(29))).sum(axis=1, dtype=np.uint64)
        at += len(block)
    return np.sort(np.unique(digests, return_index=True)[1])
