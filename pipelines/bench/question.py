"""What the process of a cell is asked: a method, a seed, and the job that all methods share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.bench.jobs import for_pixels, overrides_for, write_job_file
from pipelines.bench.methods import Method, method_of
from pipelines.data.plan import make_plan, survey
from pipelines.jobfile.job import Job
from pipelines.training.options import find_task


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
    if method.kind == "autoencoder":  # it is trained once: it has images of its own to calibrate on
        overrides.insert(0, "calibrate.kind=split")
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
