"""What is in a job's folders, by content: whether images have come or gone is a question of digests, not of names."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pipelines.base.files import write_json
from pipelines.base.progress import progress
from pipelines.data.cache import reads_anew
from pipelines.data.training_images import drawn
from pipelines.errors import DataError
from pipelines.images import ImageFile, list_images, stem_of
from pipelines.jobfile.job import Job
from pipelines.models.model_file import sha256_of
from pipelines.settings import settings

log = logging.getLogger(__name__)
MOST_FILES = 200_000  # of a folder, where the job says nothing: no training reads more
UNUSED = 90 * 86_400.0  # seconds


def contents_of(job: Job) -> frozenset[str]:
    """A digest of every image file that a job trains on, and of the label images, readable as images or not.

    Each is of the file's content and of what else of it matters: the sub-folder, whose images share a threshold; with
    label images, the name that both have in common; with `data.group`, the name, which says whose piece it shows. Each
    file is read once: digests of contents are kept under KINTSUGI_HOME, by name, size and time of the last change.

    Raises:
        DataError: A sub-folder cannot be read: what is in it would seem to be gone.
        OSError: A file cannot be read, for a reason that is not its own.
        KintsugiError: There is no such folder, or no image in it.
    """
    folders = [*job.data.folders, *([job.data.labels] if job.data.labels else [])]
    found: set[str] = set()
    for folder in folders:
        role = (
            " degraded" if folder == job.data.degraded else ""
        )  # an image that moves to the other folder is new there
        for relative, digest in _digests(folder, job.data.max_images or MOST_FILES).items():
            named = stem_of(relative) if job.data.labels else "".join(Path(relative).parts[:-1][:1])
            if job.data.group is not None and not job.data.labels:  # an image that is of another piece now is new
                named = relative
            found.add(hashlib.sha256(f"{digest} {named}{role}".encode("utf-8", "surrogatepass")).hexdigest())
    return frozenset(found)


def digests_in(job: Job) -> frozenset[str]:
    """Digests of the files of a job's folder of images, by their content alone."""
    return frozenset(_digests(job.data.images, job.data.max_images or MOST_FILES).values())


def _digests(folder: Path, most: int) -> dict[str, str]:
    """Digests of the files of one folder by name; without files that go meanwhile."""
    listed = list_images(folder)
    if listed.unreadable:
        place = listed.unreadable[0].path
        msg = f"{place} cannot be read, so new images cannot be found: check that the share is mounted"
        raise DataError(msg)
    everything = list(listed.files)
    files = [everything[position] for position in drawn(everything, most)]
    kept = settings().home / "cache" / "contents" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()}.json"
    known: dict[str, str] = {}
    with suppress(OSError, ValueError):
        known = {} if reads_anew() else dict(json.loads(kept.read_text(encoding="utf-8")))
    stamps = [json.dumps([file.relative, file.size, file.mtime_ns]) for file in files]
    new = [file for file, stamp in zip(files, stamps, strict=True) if stamp not in known]
    found = iter(_read(new)) if new else iter(())
    digests = {stamp: known.get(stamp) or next(found) for stamp in stamps}
    kept.parent.mkdir(parents=True, exist_ok=True)
    if new or len(digests) != len(known):
        write_json(kept, {stamp: digest for stamp, digest in digests.items() if digest})
    kept.touch()  # in use
    _forget_unused(kept.parent)
    return {file.relative: digests[stamp] for file, stamp in zip(files, stamps, strict=True) if digests[stamp]}


def _forget_unused(cache: Path) -> None:
    """Remove what was kept of folders that nobody has asked about for long: they may be gone."""
    for each in cache.glob("*.json"):
        with suppress(OSError):
            if time.time() - each.stat().st_mtime > UNUSED:
                each.unlink()


def _read(files: Sequence[ImageFile]) -> list[str]:
    """Digests of files; an empty text for what is gone or may not be read."""
    with ThreadPoolExecutor(settings().workers) as pool, progress(log, "look", len(files), "images") as advance:
        found = []
        for digest in pool.map(_digest, files):
            found.append(digest)
            advance()
        return found


def _digest(file: ImageFile) -> str:
    try:
        return sha256_of(file.path)
    except (FileNotFoundError, PermissionError):
        return ""
