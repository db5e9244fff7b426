"""What every training shares, whatever it trains: its folder of checkpoints, the aliases, what it returns."""

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
PAUSES = (2.0, 10.0, 30.0, 60.0)  # seconds before each further try to move an alias: a server restarts meanwhile


@dataclass(frozen=True, slots=True)
class MadeBundle:
    """What came of a training, before anything is registered."""

    figures: dict[str, float]
    decision: Decision


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A finished training job."""

    version: Version  # in the registry
    promoted: bool  # it is the champion now
    reason: str  # why it was promoted, or not
    figures: dict[str, float]  # what was measured, by name


def champion_of(registry: Registry, name: str) -> ModelFile | None:
    """Today's champion of a name; None where there is none."""
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
    """Make a bundle, register it, and move the aliases as was decided.

    A training that was stopped in any way goes on where it was. Once its version exists nothing fails it: what the
    registry does not take then is tried again for a while, and is a warning in the end. Started again, the same job
    does only what is missing, and its checkpoints go last of all.

    Args:
        job: What is trained.
        key: Digest of all that the weights depend on.
        data_digest: Of the images.
        make: From the folder of checkpoints, the new bundle's place and the run in MLflow to a bundle.
        why: What gave rise to it, for the record.
        fresh: Begin from the first step, whatever an earlier run left.

    Raises:
        KintsugiError: The bundle cannot be made or registered.
        DigestError: Its files are damaged in the registry, so that no alias moved.
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
        registry: Has the versions.
        name: Of the model.
        origin: Tags of a version that the same training makes.
        kept: File that holds a run's identifier until the training's very end.

    Returns:
        What it made, and whether MLflow knows that its run is over; None where something is left to train.
    """
    version = _left_open(registry, name, origin, kept)
    if version is None:
        return None
    log.info("%s was registered before its training was stopped: nothing is trained again", version.ref)
    try:
        trained = _settle(registry, version, Decision(**json.loads(version.tags[DECISION])))
    except DigestError as error:  # for good: another start would find the same files
        log.warning("%s: it is made again, from the last checkpoint if that is there", error)
        return None
    try:
        end_killed(kept, "FINISHED")
    except RegistryError:
        return trained, False
    return trained, True


def _settle(registry: Registry, version: Version, decision: Decision) -> TrainedModel:
    """Look whether a version came through whole, and move the aliases as was decided.

    Raises:
        DigestError: It did not.
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
                log.warning("%s is registered; its alias waits for the registry (%s)", version.ref, error)
                time.sleep(pause)
                continue
            hand = f", or `kintsugi models promote {version.name} {version.version}`" if promoted else ""
            again = f"start the same command again{hand}"
            log.warning(
                "%s is registered, but the registry took no move of its alias (%s): %s", version.ref, error, again
            )
            promoted, reason = False, f"the registry took no move of its alias; it was decided: {reason}"
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
    """Find the version of the very same training, if that was stopped after it was registered.

    Either the training's last trace names its run, or its alias has not moved. It was decided upon against the champion
    of that time: where that is another one today, its alias does not move any more.

    Args:
        registry: Has the versions.
        name: Of the model.
        origin: Tags of a version that the same training makes.
        kept: File that holds a run's identifier until the training's very end.
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
    """Return whether its alias has moved: an entry of the trail is written before the move that it records."""
    moves = [number for number, entry in enumerate(trail) if entry.to_version == version.version]
    if not moves or moves[-1] < len(trail) - 1:
        return bool(moves)
    return (CHALLENGER if trail[-1].action == "challenge" else CHAMPION) in now.aliases


def _forget_checkpoints(work: Path, *, ended: bool) -> None:
    """Remove what a finished training needs no more; last the name of its run, which stays if that is not `ended`."""
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
    """Hold the folder of a training's checkpoints, so that no other run writes or removes them meanwhile.

    Args:
        job: What is trained.
        key: Digest of what the weights depend on.
        fresh: Remove the checkpoints of an earlier run.
    """
    work = settings().home / "runs" / job.name / key
    work.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(work.with_name(f"{key}.lock"), wait=False))
        except BlockingIOError:
            msg = f"another training of this job is running ({job.path}, {work}): wait for it, or end it first"
            raise JobError(msg) from None
        _forget_abandoned(work)
        if fresh and work.is_dir():
            _forget(work)
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
                    _forget(folder)
                    log.info("removed checkpoints that were not gone on with for a month (%s)", folder)
        except (OSError, ValueError, RegistryError) as error:  # in use, or the next training tries again
            log.debug("%s stays: %s", folder, error)


def _forget(folder: Path) -> None:
    end_killed(folder / RUN_FILE)
    shutil.rmtree(folder)


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
