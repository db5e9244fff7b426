"""What answers may be used for: images of the teach queue train, and audits calibrate and judge.

The teach queue chooses images by their scores. They are the most telling ones to learn from, and unlike tomorrow's
images: a threshold that rests on them is too high. Audits choose by chance, and know the chance of each image.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipelines.errors import FolderError
from pipelines.images import ImageFile
from pipelines.models.model_file import sha256_of
from pipelines.review.answers import Answer, Answers, answers_file
from pipelines.review.audit import Stratum, count_answers_for, thin_audit
from pipelines.review.run import ReviewedRun

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AuditedImage:
    """An image that an audit has an answer for.

    Attributes:
        file: Of the image.
        sha256: Of the file's content.
        is_defect: The answer.
        weight: How many images of its run it stands for: those of its stratum for each answer there.
        in_sample: Whether it belongs to the plain random sample of its run.
    """

    file: ImageFile
    sha256: str
    is_defect: bool
    weight: float
    in_sample: bool


@dataclass(frozen=True, slots=True)
class AuditedRun:
    """What the audit of one run has found.

    Attributes:
        run: The run.
        images: Answered "good" or "defect", and still where they were.
        strata: Counts, as the estimates take them.
        undecided: Images answered "unsure" or "unusable".
        gone: Answered images that are not where the run found them, or were changed.
    """

    run: ReviewedRun
    images: tuple[AuditedImage, ...]
    strata: tuple[Stratum, ...]
    undecided: int
    gone: int

    def without(self, known: frozenset[str]) -> AuditedRun:
        """Return the same without images of these digests, which count as gone."""
        kept = tuple(each for each in self.images if each.sha256 not in known)
        return replace(self, images=kept, gone=self.gone + len(self.images) - len(kept))

    def answers_for(self, good: int) -> int:
        """About how many answers it takes until its plain random sample has that many good images."""
        sample = [each for each in self.images if each.in_sample]
        share = sum(not each.is_defect for each in sample) / len(sample) if sample else 1.0
        return count_answers_for(self.run.audit, round(good / max(share, 0.05)))


def read_answers() -> list[Answer]:
    """Read all answers that count, the oldest first; none where nobody has answered yet."""
    path = answers_file()
    return list(Answers(path).every()) if path.is_file() else []


def audits_of(model: str, answers: Iterable[Answer]) -> list[AuditedRun]:
    """Return what the audits of a model's runs have found, the oldest run first.

    Args:
        model: Its name in the registry.
        answers: Of any model.
    """
    return [_audited(run, given) for run, given in _audited_runs(model, answers)]


def newest_audit(model: str, answers: Iterable[Answer]) -> AuditedRun | None:
    """Return what the audit of a model's newest audited run has found; None where none was audited."""
    runs = _audited_runs(model, answers)
    return _audited(*runs[-1]) if runs else None


def _audited_runs(model: str, answers: Iterable[Answer]) -> list[tuple[ReviewedRun, list[Answer]]]:
    """A model's runs that were audited, each with its answers, the oldest run first."""
    by_run: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.queue == "audit" and answer.model == model:
            by_run.setdefault(answer.run, []).append(answer)
    runs = [(run, given) for run, given in zip(_open(by_run), by_run.values(), strict=True) if run is not None]
    return sorted(runs, key=lambda each: each[0].started)


def taught_images(model: str, answers: Sequence[Answer]) -> tuple[list[ImageFile], frozenset[str]]:
    """Return the images of the teach queue that were answered "good", and the digests of all images that are not good.

    Of several answers about one image the last one counts. An image that an audit has asked about, too, does not train:
    it judges.

    Args:
        model: Name in the registry.
        answers: Of any model, the oldest first.
    """
    verdict = {each.sha256: each.verdict for each in answers if each.queue != "restore" and each.verdict != "unsure"}
    bad = frozenset(sha256 for sha256, given in verdict.items() if given in ("defect", "unusable"))
    audited = {each.sha256 for each in answers if each.queue == "audit"}
    wanted: dict[str, set[str]] = {}
    for each in answers:
        is_good = each.queue == "teach" and verdict.get(each.sha256) == "good"
        if each.model == model and is_good and each.sha256 not in audited:
            wanted.setdefault(each.run, set()).add(each.sha256)
    files: dict[str, ImageFile] = {}
    for run, digests in zip(_open(wanted), wanted.values(), strict=True):
        if run is not None:
            found = dict(_find(run, frozenset(digests)))
            if gone := len(digests - found.keys()):
                log.warning("%d answered images of %s are gone or were changed: they do not train", gone, run.out)
            files |= {sha256: file for sha256, file in found.items() if sha256 not in files}
    # A name of its own for each: the training folder may have the same names.
    named = (replace(file, relative=f"answered/{sha256[:16]}/{file.path.name}") for sha256, file in files.items())
    return list(named), bad


def audited_images(model: str, answers: Iterable[Answer]) -> list[AuditedImage]:
    """Return the images that audits of a model's runs have answers for, each content once, the newest answer first."""
    found: dict[str, AuditedImage] = {}
    for audit in reversed(audits_of(model, answers)):
        if audit.gone:
            log.warning("%d audited images of %s are gone or were changed: left out", audit.gone, audit.run.out)
        for each in audit.images:
            found.setdefault(each.sha256, each)
    return list(found.values())


def _open(runs: Iterable[str]) -> Iterator[ReviewedRun | None]:
    for name in runs:
        try:
            yield ReviewedRun(Path(name))
        except (FolderError, OSError, ValueError) as error:
            log.warning("answers about %s are not used: %s", name, error)
            yield None


def _find(run: ReviewedRun, wanted: frozenset[str]) -> Iterator[tuple[str, ImageFile]]:
    for number in run.numbers.tolist():
        if (sha256 := run.sha256(number)) in wanted and (file := _same_file(run, number)) is not None:
            yield sha256, file


def _same_file(run: ReviewedRun, number: int) -> ImageFile | None:
    """An image's file, if it is there and holds what the run has seen."""
    file = run.file(number)
    try:
        return file if file is not None and sha256_of(file.path) == run.sha256(number) else None
    except OSError:
        return None


def _audited(run: ReviewedRun, answers: Sequence[Answer]) -> AuditedRun:
    verdicts = {each.sha256: each.verdict for each in run.of_this_run(answers)}
    given = [verdicts.get(run.sha256(number)) for number in run.numbers.tolist()]
    sample = set(thin_audit(run.audit, np.array([each is not None for each in given])).tolist())
    strata = run.count_strata(answers)
    images: list[AuditedImage] = []
    gone = 0
    for place, (number, verdict) in enumerate(zip(run.numbers.tolist(), given, strict=True)):
        if verdict not in ("good", "defect"):
            continue
        file = _same_file(run, number)
        if file is None:
            gone += 1
            continue
        own = strata[run.audit.stratum[place]]
        images.append(
            AuditedImage(file, run.sha256(number), verdict == "defect", own.images / own.answered, place in sample)
        )
    undecided = sum(each in ("unsure", "unusable") for each in given)
    return AuditedRun(run, tuple(images), strata, undecided, gone)
