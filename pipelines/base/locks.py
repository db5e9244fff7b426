"""Lock files between processes of one machine."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file. The system lets go of it when the process dies, so it is never stale.

    The file itself stays: removing it would let a process that has it open and one that makes it anew both hold it.

    Args:
        path: The file, in a folder that is there.
        wait: Until another holder lets go.

    Raises:
        BlockingIOError: Another holder has it, and `wait` is off.
    """
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
