"""Local copies: versions that share a model file never get each other's files, however many fetch at once."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Barrier

import pytest

from pipelines.registry import cache
from pipelines.registry.cache import MANIFEST, local_copy

AT_ONCE = 6


class Made:
    """A version: the same model, and a calibration of its own."""

    def __init__(self, number: int) -> None:
        self.files = {"model.onnx": b"the same graph", "calibration.json": str(number).encode()}
        self.digests = {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}

    def fetch(self, root: Path) -> Path:
        return local_copy(root, self.digests, self.download)

    def download(self, into: Path) -> None:
        for name, content in self.files.items():
            (into / name).write_bytes(content)

    def is_in(self, folder: Path) -> bool:
        return all((folder / name).read_bytes() == content for name, content in self.files.items())


def test_versions_that_are_fetched_at_once_keep_their_own_calibrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions, barrier, lock = [Made(number % 3) for number in range(AT_ONCE)], Barrier(AT_ONCE), cache.locked

    def locked_at_once(path: Path) -> AbstractContextManager[None]:
        barrier.wait()  # nobody has anything yet when all of them ask for the lock
        return lock(path)

    monkeypatch.setattr(cache, "locked", locked_at_once)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        folders = list(pool.map(lambda version: version.fetch(tmp_path), versions))
    assert all(version.is_in(folder) for version, folder in zip(versions, folders, strict=True))
    assert len(set(folders)) == 3


@pytest.mark.parametrize("record", [None, b"{"])
def test_a_copy_whose_record_is_lost_is_not_taken_for_another_version(tmp_path: Path, record: bytes | None) -> None:
    first, second = Made(1), Made(2)
    in_use = first.fetch(tmp_path)
    if record is None:
        (in_use / MANIFEST).unlink()
    else:
        (in_use / MANIFEST).write_bytes(record)
    assert second.is_in(second.fetch(tmp_path))
    assert first.is_in(in_use)
    assert first.is_in(first.fetch(tmp_path))
