"""The training job as a flow."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from flows.artifacts import record_training
from flows.retries import DELAYS, retry_transient
from flows.runs import recorded_run

if TYPE_CHECKING:
    from pipelines.trained import TrainedModel
else:
    TrainedModel = Any  # Prefect looks every name in a flow's signature up, and torch takes seconds to import


def _run_name() -> str:
    """`train tiles`: the job's name, or its file's when that cannot be read (the run will say why)."""
    job = Path(flow_run.parameters["job"])
    name = job.stem
    with suppress(OSError, ValueError):
        name = tomllib.loads(job.read_text(encoding="utf-8")).get("name", name)
    return f"train {name}"


@flow(name="train", flow_run_name=_run_name, persist_result=False)
def train_flow(job: Path, overrides: tuple[str, ...] = ()) -> TrainedModel:
    """Run one training job, from a folder of images to a registered model.

    Args:
        job: The job file.
        overrides: `key=value` pairs that replace keys of the file.

    Returns:
        The registered version, whether it became champion, and the figures behind that.
    """
    with recorded_run():
        trained = train(job, overrides)
        record_training(trained)
        return trained


# Never cached: behind the same job file the images change. A further try goes on from the last checkpoint.
@task(
    name="train", retries=len(DELAYS), retry_delay_seconds=DELAYS, retry_condition_fn=retry_transient,
    cache_policy=NO_CACHE, persist_result=False,
)  # fmt: skip
def train(job: Path, overrides: tuple[str, ...]) -> TrainedModel:
    """Train, export, calibrate, register and maybe promote."""
    from pipelines.train import train_model

    return train_model(job, overrides=overrides)
