"""The training job as a flow: decide whether to train, train, and send notices."""

from __future__ import annotations

import logging
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, task
from prefect.runtime import flow_run

from flows.artifacts import record_training
from flows.notify import announce, notify, tell_failure
from flows.retries import TRIES
from flows.runs import only_warned, recorded_run
from pipelines.base.files import read_text

if TYPE_CHECKING:
    from pipelines.training.need import Need
    from pipelines.training.registration import TrainedModel
else:
    TrainedModel = Need = Any  # Prefect looks every name in a flow's signature up, and torch takes seconds to import

log = logging.getLogger("pipelines.training.need")


def _run_name() -> str:
    """Return `train tiles`, by the job's name; by the file's name if the job cannot be read (the run reports why)."""
    job = Path(flow_run.parameters["job"])
    name = job.stem
    with suppress(OSError, ValueError):
        name = tomllib.loads(read_text(job)).get("name", name)
    return f"train {name}"


@flow(name="train", flow_run_name=_run_name, persist_result=False, on_failure=[tell_failure], on_crashed=[tell_failure])
def train_flow(job: Path, overrides: tuple[str, ...] = (), if_needed: bool = False) -> TrainedModel | None:
    """Run one training job, from a folder of images to a registered model.

    Args:
        job: The job file.
        overrides: `key=value` pairs that replace keys of the file.
        if_needed: Train only if the images or the job have changed, by the rule of the job's `[retrain]`.

    Returns:
        The registered version, whether it became champion, and the figures behind the decision; None if no training was
        needed.
    """
    with recorded_run():
        why = None
        if if_needed:
            need = decide(job, overrides)
            log.info("%s: %s", "training" if need.train else "not trained", need.reason)
            if not need.train:
                return None
            why = need.reason
        trained = train(job, overrides, why)
        with only_warned("the run has no page in Prefect"):
            record_training(trained)
        tell(trained, why)
        return trained


@task(name="decide", **TRIES)
def decide(job: Path, overrides: tuple[str, ...]) -> Need:
    """Decide whether a training is needed."""
    from pipelines.jobfile.job import load_job
    from pipelines.training.need import need_of

    return need_of(load_job(job, overrides))


@task(name="train", **TRIES)  # another try continues from the last checkpoint
def train(job: Path, overrides: tuple[str, ...], why: str | None) -> TrainedModel:
    """Train, export, calibrate and register; promote if the job's rule says so."""
    from pipelines.train import train_model

    return train_model(job, overrides=overrides, why=why)


def tell(trained: TrainedModel, why: str | None) -> None:
    """Announce the result of a training."""
    version = trained.version
    sentences = [trained.reason, *([f"Trained because: {why}"] if why else [])]
    state = "is the new champion" if trained.promoted else "was not promoted"
    with only_warned("the event of the training was not emitted"):
        announce("promoted" if trained.promoted else "refused", version.name, sentences)
    notify(f"Kintsugi: {version.ref} {state}", sentences)
