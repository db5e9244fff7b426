"""Files that are whole or not there, and names that file systems take."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

TEMPORARY = ".kintsugi-tmp-"  # names of files that are not whole yet
_MACHINE = secrets.token_hex(4)  # machines of a cluster write to one folder, and their processes have equal numbers
LONGEST_SUFFIX = 6  # characters, as in .jpeg
LONGEST_NAME = 200  # bytes of UTF-8; file systems allow 255, some less
LONGEST_PATH = 3000  # below an output folder; with it, systems allow 4095


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


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, thousands if need be: Python's own way goes as deep as its stack allows."""
    missing, above = list[Path](), folder
    while not above.is_dir():
        missing.append(above)
        above = above.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)


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


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON atomically; not-a-number has no place in it."""
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def keep_figures(
    path: Path | None, figures: dict[str, Any], describe: Callable[[dict[str, Any]], Iterable[str]]
) -> None:
    """Write figures, if that is asked for; where it fails, print them: they may be the work of hours.

    Args:
        path: Where to.
        figures: What was measured.
        describe: From figures to lines for a terminal.

    Raises:
        OSError: They cannot be written.
    """
    if path is None:
        return
    try:
        write_json(path, figures)
    except (OSError, ValueError):
        log.error("%s cannot be written; the figures are:", path)
        for line in describe(figures):
            log.error("%s", line)
        raise


def shortened(name: str) -> str:
    """A file name that is not too long for file systems: its middle makes room for a digest that tells it apart."""
    encoded = name.encode("utf-8", "surrogateescape")
    if len(encoded) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    suffix = Path(name).suffix if len(Path(name).suffix) <= LONGEST_SUFFIX else ""
    return encoded[: LONGEST_NAME - 30].decode("utf-8", "ignore") + f"~{digest}{suffix}"


def map_name(relative: str) -> str:
    """Where the heat map of an image lies in the output folder."""
    return fitting(f"maps/{relative}.png")


def fitting(relative: str) -> str:
    """A path below an output folder that file systems take: what is too deep for them lies in a folder of its own."""
    parts = [shortened(part) for part in relative.split("/")]
    if len("/".join(parts).encode("utf-8", "surrogateescape")) <= LONGEST_PATH:
        return "/".join(parts)
    digest = hashlib.sha256(relative.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{parts[0]}/deep~{digest}/{parts[-1]}"
