"""A server or worker dies in the middle of a job: the job recovers, or ends plainly, and nothing is lost."""

from __future__ import annotations

import pytest

from .conftest import FEW_STEPS, IMAGES, results
from .processes import wait_for
from .stack import SILENCE, Stack

pytestmark = pytest.mark.integration

ONE_DONE = "shard 1 of 4"


def score(stack: Stack, folder, out) -> str:
    """Ask for a run of the deployment `score`, with the version whose results are known."""
    return stack.prefect_api.start(
        "score", folder=str(folder), model="tiles/1", out=str(stack.data / out), own_folder=False
    )


def expect_one_shard(stack: Stack, run: str) -> None:
    """Wait until the run is in the middle of its work."""
    prefect = stack.prefect_api
    wait_for(lambda: prefect.tasks(run).get(ONE_DONE) == "Completed", ONE_DONE, 200, lambda: prefect.log(run))


def expect_whole_registry(stack: Stack, champion: int) -> None:
    """Every version's files are there and are those that were registered."""
    assert stack.mlflow_api.champion("tiles") == champion
    for version in stack.mlflow_api.versions("tiles"):
        told = stack.kintsugi("models", "verify", f"tiles/{version}")
        assert told.code == 0, told.err


def test_mlflow_killed_while_a_model_is_trained(stack, champion, timings):
    prefect, mlflow = stack.prefect_api, stack.mlflow_api
    before, versions = mlflow.champion("tiles"), mlflow.versions("tiles")
    run = prefect.start("train", **champion.parameters)
    with timings.step("3a. training begins"):
        wait_for(lambda: "RUNNING" in mlflow.training("tiles"), "a run in MLflow", 200, lambda: prefect.log(run))
    stack.mlflow.kill()
    with timings.step("3a. MLflow is away: the task waits for its next try"):
        wait_for(lambda: "AwaitingRetry" in prefect.tasks(run).values(), "a next try", 200, lambda: prefect.log(run))
    stack.mlflow.start()
    with timings.step("3a. MLflow is back"):
        stack.mlflow.expect_ready()
    assert mlflow.champion("tiles") == before
    with timings.step("3a. the training tries again and ends well"):
        prefect.completed(run, 400)
    assert len(mlflow.versions("tiles")) == len(versions) + 1
    expect_whole_registry(stack, champion=max(versions) + 1)


def test_prefect_killed_while_a_folder_is_scored(stack, inbox, expected, timings):
    run = score(stack, inbox, "without-prefect")
    with timings.step("3b. scoring, one shard of four is done"):
        expect_one_shard(stack, run)
    stack.prefect.kill()
    stack.prefect.start()
    with timings.step("3b. Prefect was killed and is back"):
        stack.prefect.expect_ready()
    with timings.step("3b. the run goes on where it was"):
        stack.prefect_api.completed(run)
    assert results(stack.data / "without-prefect") == expected


@pytest.fixture(scope="module")
def killed(stack, inbox, timings) -> str:
    """A run that was killed in the middle of its work, together with its worker; another worker is there."""
    run = score(stack, inbox, "without-worker")
    with timings.step("3c. scoring, one shard of four is done"):
        expect_one_shard(stack, run)
    stack.worker.kill()
    stack.worker.start()
    stack.worker.expect_ready()
    return run


def test_worker_killed_with_its_run_while_a_folder_is_scored(stack, killed):
    assert not (stack.data / "without-worker" / "results.parquet").exists()
    assert stack.prefect_api.state(killed) == "RUNNING", "the server cannot know yet"


def test_object_store_away_while_a_version_is_registered(stack, champion, timings):
    before = stack.mlflow_api.versions("tiles")
    is_champion = stack.mlflow_api.champion("tiles")
    uploaded = stack.keys()
    with stack.running("train", champion.job, "--set", FEW_STEPS) as training:
        with timings.step("3e. kintsugi train, its first file of a version is in the object store"):
            wait_for(
                lambda: any("/model/" in key for key in stack.keys() - uploaded) or training.poll() is not None,
                "a file of the version", 400,
            )  # fmt: skip
        stack.take_store_away()
        with timings.step("3e. without the object store it ends with an error"):
            told = stack.told(training)
    assert told.code == 2, told
    assert told.err.splitlines()[-1].startswith("error: registering 'tiles' failed"), told.err
    assert "Traceback" not in told.err
    assert stack.mlflow_api.versions("tiles") == before, "a version without its files"
    assert stack.mlflow_api.champion("tiles") == is_champion
    stack.bring_store_back()
    with timings.step("3e. the same command again"):
        told = stack.kintsugi("train", champion.job, "--set", FEW_STEPS)
    assert told.code == 0, told.err
    assert len(stack.mlflow_api.versions("tiles")) == len(before) + 1
    expect_whole_registry(stack, champion=max(before) + 1)


def test_the_server_finds_the_killed_run_and_another_one_does_what_is_missing(stack, killed, inbox, expected, timings):
    prefect = stack.prefect_api
    with timings.step("3c. the server has found that the run is dead"):
        assert prefect.ended(killed, 2.0 * SILENCE) == "CRASHED"
    assert "its machine went down" in prefect.message(killed)
    again = score(stack, inbox, "without-worker")
    with timings.step("3c. the same run started again"):
        prefect.completed(again)
    assert f"of {IMAGES} images are already done" in prefect.log(again)
    assert results(stack.data / "without-worker") == expected


def test_postgresql_stopped_while_a_folder_is_scored(stack, inbox, expected, timings):
    prefect = stack.prefect_api
    before = stack.mlflow_api.versions("tiles")
    run = score(stack, inbox, "without-postgresql")
    with timings.step("3d. scoring, one shard of four is done"):
        expect_one_shard(stack, run)
    stack.postgres.stop_at_once()
    stack.postgres.process.start()
    with timings.step("3d. PostgreSQL was stopped at once, and is back"):
        stack.postgres.process.expect_ready()
    with timings.step("3d. the run ends"):
        state = prefect.ended(run)
    if state != "COMPLETED":
        with timings.step(f"3d. {state}: the same run started again"):
            prefect.completed(score(stack, inbox, "without-postgresql"))
    assert results(stack.data / "without-postgresql") == expected
    assert stack.mlflow_api.versions("tiles") == before
