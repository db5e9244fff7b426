"""Whoever is to be told is told, by a real request; and nobody learns the address, which is a password."""

from __future__ import annotations

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
from prefect.blocks.abstract import NotificationBlock

from flows.notify import notify, tell_failure


@pytest.fixture
def hook():
    """A web service that answers as it is told to, and keeps what it is sent."""
    got = SimpleNamespace(messages=[], status=200)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(got.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    got.address = f"json://127.0.0.1:{server.server_port}/secret-token"
    yield got
    server.shutdown()
    server.server_close()


def test_nobody_is_told_unless_somebody_is_named(hook, monkeypatch):
    monkeypatch.delenv("KINTSUGI_NOTIFY", raising=False)
    notify("Kintsugi: alarm", ["6 of 100"])
    assert not hook.messages


def test_a_service_gets_subject_and_sentences(hook, monkeypatch):
    monkeypatch.setenv("KINTSUGI_NOTIFY", hook.address)
    notify("Kintsugi: alarm of tiles", ["6 of 100 images look abnormal", "Report: <here>"])
    (message,) = hook.messages
    assert message["title"] == "Kintsugi: alarm of tiles"
    assert message["message"] == "6 of 100 images look abnormal\nReport: <here>"


@pytest.mark.parametrize("status", [500, 404])
def test_a_service_that_refuses_is_a_warning_that_keeps_the_address(hook, monkeypatch, caplog, status):
    hook.status = status
    monkeypatch.setenv("KINTSUGI_NOTIFY", f"json://127.0.0.1:1/secret-token nonsense://x/secret-token {hook.address}")
    monkeypatch.setattr("flows.notify.PAUSES", (0.0,))
    with caplog.at_level(logging.DEBUG):
        notify("Kintsugi: alarm", ["6 of 100"])
    assert len(hook.messages) == 2  # tried again, though nobody was there for the first two
    assert [record.levelname for record in caplog.records if record.name == "pipelines.notify"] == ["WARNING"] * 3
    assert "the json:// address of KINTSUGI_NOTIFY was not sent" in caplog.text
    assert "secret" not in caplog.text


def test_a_block_of_prefect_is_told(home, monkeypatch):
    told = []

    class Pager(NotificationBlock):
        _block_type_slug = "pager"

        async def notify(self, body, subject=None):
            told.append((subject, body))

    Pager().save("night-shift", overwrite=True)
    monkeypatch.setattr("flows.notify.PAUSES", ())
    monkeypatch.setenv("KINTSUGI_NOTIFY", "pager/night-shift pager/nobody")
    notify("Kintsugi: alarm", ["6 of 100"])
    assert told == [("Kintsugi: alarm", "6 of 100")]


def test_a_run_that_failed_is_told(hook, monkeypatch):
    monkeypatch.setenv("KINTSUGI_NOTIFY", hook.address)
    tell_failure(None, SimpleNamespace(name="score inbox"), SimpleNamespace(message="no such folder", name="Failed"))
    assert hook.messages[0]["title"] == "Kintsugi: score inbox failed"
    assert "no such folder" in hook.messages[0]["message"]
