"""One cell: a method with a seed, measured in a process of its own, and kept in a file, so that the bench resumes.

A process of its own keeps the peak of memory honest, and a method that crashes is a row like the others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.base.files import write_json
from pipelines.base.software import software_version
from pipelines.bench.dataset import Half
from pipelines.bench.jobs import overrides_for
from pipelines.bench.methods import Method

log = logging.getLogger(__name__)

SERVERS = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PREFECT_API_URL")
LOG_LINES_KEPT = 200

Result = dict[str, Any]  # of a cell, as in its file


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all cells of one bench have in common."""

    dataset: Path
    fingerprint: str  # of its images
    view: Path  # the data set with the test images of one half
    half: Half
    overrides: tuple[str, ...]
    max_train: int | None
    out: Path
    anomalib_home: Path  # folder of its environment


@dataclass(frozen=True, slots=True)
class Cell:
    """One method with one seed."""

    setup: Setup
    method: Method
    seed: int

    @property
    def key(self) -> str:
        """Digest of what training depends on: another half of the test images is the same work."""
        stamp = [
            self.setup.fingerprint,
            self.overrides,
            self.setup.max_train,
            self.method.name,
            self.seed,
            software_version(),
        ]
        return hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:10]

    @property
    def overrides(self) -> list[str]:
        """What of `--set` holds here: what is meant for another row makes no difference."""
        return overrides_for(self.method, self.setup.overrides)

    @property
    def name(self) -> str:
        """Of folders, files and of the model in the bench's own registry."""
        return f"{self.method.name}-s{self.seed}-{self.key}"

    @property
    def work(self) -> Path:
        """What is kept between two halves: trained models, logs."""
        return self.setup.out / "work" / self.name

    @property
    def file(self) -> Path:
        """The result."""
        return self.setup.out / "cells" / f"{self.name}-{self.setup.half}.json"

    def read_result(self) -> Result | None:
        """The result of an earlier run; None, so that it is run, where there is none, it failed or lacks the scores."""
        try:
            result: Result = json.loads(self.file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return result if result["status"] == "ok" and "scores" in result else None

    def forget(self) -> None:
        """Remove the result of an earlier run, and its model."""
        self.file.unlink(missing_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)

    def record_failure(self, reason: str) -> Result:
        """The result of a cell that gave none, written down."""
        return self._keep({"status": "failed", "reason": reason})

    def run(self) -> Result:
        """Measure, whatever happens in there.

        Returns:
            `status` "ok" with figures, or "failed" with a reason.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        answer = self.work / "answer.json"
        answer.unlink(missing_ok=True)
        question = self.work / "question.json"
        write_json(question, self._question())
        start = time.monotonic()
        code, lines = _run_process(command(question, answer), environment(self.setup.out), self.method.name)
        (self.work / "log.txt").write_text("\n".join(lines), encoding="utf-8")
        if code or not answer.is_file():
            return self.record_failure(_find_reason(code, lines))
        found = json.loads(answer.read_text(encoding="utf-8"))
        return self._keep({"status": "ok", "wall_seconds": round(time.monotonic() - start, 1), **found})

    def _question(self) -> dict[str, Any]:
        return {
            "method": self.method.name,
            "seed": self.seed,
            "name": self.name,
            "train": str(self.setup.dataset / "train" / "good"),
            "test": str(self.setup.view),
            "half": self.setup.half,
            "overrides": list(self.setup.overrides),
            "max_train": self.setup.max_train,
            "work": str(self.work),
            "anomalib_home": str(self.setup.anomalib_home),
        }

    def _keep(self, result: Result) -> Result:
        settings = {"half": self.setup.half, "overrides": self.overrides, "max_train": self.setup.max_train}
        whole = {"method": self.method.name, "seed": self.seed, "settings": settings, **result}
        write_json(self.file, whole)
        return whole


def command(question: Path, answer: Path) -> list[str]:
    """How the process of a cell is started; warnings of libraries would bury its progress."""
    return [sys.executable, "-W", "ignore", "-m", "pipelines.bench.cell", str(question), str(answer)]


def environment(out: Path) -> dict[str, str]:
    """Of that process: a home of its own, and none of the user's servers."""
    mine = {name: value for name, value in os.environ.items() if name not in SERVERS}
    return mine | {"KINTSUGI_HOME": str(out / "home")}


def _run_process(arguments: list[str], variables: dict[str, str], name: str) -> tuple[int, list[str]]:
    """Run a process, pass on what it says as it says it, and keep the end of that; it never outlives this one's wait.

    Returns:
        The exit code, and the last lines.
    """
    lines: list[str] = []
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", env=variables,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None  # noqa: S101 - it was asked for
        try:
            for line in process.stderr:
                if text := line.rstrip():
                    log.info("%s: %s", name, text)
                    lines = [*lines[-LOG_LINES_KEPT:], text]
        except BaseException:  # Ctrl-C above all
            os.killpg(process.pid, signal.SIGTERM)  # what it has started, too
            raise
    return process.returncode, lines


def _find_reason(code: int, lines: list[str]) -> str:
    if code < 0:
        by = signal.Signals(-code).name
        return f"its process was ended by {by}" + (", perhaps for want of memory" if by == "SIGKILL" else "")
    return lines[-1] if lines else f"its process ended with code {code} and said nothing"
