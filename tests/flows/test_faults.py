"""A server that does not answer is waited for and the log says so; one that refuses ends the job that it refuses."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import defaultdict
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Completed

import flows.faults
import flows.inbox
import flows.serve
from flows.faults import expect_deployment
from flows.inbox import attend
from flows.schedules import plan
from flows.server import ServerError
from pipelines.batch.deliveries import Inbox
from pipelines.jobfile.job import load_job

JOB = 'name = "tiles"\ntask = "reconstruct"\n[data]\ntrain = "good"\n[schedule]\n'
ARRIVALS = 'arrivals = "1s"\nfolder = "inbox"\nout = "reports"\n'
RUN = {"id": str(uuid4()), "flow_id": str(uuid4()), "name": "score monday"}


class Api:
    """A server that answers each request as it is told to, and 200 once nothing is left to tell."""

    def __init__(self) -> None:
        self.answers: dict[str, list[int]] = defaultdict(list, {"csrf-token": [404] * 100})
        self.asked: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = self.path.partition("?")[0].split("/")
                kind = parts[-1] if parts[-1] in {"create_flow_run", "csrf-token"} else parts[-2]
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                api.asked.append(kind)
                status = api.answers[kind].pop(0) if api.answers[kind] else 200
                state = Completed().model_dump(mode="json", include={"type", "name", "timestamp", "id"})
                body = json.dumps(RUN | {"state": state} if status == 200 else {"detail": "as it was told"}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/api"


@pytest.fixture
def api(monkeypatch):
    api = Api()
    monkeypatch.setattr(flows.inbox, "WAIT_SECONDS", 0.01)
    with temporary_settings({PREFECT_API_URL: api.url, PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield api
    api.server.shutdown()
    api.server.server_close()


class Once(Inbox):
    """An inbox with one delivery, whose end ends the test."""

    over = False

    def find_next(self):
        found = Inbox.find_next(self)
        if found is None and self.over:
            raise EOFError
        return found

    def record_done(self, delivery):
        Inbox.record_done(self, delivery)
        Once.over = True


@pytest.fixture
def inbox(tmp_path, monkeypatch):
    monkeypatch.setattr(Once, "over", False)
    (tmp_path / "inbox" / "monday").mkdir(parents=True)
    (tmp_path / "inbox" / "monday" / "1.png").touch()
    return Once(tmp_path / "inbox", tmp_path / "reports", timedelta(milliseconds=10))


@pytest.fixture
def planned(tmp_path):
    (tmp_path / "tiles.toml").write_text(JOB + ARRIVALS)
    (planned,) = plan([load_job(tmp_path / "tiles.toml")])
    return planned


def test_an_outage_is_waited_for_and_its_first_and_each_tenth_failure_are_logged(api, inbox, planned, caplog):
    api.answers["create_flow_run"] = [500, 504] * 6
    api.answers["flow_runs"] = [507] * 11
    with caplog.at_level(logging.INFO), pytest.raises(EOFError):
        asyncio.run(attend(uuid4(), planned, inbox))
    assert api.asked.count("create_flow_run") == 13
    told = [record.getMessage() for record in caplog.records if record.name == "pipelines.retries"]
    assert [text.partition("; trying")[0].partition("'")[0] for text in told[:2]] == [
        f"the run for {inbox.folder / 'monday'} cannot be started: PrefectHTTPStatusError: Server error "
    ] * 2
    assert "504" in told[1], "the cause of this failure, not of the first"
    assert "10 times now" in told[1]
    assert told[2].endswith("it answers again, after 12 failures")
    assert [("507" in text, "11 failures" in text) for text in told[3:]] == [
        (True, False),
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize(
    ("status", "kind"), [(401, PrefectHTTPStatusError), (422, PrefectHTTPStatusError), (404, ObjectNotFound)]
)
def test_a_refusal_is_not_asked_again(api, inbox, planned, status, kind):
    request_ = "create_flow_run"
    api.answers[request_] = [status] * 50
    with pytest.raises(kind):
        asyncio.run(asyncio.wait_for(attend(uuid4(), planned, inbox), 60))
    assert api.asked.count(request_) == 1


def test_a_run_that_may_not_be_asked_about_is_not_asked_about_for_ever(api, inbox, planned):
    api.answers["flow_runs"] = [401] * 50
    with pytest.raises(PrefectHTTPStatusError):
        asyncio.run(asyncio.wait_for(attend(uuid4(), planned, inbox), 60))
    assert api.asked.count("flow_runs") == 1


def test_a_run_that_was_deleted_counts_as_a_failed_try_and_is_logged(api, inbox, planned, caplog):
    api.answers["flow_runs"] = [404]
    with pytest.raises(EOFError):
        asyncio.run(asyncio.wait_for(attend(uuid4(), planned, inbox), 60))
    assert api.asked.count("create_flow_run") == 2
    assert "was deleted: it counts as failed" in caplog.text


def test_a_deployment_that_is_gone_is_noticed_and_an_outage_is_not_taken_for_it(api, monkeypatch):
    monkeypatch.setattr(flows.faults, "WATCH_SECONDS", 0.01)
    api.answers["deployments"] = [500, 504, 404]
    with pytest.raises(ObjectNotFound):
        asyncio.run(asyncio.wait_for(expect_deployment(UUID(int=0)), 60))


@pytest.fixture
def serving(tmp_path, monkeypatch, own_home):
    """`serve` over a stand-in for what runs the schedules: it raises the errors that it is given, then stops."""
    errors, calls = [], []
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setattr(flows.serve, "AWAY_SECONDS", 0.0)
    monkeypatch.setattr(flows.serve, "require", lambda *_: None)
    (tmp_path / "tiles.toml").write_text(JOB + 'train = "1h"\n')

    async def _serve(_planned, _inboxes, stop, reached, *_others):
        reached.set()
        calls.append(1)
        if errors:
            raise errors.pop(0)
        stop.set()

    monkeypatch.setattr(flows.serve, "_serve", _serve)

    def serving(*given):
        errors.extend(given)
        flows.serve.serve([tmp_path / "tiles.toml"])
        return len(calls)

    return serving


REQUEST = httpx.Request("GET", "http://host/")
AWAY = httpx.ConnectError("connection refused")
LOST = RuntimeError("Service exceeded error threshold.")


def refused(status: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError(f"{status} it says", request=REQUEST, response=httpx.Response(status))


def test_outages_of_the_server_are_logged_with_their_cause(serving, caplog):
    away = [ExceptionGroup("loops", [ExceptionGroup("tasks", [LOST])]), AWAY, refused(502)]
    assert serving(*away * 4) == 13
    told = [record.getMessage() for record in caplog.records if record.name == "pipelines.retries"]
    assert [LOST.args[0] in text for text in told] == [True, True]
    assert "10 times now" in told[1]


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (RuntimeError("a bug"), RuntimeError, "a bug"),
        (ExceptionGroup("tasks", [LOST, ValueError("a bug")]), ExceptionGroup, "tasks"),
        (ExceptionGroup("tasks", [refused(401)]), ServerError, "401 it says: check PREFECT_API_AUTH_STRING"),
        (refused(422), ServerError, "422 it says: check that the server has the same version"),
    ],
    ids=["bug", "bug beside an outage", "401", "422"],
)
def test_faults_are_no_outages(serving, error, raised, told):
    with pytest.raises(raised, match=told):
        serving(*[error] * 3)
