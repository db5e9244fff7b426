"""What every training shares, whatever it trains: its folder of checkpoints, the aliases, what it returns."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.bundle import git_commit
from pipelines.errors import JobError, ModelError, RegistryError
from pipelines.job import Job
from pipelines.locks import locked
from pipelines.modelfile import ModelFile
from pipelines.models import find_model
from pipelines.promotion import Decision
from pipelines.registry import Registry, Version
from pipelines.registry.records import CHAMPION, COMMIT, DATA, JOB, PARENT, WHY
from pipelines.settings import settings
from pipelines.tracking import RUN_FILE, end_killed

log = logging.getLogger(__name__)
ABANDONED = 30 * 86_400.0  # seconds


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A finished training job."""

    version: Version
    promoted: bool
    reason: str
    figures: dict[str, float]


def champion_of(registry: Registry, name: str) -> ModelFile | None:
    """Today's champion of a name; None where there is none."""
    return None if _champion(registry, name) is None else find_model(f"{name}@{CHAMPION}")


def register(
    registry: Registry, job: Job, bundle: Path, *, run_id: str, data_digest: str, figures: dict[str, float],
    decision: Decision, why: str | None = None,
) -> TrainedModel:  # fmt: skip
    """Register a bundle, look whether it came through whole, and move the aliases as was decided."""
    version = registry.register(
        job.name, bundle, run_id=run_id, metrics=figures,
        tags={"task": job.task, DATA: data_digest, JOB: json.dumps(flatten(job)), **_lineage(registry, job, why)},
    )  # fmt: skip
    registry.fetch(version)  # loaded back from the registry, every digest checked, before an alias moves
    if decision.promote:
        registry.promote(version.name, version.version, reason=decision.reason, figures=decision.figures)
    else:
        registry.challenge(version.name, version.version, reason=decision.reason, figures=decision.figures)
    log.info(
        "version %d %s: %s", version.version, "is champion" if decision.promote else "stays challenger", decision.reason
    )
    return TrainedModel(registry.get(job.name, str(version.version)), decision.promote, decision.reason, figures)


@contextmanager
def work_folder(job: Job, key: str) -> Iterator[Path]:
    """Hold the folder of a training's checkpoints, so that no other run writes or removes them meanwhile."""
    work = settings().home / "runs" / job.name / key
    work.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(work.with_name(f"{key}.lock"), wait=False))
        except BlockingIOError:
            msg = f"another training of this job is running ({job.path}, {work}): wait for it, or end it first"
            raise JobError(msg) from None
        _forget_abandoned(work)
        yield work


def _forget_abandoned(work: Path) -> None:
    """Remove checkpoints beside these that nobody has gone on with for a month: jobs change, and theirs stay behind."""
    for folder in (each for each in work.parent.iterdir() if each != work):
        try:
            if not folder.is_dir() or not _abandoned(
                folder
            ):  # a lock, if only for a moment, would turn somebody away who goes on with them
                continue
            with locked(folder.with_name(f"{folder.name}.lock"), wait=False):
                if _abandoned(folder):
                    end_killed(folder / RUN_FILE)
                    shutil.rmtree(folder)
                    log.info("removed checkpoints that were not gone on with for a month (%s)", folder)
        except (OSError, ValueError, RegistryError) as error:  # in use, or the next training tries again
            log.debug("%s stays: %s", folder, error)


def _abandoned(folder: Path) -> bool:
    used = max(each.stat().st_mtime for each in (folder, *folder.rglob("*")))
    return time.time() - used >= ABANDONED


def _lineage(registry: Registry, job: Job, why: str | None) -> dict[str, str]:
    """Where a version comes from, as far as there is something."""
    commit, champion = git_commit(job.path.parent), _champion(registry, job.name)
    found = {COMMIT: commit, PARENT: champion.ref if champion else None, WHY: why}
    return {key: value for key, value in found.items() if value}


def _champion(registry: Registry, name: str) -> Version | None:
    try:
        return registry.get(name, CHAMPION)
    except ModelError:
        return None


def flatten(job: Job) -> dict[str, Any]:
    """The job as `table.key` and values, as runs are tagged with it."""
    flat: dict[str, Any] = {}
    for key, value in job.model_dump(mode="json").items():
        flat |= {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
    return flat
