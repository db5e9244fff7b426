"""`prefect deploy --all` takes the file that ships, and what it makes can be run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.schemas.actions import WorkPoolCreate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="package")
def deployed(home):
    """All deployments, by name."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="kintsugi", type="process"))
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
            cwd=ROOT,
            env=os.environ | {"PREFECT_LOGGING_LEVEL": "WARNING"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Skipping" not in done.stdout
        return {each.name: each for each in client.read_deployments() if each.work_pool_name == "kintsugi"}


def test_every_flow_is_deployed_from_the_installed_package(deployed):
    assert {name: each.entrypoint for name, each in deployed.items()} == {
        "train": "flows.train.train_flow",
        "score": "flows.score.score_flow",
        "restore": "flows.restore.restore_flow",
        "promote": "flows.promote.promote_flow",
        "rollback": "flows.promote.rollback_flow",
    }
    assert not any(each.pull_steps for each in deployed.values())


@pytest.mark.parametrize(("name", "cron"), [("train", "0 2 * * 0"), ("score", "0 6 * * *"), ("restore", "0 4 * * *")])
def test_schedules_do_not_overlap(deployed, name, cron):
    (schedule,) = deployed[name].schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone, schedule.active) == (cron, "UTC", True)
    assert deployed[name].global_concurrency_limit.limit == 1
    assert deployed[name].concurrency_options.collision_strategy.value == "CANCEL_NEW"


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("train", {}),
        ("score", {}),
        ("restore", {}),
        ("promote", {"name": "tiles", "version": 2, "reason": "better"}),
        ("rollback", {"name": "tiles", "reason": "worse"}),
    ],
)
def test_the_parameters_are_those_of_the_flow(deployed, client, name, more):
    # The server checks them against the flow's schema.
    run = client.create_flow_run_from_deployment(deployed[name].id, parameters=more)
    client.delete_flow_run(run.id)
