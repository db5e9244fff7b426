"""The servers of docker-compose.yml, started on this machine's loopback: the same commands, flags and variables.

The compose file itself is read, and only what a container changes is changed: names of hosts, ports and paths.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .interfaces import MLflow, Prefect
from .postgres import Postgres
from .processes import Process, answers, free_ports, listens, wait_for

ROOT = Path(__file__).parents[2]
VARIABLE = re.compile(r"\$\{(\w+)([^}]*)\}")
# What the image sets (Dockerfile), and threads for a machine that runs all of the servers on two cores.
IMAGE = {
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "OMP_NUM_THREADS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
# A run whose process was killed is told from one that works by its silence: here after as little as Prefect allows.
HEARTBEAT = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
SILENCE = 120  # seconds
BUCKET = "mlflow"


class Told(NamedTuple):
    """What a command has said, and how it ended."""

    out: str
    err: str
    code: int


class Stack:
    """All servers, a worker, and a client's way to each of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data, self.logs, self.home = folder / "data", folder / "logs", folder / "home"
        for each in (self.data, self.logs, self.home):
            each.mkdir()
        self.values = self._values()
        database, store, mlflow, prefect, health = free_ports(5)
        self._hosts = {
            "http://object-store:8333": f"http://127.0.0.1:{store}",
            "http://mlflow:5000": f"http://127.0.0.1:{mlflow}",
            "http://prefect:4200": f"http://127.0.0.1:{prefect}",
            "@postgres:5432/": f"@127.0.0.1:{database}/",
            "/app/docker/": f"{ROOT / 'docker'}/",
            "--host=0.0.0.0": "--host=127.0.0.1",
            "--port=5000": f"--port={mlflow}",
            '0.0.0.0, --port, "4200"': f'127.0.0.1, --port, "{prefect}"',
            "python -m flows.watchdog": f"python -m flows.watchdog {SILENCE}",
            ",127.0.0.1:5000,": f",127.0.0.1:{mlflow},",
        }
        self.mlflow_url, self.prefect_url = f"http://127.0.0.1:{mlflow}", f"http://127.0.0.1:{prefect}"
        self.store_url = f"http://127.0.0.1:{store}"
        self.prefect_api = Prefect(self.prefect_url, self.values["PREFECT_AUTH"])
        self.mlflow_api = MLflow(self.mlflow_url, self.values["MLFLOW_ADMIN_PASSWORD"])
        self._store_port = store
        self._services = self._compose()
        self.postgres = Postgres(database, self.values, self._base("postgres"), self.logs / "postgres.log")
        self.store = Process(
            "the object store", [sys.executable, Path(__file__).with_name("object_store.py"), str(store)],
            self._base("store"), self.logs / "store.log", lambda: listens(store), folder,
        )  # fmt: skip
        self._database = {"PGHOST": "127.0.0.1", "PGPORT": str(database)}
        self.mlflow = self._service("mlflow", self._database, lambda: answers(f"{self.mlflow_url}/health"))
        self.prefect = self._service("prefect", {}, lambda: answers(f"{self.prefect_url}/api/health"))
        worker_home = {
            "KINTSUGI_HOME": str(folder / "worker-home"),
            "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
            "PREFECT_WORKER_WEBSERVER_PORT": str(health),
        }
        self.worker = self._service(
            "worker-cpu", worker_home | HEARTBEAT, lambda: answers(f"http://127.0.0.1:{health}/health")
        )

    def start(self) -> None:
        """Start all of it, in the order of docker-compose.yml."""
        self.store.start()
        self.postgres.create()
        self.store.expect_ready()
        self.one_shot(
            [sys.executable, ROOT / "docker" / "create_bucket.py"], self.environment_of("bucket"), self.folder
        )
        self.mlflow.start()
        self.prefect.start()
        self.prefect.expect_ready()
        self._deploy()
        self.worker.start()
        self.mlflow.expect_ready()
        self.worker.expect_ready()

    def close(self) -> None:
        """End every process, whatever state it is in."""
        for process in (self.worker, self.prefect, self.mlflow, self.store):
            process.kill()
        self.postgres.remove()

    def of_mlflow(self) -> dict[str, str]:
        """The environment of MLflow's container."""
        return self.environment_of("mlflow") | self._database

    # What a user does.

    def client(self) -> dict[str, str]:
        """The environment of somebody who uses the servers: docker-compose.yml's, and a home of their own."""
        return self.environment_of("worker-cpu") | self._base("user") | {"KINTSUGI_HOME": str(self.home)}

    @contextmanager
    def running(self, *words: str | Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
        """The command, at work; ended with the block."""
        process = subprocess.Popen(
            ["kintsugi", *map(str, words)], env=self.client() | variables, cwd=self.data, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def kintsugi(self, *words: str | Path, seconds: float = 400.0, **variables: str) -> Told:
        """Run the command to its end."""
        with self.running(*words, **variables) as process:
            return self.told(process, seconds)

    def told(self, process: subprocess.Popen[str], seconds: float = 400.0) -> Told:
        """Wait for the end of a command. What it has said is kept with the logs, too."""
        told = Told(*process.communicate(timeout=seconds), process.returncode)
        with (self.logs / "kintsugi.log").open("a") as log:
            log.write(f"$ {process.args}\n{told.out}{told.err}\n")
        return told

    def one_shot(self, command: Sequence[str | Path], environment: Mapping[str, str], folder: Path) -> str:
        """Run a program that must succeed."""
        done = subprocess.run(
            [str(word) for word in command], env=dict(environment), cwd=folder, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=180,
        )  # fmt: skip
        with (self.logs / "one-shots.log").open("a") as log:
            log.write(f"{done.stdout}{done.stderr}\n")
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def take_store_away(self) -> None:
        """The object store's disk stays, but nothing answers."""
        self.store.signal(signal.SIGUSR1)
        wait_for(lambda: not listens(self._store_port), "the object store is away", 30)

    def bring_store_back(self) -> None:
        self.store.signal(signal.SIGUSR2)
        self.store.expect_ready()

    def keys(self) -> set[str]:
        """The names of all objects in the store."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return {each["Key"] for page in pages for each in page.get("Contents", [])}

    def objects(self) -> dict[str, bytes]:
        """What the object store holds, by key."""
        return {key: self._s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in self.keys()}

    @cached_property
    def _s3(self) -> Any:
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.store_url, region_name="us-east-1",
            aws_access_key_id=self.values["S3_ACCESS_KEY"], aws_secret_access_key=self.values["S3_SECRET_KEY"],
        )  # fmt: skip

    # What docker-compose.yml says.

    def environment_of(self, service: str) -> dict[str, str]:
        """The variables of a service."""
        return self._base(service) | {
            name: str(value) for name, value in self._services[service].get("environment", {}).items()
        }

    def _service(self, name: str, more: Mapping[str, str], ready: Callable[[], bool]) -> Process:
        environment = self.environment_of(name) | more
        return Process(
            name, self._services[name]["command"], environment, self.logs / f"{name}.log", ready, self.folder
        )

    def _values(self) -> dict[str, str]:
        """What docker/generate-env writes: the values of all variables, most of them passwords."""
        file = self.folder / ".env"
        command = [sys.executable, ROOT / "docker" / "generate-env", "--output", file, "--data", self.data]
        subprocess.run(command, check=True, capture_output=True)
        lines = [line.partition("=") for line in file.read_text().splitlines() if not line.startswith("#")]
        return {name: value for name, equals, value in lines if equals}

    def _compose(self) -> dict[str, Any]:
        text = (ROOT / "docker-compose.yml").read_text()
        for there, here in self._hosts.items():
            assert there in text, f"docker-compose.yml has no {there!r} any more: what stands for it here?"
            text = text.replace(there, here)
        services: dict[str, Any] = yaml.safe_load(VARIABLE.sub(self._value, text))["services"]
        return services

    def _value(self, found: re.Match[str]) -> str:
        """Of a variable, as Compose has it: what stands behind :- is for one that is empty, behind :+ for others."""
        value, how, other = self.values[found[1]].strip("'"), found[2][:2], found[2][2:]
        if how == ":+":
            return other if value else ""
        return value or (other if how == ":-" else "")

    def _base(self, name: str) -> dict[str, str]:
        """A home folder, and of this process's environment only the path."""
        home = self.folder / "homes" / name
        home.mkdir(parents=True, exist_ok=True)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return IMAGE | {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8"}

    def _deploy(self) -> None:
        """The work pool, and the deployments of prefect.yaml with this machine's folder."""
        folder = self.folder / "deployments"
        folder.mkdir()
        text = (ROOT / "prefect.yaml").read_text().replace(" /data/", f" {self.data}/")
        (folder / "prefect.yaml").write_text(text)
        self.one_shot(self._services["deployments"]["command"], self.environment_of("deployments"), folder)
