"""Names of what is made of images, and which image of another folder has the same."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pipelines.base.files import fitting, folded
from pipelines.images import ImageFile, stem_of


class NameSet:
    """Names by a digest of 8 bytes: millions fit into memory; that two share one is as good as impossible."""

    def __init__(self, *, folds: bool = False) -> None:
        """Begin with none.

        Args:
            folds: Names that differ in upper and lower case alone are one.
        """
        self._key = folded if folds else str
        self._new = array("Q")
        self._sorted: NDArray[np.uint64] = np.zeros(0, np.uint64)

    def add(self, name: str) -> None:
        """One more."""
        self._new.append(_digest(self._key(name)))

    def __contains__(self, name: object) -> bool:
        """Whether it was added."""
        if self._new:
            self._sorted = np.unique(np.concatenate([self._sorted, np.frombuffer(self._new, np.uint64)]))
            self._new = array("Q")
        digest = np.uint64(_digest(self._key(str(name))))
        place = int(np.searchsorted(self._sorted, digest))
        return place < len(self._sorted) and bool(self._sorted[place] == digest)


class OutputNames:
    """Where the result of each file goes, relative to the output folder: files that would collide keep their suffix.

    Only names that are not the plain ones are kept in memory.

    >>> from pathlib import Path
    >>> from pipelines.images import ImageFile
    >>> files = [ImageFile(Path(), name, 0, 0) for name in ("a/b.jpg", "a/b.png", "c.tif")]
    >>> names = OutputNames(files, ".png")
    >>> [names[file.relative] for file in files]
    ['restored/a/b.jpg.png', 'restored/a/b.png.png', 'restored/c.png']
    """

    def __init__(self, files: Sequence[ImageFile], suffix: str, *, folds: bool = False) -> None:
        """Find the names that collide.

        Args:
            files: All files.
            suffix: Of the results.
            folds: Names that differ in upper and lower case alone collide: the file system takes them as equal.
        """
        self._suffix, self._key = suffix, folded if folds else str
        self._own: dict[str, str] = {}
        while taken := list(self._colliding(files)):
            for relative in taken:
                self._own[relative] = self._another(relative)

    def __getitem__(self, relative: str) -> str:
        """The name of the result of a file."""
        return fitting(f"restored/{self._name(relative)}")

    def _another(self, relative: str) -> str:
        """The name to try next; the last one is nobody else's, so trying comes to an end."""
        full = f"{relative}{self._suffix}"
        nobodys = f"{relative}~{_digest(relative):016x}{self._suffix}"
        return {None: full, full: f"{full}{self._suffix}"}.get(self._own.get(relative), nobodys)

    def _name(self, relative: str) -> str:
        return self._own.get(relative) or f"{stem_of(relative)}{self._suffix}"

    def _colliding(self, files: Sequence[ImageFile]) -> Iterator[str]:
        """Files whose names are also those of others, or of folders that are needed."""
        digests = np.array(array("Q", (_digest(self._key(self._name(file.relative))) for file in files)), np.uint64)
        values, counts = np.unique(digests, return_counts=True)
        shared = set(values[counts > 1].tolist())
        folders = _folders(self._key(self._name(file.relative)) for file in files)
        for file in files:
            name = self._key(self._name(file.relative))
            if (shared and _digest(name) in shared) or name in folders:
                yield file.relative


def _folders(names: Iterable[str]) -> set[str]:
    direct = {name.rpartition("/")[0] for name in names}
    return {str(parent) for folder in direct for parent in (PurePosixPath(folder), *PurePosixPath(folder).parents)}


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def by_name(files: Sequence[ImageFile]) -> dict[str, ImageFile]:
    """Images by their name, and without its suffix where that is of one image alone."""
    stems = Counter(stem_of(file.relative) for file in files)
    alone = {stem: file for file in files if stems[stem := stem_of(file.relative)] == 1}
    return alone | {file.relative: file for file in files}
