"""Processes that a test starts, waits for, kills, and never leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import httpx

T = TypeVar("T")
LOOK_SECONDS = 0.1  # between two looks at a condition
SHOWN = 25  # lines of a log in a message


def wait_for(look: Callable[[], T], what: str, seconds: float, told: Callable[[], str] = str) -> T:
    """Look until there is something; `told` says more where there is not."""
    ends = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < ends, f"{what}: not within {seconds:.0f} s\n{told()}"
        time.sleep(LOOK_SECONDS)
    return found


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on, all different."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def answers(url: str) -> bool:
    """Whether a server says that it is well."""
    with suppress(httpx.HTTPError):
        return httpx.get(url, timeout=5).status_code == 200
    return False


def listens(port: int) -> bool:
    """Whether something accepts connections."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have started."""
    children = dict[int, list[int]]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parent = path.read_text().rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(path.parent.name))
    found, new = list[int](), [pid]
    while new:
        new = [child for each in new for child in children.get(each, [])]
        found += new
    return found


class Process:
    """A program with its children in a process group of its own. What it says goes to the end of a file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        log: Path,
        ready: Callable[[], bool],
        folder: Path,
    ) -> None:
        self.name, self.log = name, log
        self._command, self._environment = [str(word) for word in command], dict(environment)
        self._ready, self._folder = ready, folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; `expect_ready` waits."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def expect_ready(self, seconds: float = 300.0) -> None:
        """Wait until it does its work."""

        def look() -> bool:
            assert self._process is not None
            code = self._process.poll()
            assert code is None, f"{self.name} ended with code {code}\n{self.tail()}"
            return self._ready()

        wait_for(look, f"{self.name} is ready", seconds, self.tail)

    def kill(self) -> None:
        """SIGKILL to it, its group and all that it has started; returns when it is gone."""
        if self._process is None:
            return
        started = descendants(self._process.pid)  # flow runs are in groups of their own
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for child in started:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def signal(self, number: int) -> None:
        """Send a signal to it alone."""
        assert self._process is not None, f"{self.name} was not started"
        self._process.send_signal(number)

    def tail(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.is_file() else []
        return "\n".join([f"--- {self.name}:", *lines[-SHOWN:]])
