"""Decoded images and features of past trainings: kept while there is room for them, the last used longest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pipelines.base.locks import locked
from pipelines.base.software import software_version
from pipelines.settings import settings

log = logging.getLogger(__name__)
DAY = 86_400.0  # seconds: what was used since may be in use
_anew: ContextVar[set[Path] | None] = ContextVar("anew", default=None)  # folders that were; None: what is kept counts


@contextlib.contextmanager
def reading_anew(*, wanted: bool = True) -> Iterator[None]:
    """Read every file again in this block, once: what is kept of it is found by size and time, which may be the same.

    Args:
        wanted: Else nothing changes.
    """
    token = _anew.set(set() if wanted else None)
    try:
        yield
    finally:
        _anew.reset(token)


def reads_anew() -> bool:
    """Return whether what is kept of files does not count."""
    return _anew.get() is not None


@contextlib.contextmanager
def cache_folder(stamp: dict[str, Any]) -> Iterator[Path]:
    """Hold the folder of what is made of decoded images, made if need be; long unused ones make room first.

    Its name is a digest of `stamp`, which says what it is made of, and of what decoding depends on besides. A folder is
    used when its file `lock` is touched, which happens under the lock of the whole cache: what is touched here cannot
    be removed by another process at the same time.
    """
    everything = stamp | {"max_pixels": settings().max_pixels, "kintsugi": software_version()}
    cache = settings().home / "cache" / "data"
    folder = cache / hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:24]
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock"):
        folder.mkdir(exist_ok=True)
        (folder / "lock").touch()
        _prune(cache)
    with locked(folder / "lock"):
        made = _anew.get()
        if made is not None and folder not in made:
            made.add(folder)
            _empty(folder)
        yield folder


def _prune(cache: Path) -> None:
    """Empty the folders that were used longest ago until the rest is within `KINTSUGI_CACHE_GB`.

    None that was used within a day is touched, whatever the size. Lock files stay: see `locked`.
    """
    folders = sorted(_used(cache))
    total = sum(_size(folder) for _, folder in folders)
    for used, folder in folders:
        if total <= settings().cache_gb * 1e9 or time.time() - used < DAY:
            return
        before = _size(folder)
        if not before:
            continue
        # In use, or another user's, in a home that is shared.
        with contextlib.suppress(OSError), locked(folder / "lock", wait=False):
            _empty(folder)
            freed = before - _size(folder)
            total -= freed
            since = time.strftime("%F", time.localtime(used))
            log.info("removed %.2f GB of decoded images, not used since %s", freed / 1e9, since)


def _empty(folder: Path) -> None:
    """Remove all but the lock, and but what is another user's."""
    for path in folder.iterdir():
        if path.name != "lock":
            with contextlib.suppress(OSError):
                path.unlink()


def _used(cache: Path) -> Iterator[tuple[float, Path]]:
    """When each folder was used last; without those of other users that may not be looked into."""
    for lock in cache.glob("*/lock"):
        with contextlib.suppress(OSError):
            yield lock.stat().st_mtime, lock.parent


def _size(folder: Path) -> int:
    """Bytes of its files; one that goes meanwhile (a temporary one that gets its name) counts as none.

    So does what may not be looked into: it is not ours to remove, and no reason to end a training.
    """
    total = 0
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                total += path.stat().st_size
    return total
