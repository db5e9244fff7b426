"""The image files under a folder, in an order that does not depend on the file system."""

from __future__ import annotations

import heapq
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import EmptyFolderError, FolderError

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k"}
)

OUTPUT_MARKER = ".kintsugi-run"  # folder inside an output folder: what lies there are our maps, not the user's images

_log = logging.getLogger(__name__)


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


@dataclass(slots=True)
class _Others:
    count: int = 0
    hidden: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.examples) < 3:
            self.examples.append(name)


def find_images(folder: Path) -> list[ImageFile]:
    """List the image files under a folder and its subfolders, judged by their suffixes.

    Hidden files and folders are left out, and the output folders of other runs. Links are followed, each folder once (a
    real folder before links to it), so that loops end. A link to a file that is gone is listed, and fails when it is
    read. A subfolder that may not be read is left out with a warning in the log.

    Args:
        folder: Where to look.

    Returns:
        The files, sorted by `relative`.

    Raises:
        FolderError: the folder is missing, is a file, or may not be read.
        EmptyFolderError: what else was there, and the suffixes that were looked for.
    """
    try:
        status = folder.stat()
    except FileNotFoundError:
        raise FolderError(f"{_printable(str(folder))} does not exist: name a folder that holds images") from None
    except (OSError, ValueError) as error:
        raise FolderError(f"{_printable(str(folder))} cannot be read: {error}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise FolderError(f"{_printable(str(folder))} is a file: name the folder that holds it")
    others = _Others()
    found = list(_walk(folder, others))
    if not found:
        seen = f"{others.count} other files were there" if others.count else "it holds no files"
        seen += f" (such as {', '.join(others.examples)})" if others.examples else ""
        seen += f", and {others.hidden} hidden files and folders were left out" if others.hidden else ""
        raise EmptyFolderError(
            f"no images under {_printable(str(folder))}: {seen}; looked for {' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return sorted(found, key=lambda file: file.relative)


def _walk(folder: Path, others: _Others) -> Iterator[ImageFile]:
    root = os.fspath(folder)
    # Of the folders above this one, a link would lead to much more than the user named.
    visited = {_identity(above) for above in folder.resolve().parents}
    real = [(root, "")]
    linked: list[tuple[str, str]] = []  # a heap of (relative, path): links wait until every real folder is done
    while real or linked:
        if real:
            path, relative = real.pop()
        else:
            relative, path = heapq.heappop(linked)
        try:
            identity = _identity(path)
            if identity in visited:
                continue
            visited.add(identity)
            if path != root and os.path.lexists(f"{path}/{OUTPUT_MARKER}"):
                continue
            with os.scandir(path) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith("."):
                        others.hidden += 1
                        continue
                    below = relative + _printable(name)
                    if _is_folder(entry):
                        if entry.is_symlink():
                            heapq.heappush(linked, (below + "/", entry.path))
                        else:
                            real.append((entry.path, below + "/"))
                        continue
                    file = _image_file(entry, below)
                    if file is None:
                        others.add(below)
                    else:
                        yield file
        except OSError as error:
            if path == root:
                raise FolderError(f"{_printable(root)} cannot be read: {error.strerror}") from error
            _log.warning("left out the folder %s: %s", relative, error.strerror)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to where we may not look
        return False


def _image_file(entry: os.DirEntry[str], relative: str) -> ImageFile | None:
    stem, dot, suffix = entry.name.rpartition(".")
    if not stem or (dot + suffix).lower() not in IMAGE_SUFFIXES:
        return None
    try:
        status = entry.stat()
    except OSError:  # a link to nowhere, or removed a moment ago: to be reported, not passed over
        return ImageFile(Path(entry.path), relative, 0, 0)
    if not stat.S_ISREG(status.st_mode):
        return None
    return ImageFile(Path(entry.path), relative, status.st_size, status.st_mtime_ns)


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116 - called with the plain strings of os.scandir
    return status.st_dev, status.st_ino


def _printable(name: str) -> str:
    r"""Text for any file name, different for different names.

    >>> _printable("caf\udce9.png")
    'caf\\xe9.png'
    """
    if name.isascii() and "\\" not in name:
        return name
    return name.replace("\\", r"\x5c").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
