"""Damaged input for every place that reads what others wrote: only the errors that its docstring names may come out.

    python tests/faults/fuzz.py images --minutes 10
    python tests/faults/fuzz.py jobs --seconds 3 --seed 7

Every case is written down before it is tried, so that one that ends the process, by a hang or a crash, is there to be
looked at: `current` in the folder of --keep. The process may take so much memory and no more.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import resource
import secrets
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fuzz_seeds
import numpy as np
from fuzz_damage import damaged

from pipelines.anomaly.calibration import Calibration
from pipelines.errors import CalibrationError, ImageError, JobError, ModelError
from pipelines.images.read import decode_bytes
from pipelines.jobfile.job import load_job
from pipelines.models.gallery import Gallery
from pipelines.models.model_file import GALLERY_FILE, ModelFile, sha256_of
from pipelines.models.session import Session, kind_of

HANGS_AFTER = 20  # seconds for one case
MEMORY = 2 * 2**30  # bytes above what the process has after its imports
MAX_PIXELS = 1_000_000


@dataclass(frozen=True)
class Entry:
    """A place that reads: good input, how it is called, and which error is no surprise."""

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], object]
    error: type[Exception]
    text: bool = True
    may_print: bool = True


def read_image(data: bytes, _: Path) -> None:
    """What decoding promises of its result is checked, too."""
    image = decode_bytes(data, fuzz_seeds.DIGEST, max_pixels=MAX_PIXELS)
    assert image.pixels.ndim == 3
    assert image.pixels.shape[2] in {1, 3}
    assert image.pixels.dtype in {np.dtype(np.uint8), np.dtype(np.uint16)}
    assert 0 < image.pixels[..., 0].size <= MAX_PIXELS
    assert image.alpha is None or image.alpha.shape == (*image.pixels.shape[:2], 1)


def read_job(data: bytes, folder: Path) -> None:
    """The file."""
    (folder / "job.toml").write_bytes(data)
    load_job(folder / "job.toml")


def read_override(data: bytes, folder: Path) -> None:
    """A word of the command line on top of a good file."""
    (folder / "job.toml").write_bytes(fuzz_seeds.jobs()[1])
    load_job(folder / "job.toml", [data.decode("utf-8", "surrogateescape")])


def read_model(data: bytes, folder: Path) -> None:
    """A graph that loads, with metadata that may be anything."""
    path = folder / "model.onnx"
    path.write_bytes(fuzz_seeds.with_metadata(data))
    model = ModelFile(path=path, sha256=sha256_of(path), ref="fuzzed")
    kind_of(model)
    Session(model, device="cpu", threads=1)


def read_calibration(data: bytes, folder: Path) -> None:
    """And what a run makes of it."""
    (folder / "calibration.json").write_bytes(data)
    calibration = Calibration.load(folder / "calibration.json", model_sha256=fuzz_seeds.DIGEST)
    calibration.p_values(np.array([0.3, 7.0]))
    calibration.threshold(0.5)


def read_gallery(data: bytes, folder: Path) -> None:
    """And what a run makes of it."""
    (folder / GALLERY_FILE).write_bytes(data)
    model = ModelFile(path=folder / "model.onnx", sha256=fuzz_seeds.DIGEST, ref="fuzzed")
    gallery = Gallery.of(model)
    assert gallery is not None
    gallery.closest(np.zeros(gallery.codes.shape[1], np.float32))


ENTRIES = {
    "images": Entry(fuzz_seeds.images, read_image, ImageError, text=False, may_print=False),
    "jobs": Entry(fuzz_seeds.jobs, read_job, JobError),
    "overrides": Entry(fuzz_seeds.overrides, read_override, JobError),
    "models": Entry(fuzz_seeds.metadata, read_model, ModelError),
    "calibrations": Entry(fuzz_seeds.calibrations, read_calibration, CalibrationError),
    "galleries": Entry(fuzz_seeds.galleries, read_gallery, ModelError, text=False),
}


def main() -> int:
    """Try cases until the time is over; 1 when one of them has a surprise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("entry", choices=ENTRIES)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--cases", type=int, help="so many, however long they take")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", type=Path, default=None, help="folder for cases with a surprise")
    asked = parser.parse_args()
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    keep = asked.keep or Path(tempfile.mkdtemp(prefix="kintsugi-fuzz-"))
    keep.mkdir(parents=True, exist_ok=True)
    limit_memory()
    warnings.simplefilter("always")  # and it is printed
    return fuzz(asked.entry, asked.minutes * 60 + asked.seconds, seed, keep, asked.cases)


def limit_memory() -> None:
    """An allocation beyond it fails, and its MemoryError is a surprise."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))


def fuzz(name: str, seconds: float, seed: int, keep: Path, most: int | None = None) -> int:
    """Try cases of one entry."""
    entry, random = ENTRIES[name], np.random.default_rng(seed)
    seeds = entry.seeds()
    print(f"{name}: seed {seed}, cases are kept in {keep}", flush=True)  # noqa: T201
    terminal = Terminal(keep / "printed")
    for good in seeds:
        assert tried(entry, good, keep, terminal) == "read"
    met: Counter[str] = Counter()
    surprises, slowest, start = set[str](), 0.0, time.monotonic()
    while time.monotonic() - start < seconds if most is None else met.total() < most:
        case = damaged(seeds, random, text=entry.text)
        (keep / "current").write_bytes(case)
        faulthandler.dump_traceback_later(HANGS_AFTER, exit=True, file=terminal.error)
        begun = time.monotonic()
        outcome = tried(entry, case, keep, terminal)
        slowest = max(slowest, time.monotonic() - begun)
        faulthandler.cancel_dump_traceback_later()
        met[outcome.partition(":")[0]] += 1
        if outcome.startswith("surprise") and (kind := outcome.split(": ")[1]) not in surprises:
            surprises.add(kind)
            (keep / f"surprise-{len(surprises)}").write_bytes(case)
            print(f"{keep / f'surprise-{len(surprises)}'}: {outcome}", flush=True)  # noqa: T201
    counted = ", ".join(f"{count} {what}" for what, count in met.most_common())
    print(f"{name}: {met.total()} cases: {counted}; slowest {slowest:.2f} s")  # noqa: T201
    return 1 if surprises else 0


class Terminal:
    """Standard output and error of the process, which go into a file while a case is read."""

    def __init__(self, printed: Path) -> None:
        self._own = (os.dup(1), os.dup(2))
        self.error = self._own[1]
        self._file = os.open(printed, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def __enter__(self) -> None:
        sys.stdout.flush()
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        for number in (1, 2):
            os.dup2(self._file, number)

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, own in zip((1, 2), self._own, strict=True):
            os.dup2(own, number)

    def printed(self) -> str:
        """What came out since."""
        return os.pread(self._file, 200, 0).decode("utf-8", "replace")


def tried(entry: Entry, case: bytes, folder: Path, terminal: Terminal) -> str:
    """What came of a case."""
    try:
        with terminal:
            entry.read(case, folder)
    except entry.error as error:
        reason = str(error)
        if "memory" in reason:
            return f"surprise: {entry.error.__name__}: {reason[:60]}"
        if not reason.strip():
            return f"surprise: {entry.error.__name__} without a word"
        outcome = "refused"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"surprise: {type(error).__name__} in {Path(where.filename).name}:{where.lineno}: {error}"[:300]
    else:
        outcome = "read"
    if not entry.may_print and (printed := terminal.printed()):
        return f"surprise: printed: {printed}"
    return outcome


if __name__ == "__main__":
    sys.exit(main())
