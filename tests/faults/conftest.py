"""Both batch jobs as a user runs them, on a few small images, and what is left of an output folder."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from pipelines.demo_images import MAGNETIC_TILE


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    lines: tuple[str, ...]  # on stderr


@dataclass(frozen=True)
class Verb:
    """`kintsugi score` or `kintsugi restore`."""

    name: str
    model: str
    options: tuple[str, ...] = ()

    def words(self, folder: Path, out: Path) -> list[str]:
        """The command, without its first word."""
        return [self.name, str(folder), "--model", self.model, "--out", str(out), *self.options]

    def run(self, folder: Path, out: Path) -> Ended:
        """Run it in this process; anything but an exit code is an error of the test."""
        for name in ("pipelines", "flows"):
            logging.getLogger(name).handlers.clear()  # of an earlier command, whose stderr is closed
        result = CliRunner().invoke(app, self.words(folder, out))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, tuple(result.stderr.splitlines()))


@pytest.fixture(autouse=True)
def _isolated(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read from, or left in, the user's own KINTSUGI_HOME."""
    monkeypatch.setenv("KINTSUGI_WORKERS", "2")
    monkeypatch.setattr("pipelines.base.progress.SECONDS_BETWEEN_LINES", 1e9)  # a slow machine says no more than others


@pytest.fixture
def score(trained) -> Verb:
    return Verb("score", str(trained.model), ("--false-alarms", "0.6"))


@pytest.fixture
def restore() -> Verb:
    return Verb("restore", "builtin:denoise")


@pytest.fixture(params=["score", "restore"])
def verb(request: pytest.FixtureRequest) -> Verb:
    return request.getfixturevalue(request.param)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Ten small images in two folders, cut from real ones."""
    folder = tmp_path / "images"
    for name, count in (("good", 7), ("crack", 3)):
        (folder / name).mkdir(parents=True)
        for path in sorted((MAGNETIC_TILE / "test" / name).iterdir())[:count]:
            with Image.open(path) as image:
                image.crop((20, 20, 76, 68)).save(folder / name / f"{path.stem}.png")
    return folder


@pytest.fixture
def rows_of() -> Callable[[Path], dict[str, dict[str, Any]]]:
    """The rows of an output folder, by path."""
    return lambda out: {row["path"]: row for row in pq.read_table(out / "results.parquet").to_pylist()}


@pytest.fixture
def stable_bytes() -> Callable[[Path], dict[str, bytes]]:
    """Everything that must not depend on how often a run was stopped; times, the lock and the rows so far aside."""

    def stable_bytes(out: Path) -> dict[str, bytes]:
        kept = [path for path in files_below(out) if path.name not in {"run.json", "report.html", "lock"}]
        return {str(path.relative_to(out)): path.read_bytes() for path in kept if "shards-" not in str(path)}

    return stable_bytes


def files_below(folder: Path) -> Iterator[Path]:
    """However deep: `rglob` goes no deeper than Python's stack."""
    waiting = [folder]
    while waiting:
        for path in waiting.pop().iterdir():
            if path.is_dir():
                waiting.append(path)
            else:
                yield path


class SmallDisk:
    """A file system of a size that can be changed."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        _mount(place, "size=1m")

    def resize(self, kilobytes: int) -> None:
        _mount(self.place, f"remount,size={kilobytes}k")

    def protect(self, *, on: bool) -> None:
        _mount(self.place, f"remount,{'ro' if on else 'rw'}")


def _mount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True, capture_output=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk | None]:
    """None where this user may not mount one."""
    place = tmp_path / "disk"
    try:
        disk = SmallDisk(place)
    except (subprocess.CalledProcessError, FileNotFoundError):
        yield None
        return
    yield disk
    subprocess.run(["umount", "--lazy", str(place)], check=True)
    shutil.rmtree(place)
