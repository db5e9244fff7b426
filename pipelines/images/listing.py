"""A list of millions of image files in little memory: columns of names, sizes and times instead of a record for each.

A record and its `Path` take half a kilobyte; a row of the columns takes what the name takes, and 16 bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

BLOCK_FILES = 1024  # that are records at the same time, where all are gone through
_CHUNK = 4096  # names that are Python's while a list is made


@dataclass(frozen=True, slots=True)
class ImageFile:
    r"""One file found.

    Attributes:
        path: Where it is.
        relative: Its name in every output: relative to the folder, "/" between the parts; bytes that are not UTF-8,
            and the backslash itself, as \xNN.
        size: Bytes.
        mtime_ns: Time of the last change, nanoseconds.
    """

    path: Path
    relative: str
    size: int
    mtime_ns: int


class FileList(Sequence[ImageFile]):
    """Image files in ascending order of `relative`; records are made when they are asked for.

    Attributes:
        relatives: Their names in outputs, as a column.
        sizes: Bytes, (n,).
        mtimes_ns: Times of the last change, (n,).
    """

    def __init__(
        self,
        root: Path,
        relatives: pa.Array,
        sizes: NDArray[np.int64],
        mtimes_ns: NDArray[np.int64],
        unlike: Mapping[str, Path],
    ) -> None:
        """Keep columns.

        Args:
            root: The folder that names are relative to.
            relatives: Strings.
            sizes: As many.
            mtimes_ns: As many.
            unlike: Where files are whose name in outputs is not the one on disk.
        """
        self._root, self.relatives, self.sizes, self.mtimes_ns, self._unlike = root, relatives, sizes, mtimes_ns, unlike

    @classmethod
    def of(cls, root: Path, files: Iterable[ImageFile]) -> FileList:
        """Make a list, in the order of names, whatever order files come in."""
        text, relatives = list[str](), list[pa.Array]()
        numbers, unlike = _Numbers(), dict[str, Path]()
        last, ordered, at = "", True, os.fspath(root / "x")[:-1]
        for file in files:
            ordered, last = ordered and last <= file.relative, file.relative
            text.append(file.relative)
            numbers.add(file.size, file.mtime_ns)
            if os.fspath(file.path) != at + file.relative:
                unlike[file.relative] = file.path
            if len(text) == _CHUNK:
                relatives.append(pa.array(text, pa.large_string()))
                text = []
        names = pa.concat_arrays([*relatives, pa.array(text, pa.large_string())])
        sizes, mtimes = numbers.columns()
        if not ordered:
            order = pc.sort_indices(names).to_numpy()
            names, sizes, mtimes = names.take(pa.array(order)), sizes[order], mtimes[order]
        return cls(root, names, sizes, mtimes, unlike)

    def __len__(self) -> int:
        """How many files."""
        return len(self.sizes)

    @overload
    def __getitem__(self, index: int) -> ImageFile: ...

    @overload
    def __getitem__(self, index: slice) -> FileList: ...

    def __getitem__(self, index: int | slice) -> ImageFile | FileList:
        """One record, or a list of some."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self.take(np.arange(start, stop, step))
        relative = self.relatives[index].as_py()
        where = self._unlike.get(relative) or self._root / relative
        return ImageFile(where, relative, int(self.sizes[index]), int(self.mtimes_ns[index]))

    def __iter__(self) -> Iterator[ImageFile]:
        """Records, one after the other."""
        for block in self.blocks():
            names, sizes, times = block.relatives.to_pylist(), block.sizes.tolist(), block.mtimes_ns.tolist()
            for relative, size, mtime_ns in zip(names, sizes, times, strict=True):
                yield ImageFile(self._unlike.get(relative) or self._root / relative, relative, size, mtime_ns)

    def __eq__(self, other: object) -> bool:
        """Whether the records are the same."""
        if not isinstance(other, FileList):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # it is a list

    def take(self, indices: NDArray[np.int64]) -> FileList:
        """Those files, in that order, which is to be ascending."""
        names = self.relatives.take(pa.array(indices))
        return FileList(self._root, names, self.sizes[indices], self.mtimes_ns[indices], self._unlike)

    def blocks(self, size: int | None = None) -> Iterator[FileList]:
        """Consecutive parts of so many files; default: `BLOCK_FILES`."""
        size = size or BLOCK_FILES
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield FileList(
                self._root, self.relatives[part], self.sizes[part], self.mtimes_ns[part], self._unlike
            )  # views, where `take` copies


class _Numbers:
    """Two growing columns of whole numbers."""

    def __init__(self) -> None:
        self._pairs: list[int] = []
        self._done: list[NDArray[Any]] = []

    def add(self, size: int, mtime_ns: int) -> None:
        self._pairs += (size, mtime_ns)
        if len(self._pairs) == 2 * _CHUNK:
            self._done.append(np.array(self._pairs, np.int64).reshape(-1, 2))
            self._pairs = []

    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        both = np.concatenate([*self._done, np.array(self._pairs, np.int64).reshape(-1, 2)])
        return both[:, 0].copy(), both[:, 1].copy()
