"""Decoded images and features of past trainings: kept while there is room for them, the last used longest."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from pathlib import Path

from pipelines.locks import locked
from pipelines.settings import settings

log = logging.getLogger(__name__)
DAY = 86_400.0  # seconds: what was used since may be in use


def prune_cache(cache: Path) -> None:
    """Remove the folders that were used longest ago until the rest is within `KINTSUGI_CACHE_GB`.

    A folder is used when its file `lock` is touched. None of the last day's is removed, whatever their size.
    """
    folders = sorted((_last_used(folder), folder) for folder in cache.iterdir() if (folder / "lock").is_file())
    total = sum(_size(folder) for _, folder in folders)
    for used, folder in folders:
        if total <= settings().cache_gb * 1e9 or time.time() - used < DAY:
            return
        with contextlib.suppress(BlockingIOError), locked(folder / "lock", wait=False):
            if _last_used(folder) > used:  # by another training, this moment
                continue
            size = _size(folder)
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
            since = time.strftime("%F", time.localtime(used))
            log.info("removed %.2f GB of decoded images, not used since %s", size / 1e9, since)


def _last_used(folder: Path) -> float:
    return (folder / "lock").stat().st_mtime


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
