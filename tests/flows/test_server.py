from __future__ import annotations

import os
import subprocess
import sys

import httpx
import pytest

from flows.server import ServerError, is_alive, orchestrator


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """A home in which no server runs, and no other is configured."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path))
    return tmp_path


def test_with_a_server_configured_none_is_started(alone, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example/api")
    with orchestrator() as url:
        assert url == "https://prefect.example/api"
    assert not list(alone.iterdir())


def test_blocks_nest(home):
    with orchestrator() as url:
        assert url == os.environ["PREFECT_API_URL"]
    assert is_alive(home / "prefect")


def test_a_second_process_uses_the_same_server_and_leaves_it_running(home, children_environment):
    program = "from flows.server import orchestrator\nwith orchestrator() as url: print(url)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=children_environment | {"KINTSUGI_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == os.environ["PREFECT_API_URL"]
    assert httpx.get(f"{os.environ['PREFECT_API_URL']}/health", timeout=20).status_code == 200


def test_other_users_of_the_machine_cannot_use_the_server(home):
    assert (home / "prefect" / "server.json").stat().st_mode & 0o077 == 0
    assert httpx.get(f"{os.environ['PREFECT_API_URL']}/admin/version", timeout=20).status_code == 401


def test_a_server_that_does_not_start_says_why(alone, monkeypatch):
    broken = alone / "python"
    broken.write_text("#!/bin/sh\necho no module named prefect >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(
        ServerError, match=r"(?s)ended with code 3.*no module named prefect.*server\.log.*PREFECT_API_URL"
    ):
        orchestrator().__enter__()
    assert not is_alive(alone / "prefect")
    assert "PREFECT_API_URL" not in os.environ


def test_a_server_that_hangs_is_given_up(alone, monkeypatch):
    hanging = alone / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hanging))
    monkeypatch.setattr("flows.server.START_SECONDS", 0.3)
    with pytest.raises(ServerError, match=r"did not answer within 0 s"):
        orchestrator().__enter__()
    assert not is_alive(alone / "prefect")


def test_a_home_that_cannot_be_written_is_named(alone, monkeypatch):
    (alone / "file").touch()
    monkeypatch.setenv("KINTSUGI_HOME", str(alone / "file"))
    with pytest.raises(ServerError, match=r"file.* cannot be written .*set KINTSUGI_HOME"):
        orchestrator().__enter__()


def test_the_package_and_the_command_line_do_not_import_prefect():
    program = "import flows, flows.cli, sys; sys.exit('prefect' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
