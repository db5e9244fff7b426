"""The process of one cell: reads a question, trains and scores, writes the answer.

python -m pipelines.bench.cell QUESTION.json ANSWER.json
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.base.files import write_json
from pipelines.bench.jobs import for_pixels, overrides_for, write_job_file
from pipelines.bench.methods import Method, method_of
from pipelines.data.plan import make_plan, survey
from pipelines.errors import KintsugiError
from pipelines.jobfile.job import Job
from pipelines.training.network import find_task

WRONG = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be measured."""

    method: Method
    seed: int
    job: Job  # of the row: its target, size and splits
    test: Path  # data set with the test images to score
    half: str  # what these are called
    work: Path
    anomalib_home: Path


def read_question(document: Mapping[str, Any]) -> Question:
    """Make the job of a cell.

    Raises:
        KintsugiError: A setting does not fit, or the images cannot be read.
    """
    method, work = method_of(document["method"]), Path(document["work"])
    common: dict[str, Any] = {"name": document["name"], "train": Path(document["train"]), "seed": document["seed"]}
    common["max_train"] = document["max_train"]
    overrides = overrides_for(method, document["overrides"])
    if method.name != "ours":  # which alone may be told to work on something else
        overrides.append("model.target=features")
    job = write_job_file(work / "job.toml", **common, overrides=overrides)
    if method.target == "pixels":
        size = make_plan(job, find_task(job), survey(job)).size
        job = write_job_file(work / "job.toml", **common, overrides=for_pixels(method, document["overrides"], size))
    return Question(
        method=method,
        seed=document["seed"],
        job=job,
        test=Path(document["test"]),
        half=document["half"],
        work=work,
        anomalib_home=Path(document["anomalib_home"]),
    )


def answer(question: Question) -> dict[str, Any]:
    """Train and score.

    Returns:
        `figures` (as `evaluate` writes them), `train_seconds`, `images_per_second`, `peak_mib`, `size`, `n_train`,
        `device`, `note`.
    """
    from pipelines.bench import anomalib_rows, baselines, own

    measure: Callable[[Question], dict[str, Any]] = {
        "job": own.measure_job,
        "memory": baselines.measure_memory,
        "autoencoder": baselines.measure_autoencoder,
        "anomalib": anomalib_rows.measure_anomalib,
    }[question.method.kind]
    return measure(question)


def main() -> int:
    """Run from the command line; an error that the user can mend is the last line on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("pipelines")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    question, place = (Path(argument) for argument in sys.argv[1:])
    try:
        write_json(place, answer(read_question(json.loads(question.read_text(encoding="utf-8")))))
    except KintsugiError as error:
        sys.stderr.write(f"{error}\n".replace("\n", "; ").removesuffix("; ") + "\n")
        return WRONG
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
