"""What the doctor says of servers: whether they know this user, and whether their clock is this machine's."""

from __future__ import annotations

import base64
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from pipelines.doctor import Finding, examine


@pytest.fixture
def server(own_home, monkeypatch):
    """Stands in for Prefect's: it asks for a password, and has a clock of its own."""
    state = SimpleNamespace(ahead=timedelta(0), path="/api/admin/version")
    wanted = "Basic " + base64.b64encode(b"admin:secret").decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.headers.get("Authorization") == wanted
            self.send_response_only(404 if self.path != state.path else 200 if known else 401)
            self.send_header("Date", format_datetime(datetime.now(UTC) + state.ahead, usegmt=True))
            self.end_headers()

        def log_message(self, *_):
            pass

    served = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{served.server_port}/api")
    yield state
    served.shutdown()
    served.server_close()


def orchestrator() -> Finding:
    return next(finding for finding in examine() if finding.subject == "orchestrator")


def test_a_server_that_knows_this_user_is_healthy(server, monkeypatch):
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:secret")
    finding = orchestrator()
    assert finding.works
    assert finding.detail.endswith("healthy")
    assert "secret" not in finding.detail


@pytest.mark.parametrize("password", [None, "admin:wrong"])
def test_one_that_does_not_says_which_variable_is_wrong(server, monkeypatch, password):
    if password:
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", password)
    else:
        monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    finding = orchestrator()
    assert finding.works is False
    assert "set PREFECT_API_AUTH_STRING" in finding.detail
    assert "wrong" not in finding.detail


def test_another_address_of_it_is_told(server, monkeypatch):
    server.path = "/admin/version"
    assert "ends in /api" in orchestrator().detail


@pytest.mark.parametrize(("minutes", "way"), [(3, "ahead"), (-3, "behind")])
def test_clocks_that_differ_are_told(server, monkeypatch, minutes, way):
    server.ahead = timedelta(minutes=minutes)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:secret")
    finding = orchestrator()
    assert finding.works is False
    assert way in finding.detail


def test_who_is_told_is_counted_and_not_named(own_home, monkeypatch):
    monkeypatch.setenv("KINTSUGI_NOTIFY", "slack://token-a/token-b ops/night")
    finding = next(each for each in examine() if each.subject == "notifications")
    assert "2 address" in finding.detail
    assert "token" not in finding.detail
