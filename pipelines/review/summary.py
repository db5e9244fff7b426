"""What people have answered about a run, in one file of its output folder, which reports read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from pipelines.base.files import write_json
from pipelines.errors import FolderError, ReviewError
from pipelines.report.folder import REVIEW
from pipelines.review.answers import Answer, Answers, answers_file
from pipelines.review.audit import count_answers_needed, estimate_precision, estimate_recall
from pipelines.review.run import ReviewedRun

log = logging.getLogger(__name__)
WIDTH = 0.2  # of an interval of recall, for which the report says how many more answers it takes


def note_answers(out: Path) -> bool:
    """Write what people have answered about a run beside its results.

    Args:
        out: Output folder of a run.

    Returns:
        Whether anybody has answered.
    """
    path = answers_file()
    if not path.is_file():
        return False
    try:
        run = ReviewedRun(out)
        given = run.of_this_run(Answers(path).of_run(run.name))
    except (FolderError, ReviewError, OSError, ValueError) as error:  # unfinished, nothing to review, or damaged
        log.warning("the report says nothing of answers: %s", error)
        return False
    if given:
        write_json(out / REVIEW, summarise(run, given))
    else:
        (out / REVIEW).unlink(missing_ok=True)
    return bool(given)


def summarise(run: ReviewedRun, answers: Sequence[Answer]) -> dict[str, Any]:
    """Return counts of answers by queue; of an audit, recall and precision with their intervals."""
    latest = {(each.queue, each.sha256): each.verdict for each in answers}
    queues = {
        queue: _count([verdict for (of, _), verdict in latest.items() if of == queue]) for queue in run.queues
    }  # the last answer about an image counts
    alike, pairs = count_agreement(answers)
    found: dict[str, Any] = {"queues": queues, "alike": alike, "pairs": pairs, "at": max(each.at for each in answers)}
    if "audit" in run.queues:
        strata = run.count_strata(answers)
        found |= {
            "recall": asdict(estimate_recall(strata)),
            "precision": asdict(estimate_precision(strata)),
            "width": WIDTH,
            "needed": count_answers_needed(strata, WIDTH),
        }
    return found


def count_agreement(answers: Sequence[Answer]) -> tuple[int, int]:
    """Count the pairs of answers about one image that say the same, and all such pairs; "unsure" is no answer."""
    by_image: dict[str, list[str]] = {}
    for each in answers:
        if each.verdict != "unsure":
            by_image.setdefault(each.sha256, []).append(each.verdict)
    pairs = [first == second for given in by_image.values() for first, second in combinations(given, 2)]
    return sum(pairs), len(pairs)


def _count(verdicts: Sequence[str]) -> dict[str, int]:
    return {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
