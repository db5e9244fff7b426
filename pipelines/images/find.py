"""The image files under a folder, in an order that does not depend on the file system."""

from __future__ import annotations

import heapq
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipelines.errors import EmptyFolderError, FolderError, ImageError
from pipelines.images.header import SNIFFED, sniff
from pipelines.images.left_out import REASONS, LeftOut, Reason, Tally, suffix_of
from pipelines.images.listing import FileList, ImageFile

IMAGE_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".webp"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".heic", ".heif", ".hif", ".avif", ".jxl"}
)

OUTPUT_MARKER = ".kintsugi-run"  # folder inside an output folder: what lies there are our maps, not the user's images

_log = logging.getLogger(__name__)
_Entry = tuple[str, str, os.DirEntry[str] | None]  # path and name in outputs; None: a folder


@dataclass(frozen=True, slots=True)
class UnreadableFolder:
    """A subfolder that could not be listed: what lies in it is not known.

    Attributes:
        path: Where it is.
        relative: Its name in every output, with "/" at the end.
        reason: What the system said.
    """

    path: Path
    relative: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """What lies under a folder.

    Attributes:
        files: The image files, by `relative`.
        unreadable: The subfolders that could not be listed, by `relative`.
        left_out: Counts of all other files, by reason.
    """

    files: FileList
    unreadable: tuple[UnreadableFolder, ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass(slots=True)
class _Others:
    tally: Tally = field(default_factory=Tally)
    unreadable: list[UnreadableFolder] = field(default_factory=list)


def find_images(folder: Path) -> list[ImageFile]:
    """List the image files under a folder, as `list_images` does; what was left out is in the log only.

    Raises:
        FolderError: the folder is missing, is a file, or may not be read.
        EmptyFolderError: what else was there, and the suffixes that were looked for.
    """
    found = list_images(folder)
    found.left_out.log()
    return list(found.files)


def list_images(folder: Path) -> Found:
    """List the image files under a folder and its subfolders, judged by their suffixes.

    A file whose suffix says nothing, or that has none, is an image if its first bytes are those of one. Hidden files
    and folders are left out, and the output folders of other runs. Links are followed, each folder once (a real folder
    before links to it), so that loops end. A link to a file that is gone is listed, and fails when it is read. A
    subfolder that may not be read is left out with a warning in the log, and named in the result.

    Args:
        folder: Where to look.

    Raises:
        FolderError: the folder is missing, is a file, or may not be read.
        EmptyFolderError: what else was there, and the suffixes that were looked for.
    """
    _check(folder)
    others = _Others()
    found = FileList.of(folder, _walk(folder, others))
    unreadable = sorted(others.unreadable, key=lambda place: place.relative)
    if not found:
        raise _empty(folder, others, unreadable)
    for place in unreadable:
        _log.warning("left out the folder %s: %s", place.relative, place.reason)
    return Found(found, tuple(unreadable), others.tally.left_out())


def expect_images(folder: Path) -> None:
    """Raise what `find_images` would raise, without listing more than the first image.

    Raises:
        FolderError: the folder is missing, is a file, or may not be read.
        EmptyFolderError: what else was there, and the suffixes that were looked for.
    """
    _check(folder)
    others = _Others()
    if next(_walk(folder, others), None) is None:
        raise _empty(folder, others, others.unreadable)


def _check(folder: Path) -> None:
    try:
        status = folder.stat()
    except FileNotFoundError:
        raise FolderError(f"{_printable(str(folder))} does not exist: give a folder with images") from None
    except (OSError, ValueError) as error:
        raise FolderError(f"{_printable(str(folder))} cannot be read: {error}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise FolderError(f"{_printable(str(folder))} is a file: give the folder that contains it")


def _empty(folder: Path, others: _Others, unreadable: Sequence[UnreadableFolder]) -> EmptyFolderError:
    left_out = others.tally.left_out()
    hidden = sum(row["files"] for row in left_out.rows if row["why"] == Reason.HIDDEN)
    count = left_out.files - hidden
    examples = [row["example"] for row in left_out.rows if row["why"] != Reason.HIDDEN][:3]
    seen = [f"{count} other files were there (such as {', '.join(examples)})"] if count else []
    if unreadable:
        first, *rest = unreadable
        more = f", nor can {len(rest)} more" if rest else ""
        seen.append(f"the folder {first.relative} cannot be read ({first.reason}){more}")
    if not seen:
        seen.append("it holds no files")
    if hidden:
        seen.append(f"{hidden} hidden files and folders were left out")
    return EmptyFolderError(
        f"no images under {_printable(str(folder))}: {', and '.join(seen)}; "
        f"looked for {' '.join(sorted(IMAGE_SUFFIXES))}"
    )


def _walk(folder: Path, others: _Others) -> Iterator[ImageFile]:
    """Files in the order of their names, but for those behind links to folders, which come last."""
    root = os.fspath(folder)
    # Of the folders above this one, a link would lead to much more than the user named.
    visited = {_identity(above) for above in folder.resolve().parents}
    waiting: list[_Entry] = [(root, "", None)]  # a stack: what is next in the order of names is on top
    linked: list[tuple[str, str]] = []  # a heap of (relative, path): links wait until every real folder is done
    while waiting or linked:
        if waiting:
            path, relative, entry = waiting.pop()
        else:
            relative, path = heapq.heappop(linked)
            entry = None
        if entry is not None:
            file = _image_file(entry, relative)
            if isinstance(file, Reason):
                others.tally.add(file, relative)
            else:
                yield file
            continue
        try:
            identity = _identity(path)
            if identity in visited:
                continue
            visited.add(identity)
            if path != root and os.path.lexists(f"{path}/{OUTPUT_MARKER}"):
                others.tally.add(Reason.OUTPUT, relative)
                continue
            waiting += sorted(_listed(path, relative, others, linked), key=lambda entry: entry[1], reverse=True)
        except OSError as error:
            if path == root:
                raise FolderError(f"{_printable(root)} cannot be read: {error.strerror}") from error
            others.unreadable.append(UnreadableFolder(Path(path), relative, error.strerror or str(error)))


def _listed(path: str, relative: str, others: _Others, linked: list[tuple[str, str]]) -> Iterator[_Entry]:
    """Files and folders in a folder; links to folders are put off."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                others.tally.add(Reason.HIDDEN, relative + _printable(entry.name))
                continue
            below = relative + _printable(entry.name)
            if not _is_folder(entry):
                yield entry.path, below, entry
            elif entry.is_symlink():
                heapq.heappush(linked, (below + "/", entry.path))
            else:
                yield entry.path, below + "/", None  # the "/" sorts it to where its files are


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to where we may not look
        return False


def _image_file(entry: os.DirEntry[str], relative: str) -> ImageFile | Reason:
    suffix = suffix_of(entry.name)
    by_name = suffix in IMAGE_SUFFIXES
    if not by_name and (reason := REASONS.get(suffix) or _reason_of_copy(entry.name)):
        return reason
    try:
        status = entry.stat()
    except OSError:  # a link to nowhere, or removed a moment ago: to be reported, not passed over
        return ImageFile(Path(entry.path), relative, 0, 0) if by_name else Reason.CLOSED
    if not stat.S_ISREG(status.st_mode):
        return Reason.OTHER
    if not by_name and (reason := _reason_by_content(entry.path, status.st_size)):
        return reason
    return ImageFile(Path(entry.path), relative, status.st_size, status.st_mtime_ns)


def _reason_of_copy(name: str) -> Reason | None:
    """Return why a file is left out that an editor or ExifTool has kept of another; None of all others."""
    is_of_editor = name.endswith("~") or (name.startswith("#") and name.endswith("#"))
    is_of_exiftool = name.endswith("_original") and suffix_of(name.removesuffix("_original")) in IMAGE_SUFFIXES
    return Reason.UNFINISHED if is_of_editor or is_of_exiftool else None


def _reason_by_content(path: str, size: int) -> Reason | None:
    """Return why a file whose name says nothing is left out; None where its first bytes are those of an image."""
    if not size:
        return Reason.OTHER
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            sniff(os.read(file, SNIFFED))
        finally:
            os.close(file)
    except OSError:
        return Reason.CLOSED
    except ImageError:
        return Reason.OTHER
    return None


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


def stem_of(relative: str) -> str:
    """Return a path without its suffix: an image and what is to be compared with it have the same."""
    return str(PurePosixPath(relative).with_suffix(""))
