"""What is in a job's folders, by content: whether images have come or gone is a question of digests, not of names."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pipelines.files import write_json
from pipelines.images import ImageFile, find_images
from pipelines.job import Job
from pipelines.modelfile import sha256_of
from pipelines.progress import progress
from pipelines.settings import settings

log = logging.getLogger(__name__)


def contents_of(job: Job) -> frozenset[str]:
    """sha256 of every image file that a job trains on, and of the label images, readable as images or not.

    Each file is read once: digests are kept under KINTSUGI_HOME, by name, size and time of the last change.

    Raises:
        KintsugiError: There is no such folder, or no image in it.
    """
    folders = [job.data.train] + ([job.data.labels] if job.data.labels else [])
    return frozenset(digest for folder in folders for digest in _digests(folder))


def _digests(folder: Path) -> Iterator[str]:
    """Of the files of one folder; files that cannot be read, or that go meanwhile, are left out."""
    files = find_images(folder)
    kept = settings().home / "cache" / "contents" / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()}.json"
    known: dict[str, str] = {}
    with suppress(OSError, ValueError):
        known = dict(json.loads(kept.read_text(encoding="utf-8")))
    stamps = [json.dumps([file.relative, file.size, file.mtime_ns]) for file in files]
    new = [file for file, stamp in zip(files, stamps, strict=True) if stamp not in known]
    found = iter(_read(new)) if new else iter(())
    digests = {stamp: digest for stamp in stamps if (digest := known.get(stamp) or next(found))}
    if new or len(digests) != len(known):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, digests)
    return iter(digests.values())


def _read(files: Sequence[ImageFile]) -> list[str]:
    """Digests of files; an empty text for what cannot be read."""
    with ThreadPoolExecutor(settings().workers) as pool, progress(log, "look", len(files), "images") as advance:
        found = []
        for digest in pool.map(_digest, files):
            found.append(digest)
            advance()
        return found


def _digest(file: ImageFile) -> str:
    try:
        return sha256_of(file.path)
    except OSError:
        return ""
