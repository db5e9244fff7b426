"""What the servers say of themselves: asked over HTTP, without the clients that the project uses for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import httpx

from .processes import wait_for

ENDED = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
DIGEST = "data_digest"  # tag of a run


def ask(method: str, url: str, login: tuple[str, str], body: object = None) -> Any:
    """A request whose answer is JSON."""
    return httpx.request(method, url, auth=login, json=body, timeout=60).raise_for_status().json()


def status_of(url: str, login: tuple[str, str] | None = None) -> int:
    """The HTTP status of a GET."""
    return httpx.get(url, auth=login, timeout=60).status_code


class Prefect:
    """Prefect's API."""

    def __init__(self, url: str, login: str) -> None:
        user, _, password = login.partition(":")
        self.url, self._login = f"{url}/api", (user, password)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        return ask(method, f"{self.url}/{path}", self._login, body)

    def start(self, deployment: str, **parameters: object) -> str:
        """Ask for a run of a deployment, for the worker to find; its identifier."""
        found = self.ask("GET", f"deployments/name/{deployment}/{deployment}")
        return self.ask("POST", f"deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"]

    def state(self, run: str) -> str:
        """The type of a run's state."""
        return self.ask("GET", f"flow_runs/{run}")["state_type"]

    def message(self, run: str) -> str:
        return f"{self.ask('GET', f'flow_runs/{run}')['state']}"

    def ended(self, run: str, seconds: float = 300.0) -> str:
        """Wait for a run's end; the type of its last state."""

        def look() -> str:
            try:
                state = self.state(run)
            except httpx.HTTPError:  # away, or starting
                return ""
            return state if state in ENDED else ""

        return wait_for(look, f"the end of the flow run {run}", seconds, lambda: self.log(run))

    def completed(self, run: str, seconds: float = 300.0) -> None:
        """Wait for a run's end, which must be a good one."""
        state = self.ended(run, seconds)
        assert state == "COMPLETED", f"{state}: {self.message(run)}\n{self.log(run)}"

    def log(self, run: str) -> str:
        """What a run has logged."""
        wanted = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return "\n".join(line["message"] for line in self.ask("POST", "logs/filter", wanted))

    def logged(self, run: str, text: str, seconds: float = 120.0) -> None:
        """Wait for a line in a run's log."""
        wait_for(lambda: text in self.log(run), f"'{text}' in the log of the run", seconds, lambda: self.log(run))

    def tasks(self, run: str) -> dict[str, str]:
        """A run's tasks and the names of their states."""
        found = self.ask("POST", "task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}, "limit": 200})
        return {task["name"]: task["state_name"] for task in found}

    def artifacts(self, run: str) -> dict[str, Mapping[str, Any]]:
        """What a run has left in Prefect, by key."""
        found = self.ask("POST", "artifacts/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return {each["key"]: each for each in found}


class MLflow:
    """MLflow's API."""

    def __init__(self, url: str, password: str) -> None:
        self.url, self._login = f"{url}/api/2.0/mlflow", ("admin", password)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        return ask(method, f"{self.url}/{path}", self._login, body)

    def versions(self, name: str) -> dict[int, dict[str, Any]]:
        """All versions of a model, by number."""
        found = self.ask("GET", f"model-versions/search?filter=name%3D'{name}'").get("model_versions", [])
        return {int(each["version"]): each for each in found}

    def champion(self, name: str) -> int | None:
        """The version that is champion."""
        found = self.ask("GET", f"registered-models/search?filter=name%3D'{name}'").get("registered_models", [])
        aliases = found[0].get("aliases", []) if found else []
        return next((int(each["version"]) for each in aliases if each["alias"] == "champion"), None)

    def runs(self, experiment: str) -> list[dict[str, Any]]:
        """The runs of an experiment, newest first."""
        try:
            found = self.ask("GET", f"experiments/get-by-name?experiment_name={experiment}")["experiment"]
        except httpx.HTTPStatusError as error:
            if error.response.status_code == 404:
                return []
            raise
        return self.ask("POST", "runs/search", {"experiment_ids": [found["experiment_id"]]}).get("runs", [])

    def training(self, experiment: str) -> set[str]:
        """The states of the runs whose images have been read, so that the network is what comes next."""
        read = (run["info"]["status"] for run in self.runs(experiment) if DIGEST in str(run["data"].get("tags")))
        return set(read)


class Timings:
    """How long each step took, for the table at the end."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float]] = []

    def step(self, name: str) -> _Step:
        return _Step(self, name)


class _Step:
    def __init__(self, timings: Timings, name: str) -> None:
        self._timings, self._name = timings, name

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, *_error: object) -> None:
        self._timings.rows.append((self._name, time.monotonic() - self._start))
