"""Files that are whole or not there, and names that file systems take."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import json
import os
import re
import secrets
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

TEMPORARY = ".kintsugi-tmp-"  # names of files that are not whole yet
_MACHINE = secrets.token_hex(4)  # machines of a cluster write to one folder, and their processes have equal numbers
_LIKE_A_MAP = re.compile(r"\.png~*$", re.IGNORECASE)  # the name of a folder, as a heat map's could be
LONGEST_SUFFIX = 6  # characters, as in .jpeg
LONGEST_NAME = 200  # bytes of UTF-8; file systems allow 255, some less
LONGEST_PATH = 3000  # below an output folder; with it, systems allow 4095


class TextError(ValueError):
    """A file that a person wrote is no UTF-8 text. The message follows the file's name."""


def read_text(path: Path) -> str:
    """Read a text file that a person wrote, on whatever system: with a byte-order mark or without, with any line ends.

    Raises:
        TextError: It is UTF-16 or UTF-32, or no text of an encoding that is known.
        OSError: It cannot be read.
    """
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)) or b"\x00" in data[:4]:
        raise TextError(
            "is not UTF-8 text: it looks like UTF-16, as written by Windows PowerShell and Notepad; save it as UTF-8"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(
            f"is not UTF-8 text: byte {error.start + 1:,} is 0x{data[error.start]:02x}; save it as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A temporary path to make a file at, which is moved into place at the end: nobody sees half of it."""
    make_folders(path.parent)
    temporary = path.with_name(
        f"{TEMPORARY}{_MACHINE}-{os.getpid()}-{threading.get_ident():x}-{path.suffix[1:]}"
    )  # short: names can be at the limit
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it, thousands if need be: Python's own way goes as deep as its stack allows.

    Returns:
        The folders that were missing, the deepest first.
    """
    missing, above = list[Path](), folder
    while not above.is_dir():
        missing.append(above)
        above = above.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
    return missing


def unfinished(folder: Path) -> Iterator[Path]:
    """Files that a killed run has left half written, however deep; what may not be looked into is passed over."""
    waiting = [os.fspath(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.name.startswith(TEMPORARY):
                    yield Path(entry.path)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write(temporary_path)` make a file, then move it into place."""
    with appearing(path) as temporary:
        write(temporary)


def write_json(path: Path, document: Mapping[str, Any], *, indent: int = 2) -> None:
    """Write JSON atomically; not-a-number has no place in it."""
    text = json.dumps(document, indent=indent, sort_keys=True, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def shortened(name: str) -> str:
    """A file name that is not too long for file systems: its middle makes room for a digest that tells it apart."""
    encoded = name.encode("utf-8", "surrogateescape")
    if len(encoded) <= LONGEST_NAME:
        return name
    digest = _digest(name)
    suffix = Path(name).suffix if len(Path(name).suffix) <= LONGEST_SUFFIX else ""
    return encoded[: LONGEST_NAME - 30].decode("utf-8", "ignore") + f"~{digest}{suffix}"


def folded(name: str) -> str:
    """Return a name as file systems compare names that take upper and lower case, and ways to write accents, as equal.

    >>> folded("A/Caf\N{LATIN SMALL LETTER E WITH ACUTE}.PNG") == folded(
    ...     "a/cafe\N{COMBINING ACUTE ACCENT}.png"
    ... )
    True
    """
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def folds_names(folder: Path, inside: str) -> bool:
    """Return whether the file system of a folder takes upper and lower case as equal.

    Args:
        folder: The folder.
        inside: The name of something in it, in lower case.
    """
    return (folder / inside.upper()).exists()


def map_name(relative: str, *, folds: bool = False) -> str:
    """Return where the heat map of an image lies in the output folder.

    No map has the name of a folder that others need: one that ends in .png gets a "~" more.

    Args:
        relative: Of the image.
        folds: The file system takes upper and lower case as equal: a name that such a file system could take for
            another one has a digest.

    >>> map_name("a.png"), map_name("a.png.png/b.png")
    ('maps/a.png.png', 'maps/a.png.png~/b.png.png')
    """
    *folders, name = relative.split("/")
    apart = f"~{_digest(relative)}" if folds and folded(relative) != relative else ""
    inside = "/".join(f"{part}~" if _LIKE_A_MAP.search(part) else part for part in folders)
    return fitting(f"maps/{inside}/{name}{apart}.png" if folders else f"maps/{name}{apart}.png")


def fitting(relative: str) -> str:
    """A path below an output folder that file systems take: what is too deep for them lies in a folder of its own."""
    parts = [shortened(part) for part in relative.split("/")]
    if len("/".join(parts).encode("utf-8", "surrogateescape")) <= LONGEST_PATH:
        return "/".join(parts)
    return f"{parts[0]}/deep~{_digest(relative)}/{parts[-1]}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
