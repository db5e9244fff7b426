"""Shared by all trainings: the folder of checkpoints, the registration of the model, and its aliases."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.base.locks import locked
from pipelines.errors import DigestError, JobError, KintsugiError, ModelError, RegistryError
from pipelines.jobfile.job import Job
from pipelines.models.model_file import ModelFile
from pipelines.registry.records import (
    CHALLENGER,
    CHAMPION,
    COMMIT,
    DATA,
    DECISION,
    JOB,
    PARENT,
    WHY,
    WORK,
    TrailEntry,
    Version,
)
from pipelines.registry.resolve import find_model
from pipelines.registry.store import Registry
from pipelines.registry.tracking import RUN_FILE, TrackedRun, end_killed, kept_run
from pipelines.settings import settings
from pipelines.training.bundle import git_commit
from pipelines.training.promotion import Decision

log = logging.getLogger(__name__)
ABANDONED = 30 * 86_400.0  # seconds
PAUSES = (2.0, 10.0, 30.0, 60.0)  # seconds before each further try to move an alias: a server may be restarting


@dataclass(frozen=True, slots=True)
class MadeBundle:
    """Result of a training before it is registered."""

    figures: dict[str, float]
    decision: Decision


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """Result of a finished training job."""

    version: Version  # the version in the registry
    promoted: bool  # whether the version is the champion now
    reason: str  # why it was promoted or not
    figures: dict[str, float]  # measured figures, by name


def champion_of(registry: Registry, name: str) -> ModelFile | None:
    """Return the champion of a name; None if there is none."""
    return None if _champion(registry, name) is None else find_model(f"{name}@{CHAMPION}")


def train_once(
    job: Job,
    key: str,
    data_digest: str,
    make: Callable[[Path, Path, TrackedRun], MadeBundle],
    *,
    why: str | None = None,
    fresh: bool = False,
) -> TrainedModel:
    """Make a bundle, register it, and move the aliases by the decision.

    An interrupted training continues. After the version exists, no error fails the training: a step that the registry
    refuses is tried again for a while and is then a warning. The same job, started again, does only the missing steps.
    Its checkpoints are removed last.

    Args:
        job: The training job.
        key: Digest of everything that the weights depend on.
        data_digest: Digest of the images.
        make: Makes a bundle from the folder of checkpoints, the path of the new bundle and the run in MLflow.
        why: Reason for the training, for the record.
        fresh: Start from the first step and discard checkpoints of an earlier run.

    Raises:
        KintsugiError: The bundle cannot be made or registered.
        DigestError: Its files are damaged in the registry, so no alias was moved.
    """
    registry, origin = Registry(), {DATA: data_digest, JOB: json.dumps(job.flatten()), WORK: key}
    with work_folder(job, key, fresh=fresh) as work:
        finished = None if fresh else _finished(registry, job.name, origin, work / RUN_FILE)
        if finished is not None:
            trained, ended = finished
        else:
            with (
                TrackedRun(job.name, kept=work / RUN_FILE) as run,
                tempfile.TemporaryDirectory(prefix="kintsugi-", ignore_cleanup_errors=True) as temporary,
            ):
                folder = Path(temporary) / "model"
                made = make(work, folder, run)
                decision = json.dumps(asdict(made.decision), default=float)
                version = registry.register(
                    job.name, folder, run_id=run.run_id, metrics=made.figures,
                    tags={"task": job.task, DECISION: decision, **origin, **_lineage(registry, job, why)},
                )  # fmt: skip
                run.secure()
                trained = _settle(registry, version, made.decision)
            ended = run.ended
        _forget_checkpoints(work, ended=ended)
    return trained


def _finished(registry: Registry, name: str, origin: Mapping[str, str], kept: Path) -> tuple[TrainedModel, bool] | None:
    """Finish a training that was stopped after its version was registered.

    Args:
        registry: The registry.
        name: Name of the model.
        origin: Tags of a version that the same training makes.
        kept: File that holds a run's identifier until the end of the training.

    Returns:
        The trained model, and whether its run has ended in MLflow; None if the training is not complete.
    """
    version = _left_open(registry, name, origin, kept)
    if version is None:
        return None
    log.info("%s was registered before its training was stopped: it is not trained again", version.ref)
    try:
        trained = _settle(registry, version, Decision(**json.loads(version.tags[DECISION])))
    except DigestError as error:  # for good: another start would find the same files
        log.warning("%s: the version is made again, from the last checkpoint if there is one", error)
        return None
    try:
        end_killed(kept, "FINISHED")
    except RegistryError:
        return trained, False
    return trained, True


def _settle(registry: Registry, version: Version, decision: Decision) -> TrainedModel:
    """Check that a version is complete in the registry, and move the aliases by the decision.

    Raises:
        DigestError: The version is damaged.
    """
    promoted, reason = decision.promote, decision.reason
    for pause in (*PAUSES, None):
        try:
            if not _is_settled(version, registry.trail(version.name), registry.get(version.name, str(version.version))):
                _move(registry, version, decision)
            version = registry.get(version.name, str(version.version))
            log.info("version %d %s: %s", version.version, "is champion" if promoted else "stays challenger", reason)
            break
        except DigestError:
            raise
        except (KintsugiError, OSError) as error:
            if pause is not None:
                log.warning("%s is registered; moving its alias is tried again (%s)", version.ref, error)
                time.sleep(pause)
                continue
            hand = f", or `kintsugi models promote {version.name} {version.version}`" if promoted else ""
            again = f"start the same command again{hand}"
            log.warning(
                "%s is registered, but the registry refused to move its alias (%s): %s", version.ref, error, again
            )
            promoted, reason = False, f"the registry refused to move its alias; the decision was: {reason}"
    return TrainedModel(version, promoted, reason, version.metrics)


def _move(registry: Registry, version: Version, decision: Decision) -> None:
    try:
        registry.fetch(version)  # loaded back from the registry, every digest checked, before an alias moves
    except OSError as error:  # a full disk: the registry's own files are verified all the same
        log.warning("no local copy of %s could be kept: %s", version.ref, error)
        registry.verify(version)
    move = registry.promote if decision.promote else registry.challenge
    move(version.name, version.version, reason=decision.reason, figures=decision.figures)


def _left_open(registry: Registry, name: str, origin: Mapping[str, str], kept: Path) -> Version | None:
    """Find the version of the same training, if that was stopped after the registration.

    Either the kept file names the run of the version, or its alias has not moved yet. The decision compared it with the
    champion of that time: if the champion has changed since, its alias does not move any more.

    Args:
        registry: The registry.
        name: Name of the model.
        origin: Tags of a version that the same training makes.
        kept: File that holds a run's identifier until the end of the training.
    """
    try:
        versions, trail = registry.versions(name), registry.trail(name)
    except ModelError:
        return None
    alike = [each for each in versions if origin.items() <= each.tags.items() and DECISION in each.tags]
    if not alike:
        return None
    version, (run, _) = alike[0], kept_run(kept)
    if _is_settled(version, trail, version):
        return version if version.run_id == run else None
    champion = next((each.ref for each in versions if CHAMPION in each.aliases), None)
    return version if champion in (version.ref, version.tags.get(PARENT)) else None


def _is_settled(version: Version, trail: Sequence[TrailEntry], now: Version) -> bool:
    """Return whether the version's alias has moved: an entry of the trail is written before its move."""
    moves = [number for number, entry in enumerate(trail) if entry.to_version == version.version]
    if not moves or moves[-1] < len(trail) - 1:
        return bool(moves)
    return (CHALLENGER if trail[-1].action == "challenge" else CHAMPION) in now.aliases


def _forget_checkpoints(work: Path, *, ended: bool) -> None:
    """Remove the files of a finished training; the file with its run is last, and stays if the run has not `ended`."""
    with suppress(OSError):
        for each in work.iterdir():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each, ignore_errors=True)
            elif each.name != RUN_FILE:
                each.unlink(missing_ok=True)
        if ended:
            (work / RUN_FILE).unlink(missing_ok=True)
            work.rmdir()


@contextmanager
def work_folder(job: Job, key: str, *, fresh: bool = False) -> Iterator[Path]:
    """Lock the folder of a training's checkpoints, so that no other run writes or removes them.

    Args:
        job: The training job.
        key: Digest of everything that the weights depend on.
        fresh: Remove the checkpoints of an earlier run.
    """
    work = settings().home / "runs" / job.name / key
    work.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(work.with_name(f"{key}.lock"), wait=False))
        except BlockingIOError:
            msg = f"another training of this job is running ({job.path}, {work}): wait for it, or stop it first"
            raise JobError(msg) from None
        _forget_abandoned(work)
        if fresh and work.is_dir():
            _forget(work)
        yield work


def _forget_abandoned(work: Path) -> None:
    """Remove checkpoints of the job's earlier forms that have not been used for a month."""
    for folder in (each for each in work.parent.iterdir() if each != work):
        try:
            if not folder.is_dir() or not _abandoned(
                folder
            ):  # locking a folder in use, even for a moment, would stop its training
                continue
            with locked(folder.with_name(f"{folder.name}.lock"), wait=False):
                if _abandoned(folder):
                    _forget(folder)
                    log.info("removed checkpoints that had not been used for a month (%s)", folder)
        except (OSError, ValueError, RegistryError) as error:  # in use, or the next training tries again
            log.debug("%s stays: %s", folder, error)


def _forget(folder: Path) -> None:
    end_killed(folder / RUN_FILE)
    shutil.rmtree(folder)


def _abandoned(folder: Path) -> bool:
    used = max(each.stat().st_mtime for each in (folder, *folder.rglob("*")))
    return time.time() - used >= ABANDONED


def _lineage(registry: Registry, job: Job, why: str | None) -> dict[str, str]:
    """Return the origin of a version: commit, parent and reason, as far as they are known."""
    commit, champion = git_commit(job.path.parent), _champion(registry, job.name)
    found = {COMMIT: commit, PARENT: champion.ref if champion else None, WHY: why}
    return {key: value for key, value in found.items() if value}


def _champion(registry: Registry, name: str) -> Version | None:
    try:
        return registry.get(name, CHAMPION)
    except ModelError:
        return None
