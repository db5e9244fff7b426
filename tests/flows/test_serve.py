from __future__ import annotations

import ast
import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import StateType
from prefect.states import Pending, Running

from flows.schedules import plan
from flows.serve import MACHINE, ServerError, _deployment, _only_one
from flows.stale import close_runs_of, drop_missed_runs
from pipelines.jobfile.job import load_job

ROOT = Path(__file__).parents[2]
FAKES = Path(__file__).parent / "fakes"
JOB = 'name = "{name}"\ntask = "reconstruct"\n[data]\ntrain = "good"\n[schedule]\n{schedule}\n'


def write_job(folder: Path, schedule: str, name: str = "tiles") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(JOB.format(name=name, schedule=schedule))
    return path


@pytest.fixture
def deploy(home, tmp_path):
    """Register the one schedule of a job file, and return the deployment's id."""

    def deploy(schedule, name):
        (planned,) = plan([load_job(write_job(tmp_path, schedule, name))])

        async def apply():
            return await (await _deployment(planned)).aapply()

        return asyncio.run(apply())

    return deploy


def submit(client, deployment):
    """A run that is due now: its state after the runner's first proposal."""
    run = client.create_flow_run_from_deployment(deployment)
    return run.id, client.set_flow_run_state(run.id, Pending()).state


@pytest.mark.parametrize(
    ("overlap", "second"), [("skip", ("CANCELLED", "Cancelled")), ("queue", ("SCHEDULED", "AwaitingConcurrencySlot"))]
)
def test_a_run_that_is_due_while_the_last_still_runs(client, deploy, overlap, second):
    deployment = deploy(f'train = "1h"\noverlap = "{overlap}"', f"overlap-{overlap}")
    first_id, first = submit(client, deployment)
    assert first.type == StateType.PENDING
    _, state = submit(client, deployment)
    assert (state.type.value, state.name) == second

    client.set_flow_run_state(first_id, Running(), force=True)
    close_runs_of([deployment], MACHINE, "ended for the test")
    assert submit(client, deployment)[1].type == StateType.PENDING  # its place is free again


def test_left_overs_are_closed_only_of_this_machine_and_these_deployments(client, deploy):
    mine, other = deploy('train = "1h"', "mine"), deploy('train = "1h"', "other")
    left_over, _ = submit(client, mine)
    others, _ = submit(client, other)
    assert close_runs_of([mine], "machine:elsewhere", "no") == 0
    assert close_runs_of([mine], MACHINE, "its process was killed") == 1
    state = client.read_flow_run(left_over).state
    assert (state.type, state.message) == (StateType.CRASHED, "its process was killed")
    assert client.read_flow_run(others).state.type == StateType.PENDING


def test_a_deployment_carries_the_schedule_of_its_job(client, deploy, tmp_path):
    found = client.read_deployment(deploy('train = "0 2 * * 0"\ntimezone = "Europe/Berlin"', "nuts"))
    (schedule,) = found.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 2 * * 0", "Europe/Berlin")
    assert found.entrypoint == "flows.train.train_flow"
    assert found.parameters == {"job": str(tmp_path / "nuts.toml"), "if_needed": True}
    assert not found.paused


def test_a_job_is_served_by_one_process_only(home):
    with _only_one("tiles"):
        refused = _only_one("tiles")
        with pytest.raises(ServerError, match=f"process {os.getpid()} already serves the job 'tiles'"):
            refused.__enter__()
    with _only_one("tiles"):
        pass


def test_runs_that_were_missed_do_not_all_start_now(client, deploy, wait_for):
    deployment = deploy('train = "1s"', "missed")
    due = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))

    def overdue(moment):
        runs = client.read_flow_runs(flow_run_filter=due)
        return [run.id for run in runs if run.next_scheduled_start_time <= moment]

    wait_for(lambda: len(overdue(datetime.now(UTC))) >= 2, "two runs that nobody starts")
    asked = client.create_flow_run_from_deployment(deployment)
    moment = datetime.now(UTC)
    drop_missed_runs([deployment])
    assert overdue(moment) == [asked.id]
    client.pause_deployment(deployment)


class Serve:
    """`kintsugi serve` over stand-ins for the jobs, in a home of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.home = Path(environment["KINTSUGI_HOME"])
        self.journal = folder / "journal"
        self.journal.mkdir(exist_ok=True)
        self.log = folder / "serve.log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "serve", *map(str, sorted(folder.glob("*.toml")))],
                env=environment | {"FAKE_JOURNAL": str(self.journal)},
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                start_new_session=True,
            )

    def runs(self, verb: str = "train") -> list[dict[str, object]]:
        """What the stand-ins were called with, in order."""
        found = sorted(path for path in self.journal.glob(f"{verb}-*") if not path.suffix)
        return [ast.literal_eval(path.read_text()) for path in found]

    def processes(self) -> set[int]:
        """All processes that live in this home, whoever started them."""
        mark = f"KINTSUGI_HOME={self.home}".encode()
        found = set()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    found.add(int(path.parent.name))
        return found

    def states(self) -> list[tuple[str]]:
        """The states of all runs, also when the server is gone."""
        with closing(sqlite3.connect(self.home / "prefect" / "prefect.db")) as database:
            return database.execute("select state_type from flow_run").fetchall()


@pytest.fixture
def start_serve(tmp_path, home, children_environment):
    """Start `serve`; a copy of the database that has been migrated already saves a third of the time."""
    prefect_home = tmp_path / "home" / "prefect"
    prefect_home.mkdir(parents=True)
    with (
        closing(sqlite3.connect(home / "prefect" / "prefect.db")) as source,
        closing(sqlite3.connect(prefect_home / "prefect.db")) as target,
    ):
        source.backup(target)
        target.execute("delete from flow_run")
        target.execute("delete from deployment")
        target.commit()
    path = os.pathsep.join(filter(None, [str(FAKES), os.environ.get("PYTHONPATH")]))
    started = []

    def start() -> Serve:
        started.append(Serve(tmp_path, children_environment | {"PYTHONPATH": path}))
        return started[-1]

    yield start
    for serve in started:
        for process in serve.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        serve.process.wait()


def test_schedules_fire_and_nothing_is_left_behind(start_serve, tmp_path, wait_for):
    write_job(tmp_path, 'train = "1s"')
    (tmp_path / "journal").mkdir()
    wait = tmp_path / "journal" / "wait"
    wait.touch()

    # Killed while a run is under way: the run and the server see it, and end by themselves.
    serve = start_serve()
    wait_for(serve.runs, "the first run", 150)
    serve.process.kill()
    serve.process.wait()
    wait_for(lambda: not serve.processes(), "the end of all processes after a kill", 20)
    assert ("RUNNING",) in serve.states()

    # Started again: the run that was killed is marked, and the schedule goes on.
    wait.unlink()
    serve = start_serve()
    wait_for(lambda: ("COMPLETED",) in serve.states(), "a run that ends by itself", 150)
    assert ("CRASHED",) in serve.states()
    wait.touch()
    seen = len(serve.runs())
    wait_for(lambda: len(serve.runs()) > seen, "a run to interrupt", 150)
    assert len({run["pid"] for run in serve.runs()}) == len(serve.runs()) >= 3
    assert {run["job"] for run in serve.runs()} == {str(tmp_path / "tiles.toml")}

    # Stopped: at once, with everything that it started, and as a success.
    serve.process.send_signal(signal.SIGTERM)
    assert serve.process.wait(30) == 0, serve.log.read_text()
    assert not serve.processes()
    states = serve.states()
    assert ("RUNNING",) not in states
    assert ("PENDING",) not in states
    assert "train-tiles  1s UTC  skip" in serve.log.read_text()


def test_what_arrives_is_scored_once_and_whole(start_serve, tmp_path, wait_for):
    write_job(tmp_path, 'arrivals = "2s"\nfolder = "inbox"\nout = "reports"\nbudget = 3')
    (tmp_path / "inbox" / "monday").mkdir(parents=True)
    (tmp_path / "inbox" / "monday" / "1.png").touch()
    serve = start_serve()
    wait_for(lambda: serve.runs("publish"), "the first delivery", 150)
    (tmp_path / "inbox" / "tuesday").mkdir()
    (tmp_path / "inbox" / "tuesday" / "1.png").touch()
    wait_for(lambda: len(serve.runs("publish")) == 2, "the second delivery", 150)
    serve.process.send_signal(signal.SIGTERM)
    assert serve.process.wait(30) == 0, serve.log.read_text()
    places = [(run["folder"], run["out"], run["model"]) for run in serve.runs("score")]
    days = ("monday", "tuesday")
    assert places == [
        (str(tmp_path / "inbox" / day), str(tmp_path / "reports" / day), "tiles@champion") for day in days
    ]
    assert "arrivals-tiles  2s after the last change  queue" in " ".join(serve.log.read_text().split("   "))


def test_a_job_whose_deployment_is_deleted_is_stopped_alone_and_reported(start_serve, tmp_path, wait_for):
    write_job(tmp_path, 'train = "1s"', "grinds")
    write_job(tmp_path, 'arrivals = "1s"\nfolder = "inbox"\nout = "reports"')
    (tmp_path / "inbox").mkdir()
    serve = start_serve()
    wait_for(serve.runs, "the first training", 150)
    address = json.loads((serve.home / "prefect" / "server.json").read_text())
    with httpx.Client(base_url=address["url"], auth=tuple(address["auth"].split(":")), timeout=60) as api:
        found = api.post("/deployments/filter", json={"deployments": {"name": {"any_": ["arrivals-tiles"]}}}).json()
        gone = {204, 404}  # a busy SQLite answers 503
        wait_for(lambda: api.delete(f"/deployments/{found[0]['id']}").status_code in gone, "the deployment's end")
    (tmp_path / "inbox" / "monday").mkdir()
    (tmp_path / "inbox" / "monday" / "1.png").touch()
    reason = "arrivals-tiles has stopped: its deployment was deleted"
    wait_for(lambda: reason in serve.log.read_text(), "a report", 150)
    before = len(serve.runs())
    wait_for(lambda: len(serve.runs()) > before + 1, "the other job goes on", 150)
    serve.process.send_signal(signal.SIGTERM)
    assert serve.process.wait(30) == 2, serve.log.read_text()
    assert "error: arrivals-tiles was stopped: its deployment was deleted" in serve.log.read_text()
