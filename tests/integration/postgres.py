"""A PostgreSQL of the system's package, with the accounts and databases that the project's servers get."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .processes import Process

INSTALLED = Path("/usr/lib/postgresql")  # Debian's place: one folder for each version
INIT = Path(__file__).parents[2] / "docker" / "postgres-init.sh"
SYSTEM_USER = "postgres"  # made by the package; the server refuses to run as root


class Postgres:
    """A cluster in a folder of its own."""

    def __init__(self, port: int, passwords: Mapping[str, str], environment: Mapping[str, str], log: Path) -> None:
        self.port = port
        self._passwords, self._environment = dict(passwords), dict(environment)
        # Not below a folder of pytest's: these are closed to the user that the server runs as.
        self.folder = Path(tempfile.mkdtemp(prefix="kintsugi-postgres-"))
        self._as_user = ["runuser", "-u", SYSTEM_USER, "--"] if os.geteuid() == 0 else []
        if self._as_user:
            shutil.chown(self.folder, SYSTEM_USER)
        self.data = self.folder / "data"
        self.process = Process(
            "PostgreSQL",
            [
                *self._as_user, programs() / "postgres", "-D", self.data, "-c", "listen_addresses=127.0.0.1",
                "-c", f"port={port}", "-c", "unix_socket_directories=",
            ],
            environment, log, self._is_ready, self.folder,
        )  # fmt: skip

    def create(self) -> None:
        """Make the cluster, start it, and let the project's own script make accounts and databases."""
        password = self.folder / "password"
        password.touch(mode=0o600)
        password.write_text(self._passwords["POSTGRES_PASSWORD"])
        if self._as_user:
            shutil.chown(password, SYSTEM_USER)
        self._run(
            *self._as_user, programs() / "initdb", "-D", self.data, "--username", "postgres", "--pwfile", password,
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync",
        )  # fmt: skip
        password.unlink()
        self.process.start()
        self.process.expect_ready()
        self._run("bash", INIT)

    def stop_at_once(self) -> None:
        """Every connection is cut, nothing is written down: the next start recovers from the log."""
        self._run(*self._as_user, programs() / "pg_ctl", "stop", "-D", self.data, "-m", "immediate", "-w")
        self.process.kill()

    def dump(self) -> bytes:
        """All that is in all databases, as text."""
        return self._run(programs() / "pg_dumpall", "--no-role-passwords")

    def query(self, database: str, sql: str) -> str:
        """Rows of an answer, columns apart by tabs."""
        return self._run(programs() / "psql", "-X", "-A", "-t", "-F", "\t", "-d", database, "-c", sql).decode().strip()

    def remove(self) -> None:
        """End it and delete its folder."""
        if self.data.is_dir():
            stop = [*self._as_user, programs() / "pg_ctl", "stop", "-D", self.data, "-m", "immediate", "-w"]
            subprocess.run(stop, cwd=self.folder, capture_output=True, check=False)
        self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_ready(self) -> bool:
        command = [programs() / "pg_isready", "--quiet", "--host", "127.0.0.1", "--port", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, *command: str | Path) -> bytes:
        where = {
            "PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "postgres", "POSTGRES_USER": "postgres",
            "PGPASSWORD": self._passwords["POSTGRES_PASSWORD"], "PATH": f"{programs()}:{self._environment['PATH']}",
        }  # fmt: skip
        environment = self._environment | self._passwords | where
        done = subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, check=False)
        assert done.returncode == 0, f"{command[0]}: {done.stderr.decode()}\n{self.process.tail()}"
        return done.stdout


def programs() -> Path:
    """Where the newest installed PostgreSQL has its programs."""
    found = [path.parent for path in INSTALLED.glob("*/bin") if (path / "initdb").is_file()]
    assert found, f"no PostgreSQL under {INSTALLED}: on Debian, apt-get install postgresql"
    return max(found, key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)]) / "bin"
