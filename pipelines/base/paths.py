"""Local paths as people write them: `~` is the home; what is empty or an address is none."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(/?)")  # of two letters at least: one may be a drive's


def from_home(path: Path) -> Path:
    """Return a path with the user's home in the place of a leading `~`; what names no user stays as it is.

    >>> from_home(Path("a/~b"))
    PosixPath('a/~b')
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises where there is no such user


def expect_local(path: object) -> object:
    """Return a path, or whatever else was given in its place, unless it can be no path of this machine.

    Raises:
        ValueError: It is empty, which Python reads as the current folder, or an address such as `s3://bucket`.
    """
    text = str(path)
    if not text:
        raise ValueError("a path is empty: name a folder or a file")
    found = _ADDRESS.match(text)
    # A path that Python has read has one slash: there a folder of that name, if there is one, is meant.
    if found and (found[1] or (isinstance(path, Path) and not Path(path.parts[0]).exists())):
        raise ValueError("this is an address, not a local path: mount or copy it, and give that folder")
    return path
