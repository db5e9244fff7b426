"""The embedded Prefect server, which runs the flows if `PREFECT_API_URL` is not set.

One server belongs to one `KINTSUGI_HOME`, and all processes that use this home share it. Two locks keep order, because
the kernel releases a lock even when its holder is killed:

- `server.lock`: held by the server as long as it lives. A process that gets it without waiting starts a server.
- `users.lock`: shared by the processes that use the server. When the server can lock it alone, it has no users and
  ends. So no server outlives its users, however they died.

Prefect's own temporary server (`PREFECT_SERVER_EPHEMERAL_ENABLED`) takes as long to start, runs no schedules, and keeps
running when its parent is killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pipelines.errors import KintsugiError
from pipelines.settings import settings

START_SECONDS = 300.0  # a first start migrates the database: 17 s on two idle cores, over a minute on busy ones
STOP_SECONDS = 10.0
HOST = "127.0.0.1"
CONSOLE_LEVEL = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"


class ServerError(KintsugiError):
    """The embedded Prefect server did not start, or stopped."""


@contextmanager
def orchestrator() -> Iterator[str]:
    """Provide a Prefect server inside the block.

    If `PREFECT_API_URL` is set, it is that server. Otherwise it is the embedded server, which is started unless another
    process of this home runs it. A new server marks the flow runs of killed processes as crashed. Blocks can nest.

    Yields:
        The address of Prefect's API.

    Raises:
        ServerError: The embedded server did not start; the message has the waiting time and the path of the log.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        yield url
        return
    home = settings().home.resolve() / "prefect"
    try:
        home.mkdir(parents=True, exist_ok=True)
        users = (home / "users.lock").open("w")
    except OSError as error:
        msg = f"{home} cannot be written ({error}): set KINTSUGI_HOME to a folder that you may write."
        raise ServerError(msg) from error
    with users:
        fcntl.flock(users, fcntl.LOCK_SH)  # waits for a server that is ending
        try:
            address = _join(home)
            with _environment(_client_settings(home, address)):
                try:
                    yield address["url"]
                finally:
                    _flush()
        finally:
            _leave(home, users)


def is_alive(home: Path) -> bool:
    """Return whether a server, also one that is starting, holds the lock of this folder."""
    with (home / "server.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _join(home: Path) -> dict[str, Any]:
    """Return the address of the running server; start a server if there is none."""
    ends = time.monotonic() + START_SECONDS
    while True:
        with (home / "server.lock").open("a") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _start(home, lock, ends)
        with suppress(OSError, ValueError):
            address: dict[str, Any] = json.loads((home / "server.json").read_text())
            if _answers(address["url"]):
                return address
        if time.monotonic() > ends:
            raise ServerError(
                f"Another process has been starting the Prefect server of {home} for {START_SECONDS:.0f} s. "
                f"See {home / 'server.log'}, end that process and try again, or set PREFECT_API_URL."
            )
        time.sleep(0.1)


def _start(home: Path, lock: IO[str], ends: float) -> dict[str, Any]:
    """Start a server that inherits the lock, clean up after killed processes, then publish the address."""
    published = home / "server.json"
    published.unlink(missing_ok=True)
    auth = f"kintsugi:{secrets.token_urlsafe(24)}"
    with (home / "server.log").open("wb") as log:
        # In its own session: Ctrl-C in the terminal must not stop the server before the flows have reported their end.
        process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", "flows.server_process", str(lock.fileno()), str(home / "users.lock")],
            cwd=Path(__file__).parents[1],
            env={**os.environ, **_server_settings(home, auth)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=[lock.fileno()],
            start_new_session=True,
        )
    try:
        # Both import Prefect, which takes seconds: let the two imports run side by side.
        from flows.stale import close_all_runs

        port = _read_port(process, home, ends)
        address = {"url": f"http://{HOST}:{port}/api", "pid": process.pid, "auth": auth}
        with _environment(_client_settings(home, address)):
            close_all_runs("The process that ran this was killed.")
    except BaseException:
        process.kill()
        process.wait()
        raise
    partial = published.with_suffix(".partial")
    partial.touch(mode=0o600)  # the password is in it
    partial.write_text(json.dumps(address))
    partial.replace(published)
    # The lock shows whether the server runs, not the process: the server may outlive this process for another user, and
    # `Popen` would warn about a child that is still running.
    process.returncode = 0
    return address


def _read_port(process: subprocess.Popen[bytes], home: Path, ends: float) -> int:
    """Return the port that the server writes when it is ready."""
    with process.stdout as pipe:  # type: ignore[union-attr] # it was opened with stdout=PIPE
        while not select.select([pipe], [], [], 0.1)[0]:
            if time.monotonic() > ends:
                reason = f"did not answer within {START_SECONDS:.0f} s"
                break
        else:
            if line := pipe.readline():
                return int(line)
            reason = f"ended with code {process.wait()}"
    log = home / "server.log"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise ServerError(
        f"The embedded Prefect server {reason}.\n{tail}\nThe whole log: {log}. "
        f"Correct the cause and try again, or start a Prefect server and set PREFECT_API_URL."
    )


def _flush() -> None:
    """Send Prefect's pending logs and events: else Prefect tries for a minute at exit, when the server is gone."""
    if "prefect.logging.handlers" in sys.modules:
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker

        APILogWorker.drain_all(timeout=STOP_SECONDS)
        EventsWorker.drain_all(timeout=STOP_SECONDS)


def _leave(home: Path, users: IO[str]) -> None:
    """Stop the server unless another process uses it; return when it is gone."""
    fcntl.flock(users, fcntl.LOCK_UN)
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # in use, or already ending by itself
    with suppress(OSError, ValueError):  # OSError: it ended between the look and the signal
        pid = json.loads((home / "server.json").read_text())["pid"]
        if is_alive(home):
            os.kill(pid, signal.SIGTERM)
            ends = time.monotonic() + STOP_SECONDS
            while is_alive(home) and time.monotonic() < ends:
                time.sleep(0.02)
            if is_alive(home):
                os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # where it is our child, leave no zombie; ChildProcessError is an OSError


def _answers(url: str) -> bool:
    """Return whether a server is ready at this address."""
    with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2) as response:  # noqa: S310 - our own http
        return bool(response.status == 200)
    return False


def _server_settings(home: Path, auth: str) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_SERVER_API_AUTH_STRING": auth,  # other users of this machine reach the port too
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",  # a queued run looks again after 5 s, not 30
        "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "2",  # a new schedule counts within 2 s
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",  # an interval of seconds fills the database
    }


def _client_settings(home: Path, address: Mapping[str, Any]) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": address["url"],
        "PREFECT_API_AUTH_STRING": address["auth"],
        "PREFECT_UI_URL": "",  # there is none: no "View at" lines
        # A demo shows only the lines of the pipelines; `serve` sets another level.
        CONSOLE_LEVEL: os.environ.get(CONSOLE_LEVEL, "WARNING"),
    }


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for this process and its children, and make Prefect read them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        _refresh()
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _refresh()


def _refresh() -> None:
    """Make Prefect read its settings again: it keeps those that it found on import."""
    if "prefect.context" in sys.modules:
        from prefect.context import refresh_global_settings_context
        from prefect.logging.configuration import setup_logging

        refresh_global_settings_context()
        setup_logging()  # only levels change from the second time on
