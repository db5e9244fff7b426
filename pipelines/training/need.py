"""Whether a training that is due has anything to learn: new images or answers, drift that scoring has seen, or age.

The same images and the same job give the same model again, so nothing is ever trained on them twice by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipelines.data.file_digests import contents_of, digests_in
from pipelines.errors import ModelError
from pipelines.images import ImageFile
from pipelines.jobfile.job import Job
from pipelines.jobfile.recurrence import interval
from pipelines.models.model_file import MODEL_FILE, ModelFile, sha256_of
from pipelines.registry.batch_runs import DriftSeen, drift_since
from pipelines.registry.records import CHAMPION, RECALIBRATED, WHY, Version
from pipelines.registry.search import job_of
from pipelines.registry.store import Registry
from pipelines.review.uses import read_answers, taught_images

TABLES = ("data", "model", "train", "calibrate")  # of the job: what a model depends on
CONTENTS = (
    "data.train",
    "data.degraded",
    "data.clean",
    "data.labels",
    "data.licence",
)  # but where images are matters less than which they are


@dataclass(frozen=True, slots=True)
class Need:
    """Whether to train, and why, in words."""

    train: bool
    reason: str


def need_of(job: Job) -> Need:
    """Compare a job and its images with what the newest version of its model, of the same job, was made of.

    Raises:
        KintsugiError: The folder cannot be read, or the registry does not answer.
    """
    registry = Registry()
    versions = _decided(registry, job.name)
    if not versions:
        return Need(train=True, reason="the first training")
    alike = [version for version in versions if not _changed_keys(job, version)]
    if not alike:
        changed = ", ".join(_changed_keys(job, versions[0]))
        return Need(train=True, reason=f"the job has changed since {versions[0].ref}: {changed}")
    newest = alike[0]
    try:
        file = ModelFile(registry.fetch(newest) / MODEL_FILE, newest.sha256, newest.ref)
        seen, answered = file.seen, file.answered
    except ModelError as error:
        return Need(train=True, reason=f"the files of {newest.ref} are not as they were: {error}")
    if seen is None:
        return Need(train=True, reason=f"{newest.ref} does not tell which files there were then")
    now = contents_of(job)
    new, gone = len(now - seen), len(seen - now)
    if gone > max(new, len(seen) / 2):
        return Need(
            train=False,
            reason=f"{gone} of {len(seen)} files are gone since {newest.ref}: is a folder away? If not, train by hand",
        )
    champion = next((version for version in versions if CHAMPION in version.aliases), None)
    drifted = drift_since(champion, newest.created) if job.retrain.drift and champion else None
    return weigh(job, newest, new, gone, drifted, len(digest_answers(job, *taught_to(job)) ^ answered))


def weigh(job: Job, newest: Version, new: int, gone: int, drifted: DriftSeen | None, answers: int = 0) -> Need:
    """Apply the job's rule.

    Args:
        job: With its table `[retrain]`.
        newest: The newest version of its model.
        new: Files that were not there then.
        gone: Files that were.
        drifted: Drift that scoring has reported since, and has not seen end.
        answers: Images that would train now, or not any more, since people have answered.
    """
    rule, age = job.retrain, datetime.now(UTC) - newest.created
    drift = str(drifted) if drifted else ""
    if answers >= rule.answers:
        return Need(train=True, reason=f"{answers} answers about images are new since {newest.ref}")
    if not new + gone:
        advice = f"; {drift}: add good images that look like the new ones" if drift else ""
        return Need(train=False, reason=f"no file is new since {newest.ref}{advice}")
    moved = " and ".join(f"{_files(count)} {what}" for count, what in ((new, "new"), (gone, "gone")) if count)
    since = f"{moved} since {newest.ref}"
    if max(new, gone) >= rule.new_images:  # a file that was changed is both
        return Need(train=True, reason=f"{since}{'; ' * bool(drift)}{drift}")
    if drift:
        return Need(train=True, reason=f"{drift}, and {since}")
    if rule.max_age is not None and (limit := interval(rule.max_age)) is not None and age >= limit:
        return Need(train=True, reason=f"{newest.ref} is older than {rule.max_age}, and {since}")
    return Need(train=False, reason=f"{since}, fewer than {rule.new_images} (retrain.new_images)")


def taught_to(job: Job) -> tuple[list[ImageFile], frozenset[str]]:
    """Return the images that answers bring in, and the digests of images that they keep out, if the job asks."""
    return taught_images(job.name, read_answers()) if job.review.train else ([], frozenset())


def digest_answers(job: Job, taught: Sequence[ImageFile], bad: frozenset[str]) -> frozenset[str]:
    """Return the digests of the images that answers bring in, or keep out of the folder: a version keeps them.

    Args:
        job: The job.
        taught: Images that answers bring in, and
        bad: digests of images that they keep out, as `taught_to` returns them.
    """
    if not (taught or bad):
        return frozenset()
    own = digests_in(job)
    return frozenset(sha256_of(file.path) for file in taught) - own | bad & own


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count} files are"


def _decided(registry: Registry, name: str) -> list[Version]:
    """Trained versions that were promoted or refused, newest first; none of a name that is not known.

    A training that was killed between the two left one that nobody has judged: as if it had not been.
    """
    try:
        versions, judged = registry.versions(name), {entry.to_version for entry in registry.trail(name)}
    except ModelError:
        return []
    trained = (version for version in versions if version.tags.get(WHY) != RECALIBRATED)
    return [version for version in trained if version.version in judged]


def _changed_keys(job: Job, version: Version) -> list[str]:
    """Keys that decide what a model becomes, and say something else than they did then.

    Keys that there were not then count where the job sets them.
    """
    then, now = job_of(version), job.flatten()
    keys = (then.keys() & now.keys()) | set(job.set_options(*TABLES))
    mattering = {key for key in keys if key.split(".")[0] in ("task", *TABLES)} - set(CONTENTS)
    return sorted(key for key in mattering if then.get(key) != now[key])
