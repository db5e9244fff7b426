"""How fast a folder is scored: the batch job, a plain loop, the stages one by one, and anomalib's own prediction.

Every row is measured in a process of its own, several times, in turns: what slows the machine for a while slows all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.base.cores import usable_cores
from pipelines.base.files import make_folders, write_atomically, write_json
from pipelines.base.parquet import open_parquet
from pipelines.base.progress import progress
from pipelines.batch.output_folder import check_writable
from pipelines.bench.anomalib_environment import find_anomalib
from pipelines.bench.methods import ANOMALIB
from pipelines.bench.throughput_summary import format_table
from pipelines.data.training_images import drawn
from pipelines.errors import DataError
from pipelines.images import ImageFile, find_images
from pipelines.models.model_file import sha256_of
from pipelines.registry.resolve import find_model
from pipelines.settings import settings

log = logging.getLogger(__name__)
RUNNER = Path(__file__).with_name("anomalib_predict.py")
TRAIN_IMAGES = 200  # that PatchCore's memory bank is as large as of
TUNED_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of the table."""

    name: str
    title: str
    anomalib: dict[str, Any] | None = None  # what its process is asked
    few: bool = False  # a part of the images is enough: it is slow


LINES = (
    Line(name="ours", title="Kintsugi, the batch job"),
    Line(name="naive", title="the same network in a plain loop (Pillow, torch, one image at a time)"),
    Line(name="limits", title="its stages one after the other, each on all cores"),
    Line(
        name="anomalib_patchcore",
        title=f"PatchCore, anomalib {ANOMALIB} as its guides have it",
        anomalib={"rule": "patchcore", "draw": True, "batch": None},
        few=True,
    ),
    *(
        Line(
            name=f"anomalib_{rule}",
            title=f"{title}, anomalib {ANOMALIB}, batches of {TUNED_BATCH}, workers, nothing drawn",
            anomalib={"rule": rule, "draw": False, "batch": TUNED_BATCH},
            few=True,
        )
        for rule, title in (
            ("padim", "PaDiM (ResNet-18)"),
            ("stfpm", "STFPM (ResNet-18)"),
            ("efficientad", "EfficientAD (small)"),
        )
    ),
)


@dataclass(frozen=True, slots=True)
class ThroughputBench:
    """What a finished benchmark has to say."""

    out: Path
    text: str


def bench_throughput(
    folder: Path,
    out: Path,
    *,
    model: str,
    lines: Sequence[str] = (),
    images: int = 1000,
    few: int = 200,
    runs: int = 5,
    growth: Sequence[int] = (),
    fresh: bool = False,
) -> ThroughputBench:
    """Measure, and write `throughput.json` and `throughput.md`; what an earlier start has measured is kept.

    Args:
        folder: Images.
        out: Output folder.
        model: Reference of a model that scores, which has its weights beside it.
        lines: Names of `LINES`; none: all.
        images: How many of the folder are taken, drawn by their names.
        few: How many of these the slow rows take.
        runs: Of each row.
        growth: Counts of images that the batch job is run on besides, once each; the folder's are linked as often as
            that takes.
        fresh: Measure again what an earlier benchmark measured.

    Returns:
        The table, and where it is.

    Raises:
        DataError: There is no row of a name, or a row's process failed.
    """
    known = {line.name: line for line in LINES}
    if unknown := [name for name in lines if name not in known]:
        raise DataError(f"there is no row '{unknown[0]}'; there are: {', '.join(known)}")
    check_writable(out)
    chosen = [known[name] for name in lines] or list(LINES)
    if any(line.anomalib for line in chosen):  # told now, not after the other rows
        find_anomalib(settings().home / "environments")
    files = find_images(folder)
    files = [files[position] for position in drawn(files, images)]
    path = find_model(model).path  # so that no registry is asked in a row's time
    bench = _Bench(out, str(path), fresh=fresh)
    with (
        _linked(files, len(files)) as all_of_them,
        _linked(files, min(few, len(files))) as some,
        progress(log, "bench", runs * len(chosen), "runs") as advance,
    ):
        for run in range(runs):
            for line in chosen:
                bench.measure(line, some if line.few else all_of_them, run)
                advance()
    for count in growth:
        with _linked(files, count) as many:
            bench.measure(LINES[0], many, 0, key=f"growth-{count}")
    text = format_table(bench.answers, {line.name: line.title for line in chosen}, runs, growth)
    write_json(out / "throughput.json", {"machine": _machine(), "runs": bench.answers})
    write_atomically(out / "throughput.md", lambda path: path.write_text(f"{text}\n", encoding="utf-8"))
    return ThroughputBench(out, text)


class _Bench:
    """Runs processes and keeps what they answer."""

    def __init__(self, out: Path, model: str, *, fresh: bool) -> None:
        self._out, self._model, self._fresh = out, model, fresh
        make_folders(out)
        self.answers: dict[str, list[dict[str, Any]]] = {}

    def measure(self, line: Line, images: Path, run: int, key: str | None = None) -> None:
        name = key or line.name
        measured = [sha256_of(Path(self._model)), settings().device, settings().workers, _digest_of(images)]
        digest = hashlib.sha256(json.dumps([*measured, line.anomalib]).encode()).hexdigest()[:16]
        kept = self._out / "runs" / f"{name}-{run}-{digest}.json"  # figures of other images, or another model, are not
        if self._fresh or not kept.is_file():
            make_folders(kept.parent)
            write_json(kept, self._run(line, images))
        answer = json.loads(kept.read_text(encoding="utf-8"))
        log.info("%s, run %d: %.1f images/s", name, run + 1, answer["images"] / answer["seconds"])
        self.answers.setdefault(name, []).append(answer)

    def _run(self, line: Line, images: Path) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="kintsugi-") as work:
            request, answer = Path(work) / "request.json", Path(work) / "answer.json"
            asked: dict[str, Any] = {"row": line.name, "images": str(images), "model": self._model, "work": work}
            words = [sys.executable, "-m", "pipelines.bench.throughput_cell"]
            if line.anomalib is not None:
                asked |= line.anomalib | {
                    "workers": settings().workers,
                    "train_images": TRAIN_IMAGES,
                    "device": "gpu" if settings().device == "cuda" else "cpu",
                }
                words = [str(find_anomalib(settings().home / "environments")), "-P", "-W", "ignore", str(RUNNER)]
            if line.name == "naive":
                asked["flagged"] = self._find_flagged(images)
            write_json(request, asked | {"started": time.time()})
            done = subprocess.run(  # noqa: S603 - our own modules
                [*words, str(request), str(answer)], capture_output=True, text=True, check=False,
                env=os.environ | {"HF_HUB_OFFLINE": "1"},
            )  # fmt: skip
            if done.returncode or not answer.is_file():
                said = done.stderr.strip().splitlines()
                raise DataError(f"the row {line.name} failed: {said[-1] if said else f'code {done.returncode}'}")
            found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
            return found

    def _find_flagged(self, images: Path) -> list[str]:
        """What the batch job flags, which is scored for it once."""
        from pipelines.score import score_folder

        with tempfile.TemporaryDirectory(prefix="kintsugi-", dir=self._out) as place:
            score_folder(images, self._model, Path(place) / "flagged")
            path = Path(place) / "flagged" / "results.parquet"
            with open_parquet(path) as file:
                table = file.read(columns=["path", "is_anomaly"]).to_pylist()
        return [row["path"] for row in table if row["is_anomaly"]]


@contextmanager
def _linked(files: Sequence[ImageFile], count: int) -> Iterator[Path]:
    """A folder of so many images, under plain names; links, so that it takes no room."""
    with tempfile.TemporaryDirectory(prefix="kintsugi-images-") as temporary:
        for number in range(count):
            file = files[number % len(files)].path
            link = Path(temporary) / f"{number // 1000:05}" / f"{number:08}{file.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
        yield Path(temporary)


def _digest_of(images: Path) -> str:
    """Which images a folder of links has, by name, size and time of change."""
    stats = ((path.name, path.resolve().stat()) for path in sorted(images.rglob("*")) if path.is_file())
    told = [(name, found.st_size, found.st_mtime_ns) for name, found in stats]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _machine() -> dict[str, Any]:
    return {"cores": usable_cores(), "processor": platform.processor() or platform.machine()}
