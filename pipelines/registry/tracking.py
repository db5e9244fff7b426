"""One MLflow run: what a training job records while it works. Nothing here touches MLflow's global "active run"."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pipelines.errors import RegistryError
from pipelines.registry.connection import UNAVAILABLE, Connection
from pipelines.registry.trail import actor

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric

FLUSH_POINTS = 500
FLUSH_SECONDS = 10.0
"""Metric points are sent when there are so many, or so old ones: 500 in one request cost what one does."""
RETRY_SECONDS = 60.0
"""After a send that failed, the next one waits this long: training goes on while a server restarts."""
MAX_WAITING = 100_000
"""Points kept while the server is away; then the oldest go."""
MAX_PARAM = 6000
MAX_TAG = 8000
"""Characters that MLflow stores of a parameter and of a run's tag."""

RUN_FILE = "mlflow-run"
"""Name of a file that holds a run's identifier, among the checkpoints of a training."""

logger = logging.getLogger(__name__)


class TrackedRun:
    """A run of an experiment, as a context manager: FINISHED at its end, FAILED on an error, KILLED on an interrupt."""

    def __init__(
        self,
        experiment: str,
        *,
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
        kept: Path | None = None,
        uri: str | None = None,
    ) -> None:
        """Open nothing yet: entering does.

        Args:
            experiment: Name of the experiment, made when there is none: the job's name.
            run_name: What MLflow shows; it makes one up when it is None.
            tags: Texts shown beside the run.
            run_id: An earlier run to go on with, after a training that was killed.
            kept: File that holds the run's identifier as long as the run lasts. One that is there is of a run that was
                killed, or whose end MLflow did not hear of: that run is marked as killed.
            uri: MLflow's address; None takes `MLFLOW_TRACKING_URI`, or SQLite under `KINTSUGI_HOME`.
        """
        self._connection = Connection(uri)
        self._experiment = experiment
        self._run_name = run_name
        self._tags = dict(tags or {})
        self._run_id = run_id
        self._kept = kept
        self._waiting: list[Metric] = []
        self._due = 0.0
        self._away = False
        self._secured = False
        self.ended = False  # MLflow knows that the run is over

    @property
    def run_id(self) -> str:
        """MLflow's identifier of the run; there is one once the run has been entered."""
        if self._run_id is None:
            msg = "the run has no identifier before it is entered: use it as `with TrackedRun(...) as run:`"
            raise RuntimeError(msg)
        return self._run_id

    def __enter__(self) -> Self:
        """Create the run, or go on with the earlier one.

        Raises:
            RegistryError: MLflow cannot be reached, or refuses; the message says where and what to do.
        """
        with self._connection.errors(f"starting a run of '{self._experiment}'"):
            client = self._connection.client
            if self._run_id is None:
                tags = {"mlflow.user": actor(), "mlflow.source.name": "kintsugi", "mlflow.source.type": "JOB"}
                experiment = self._find_experiment().experiment_id
                if self._kept is not None:
                    _end_killed(client, self._kept)  # the one before
                self._run_id = client.create_run(experiment, tags=tags, run_name=self._run_name).info.run_id
                if self._kept is not None:
                    self._kept.parent.mkdir(parents=True, exist_ok=True)
                    self._kept.write_text(self._run_id, encoding="utf-8")
            else:
                client.update_run(self._run_id, status="RUNNING")
        self._due = time.monotonic() + FLUSH_SECONDS
        self.tags(self._tags)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is waiting and close the run.

        Raises:
            RegistryError: That failed. Not raised on top of another error, which stays the one that is seen, nor after
                `secure`.
        """
        if error is None:
            try:
                self._close("FINISHED")
            except RegistryError as trouble:
                if not self._secured:
                    raise
                logger.warning("%s; the model is registered, its run may lack figures or seem to go on", trouble)
            return
        with contextlib.suppress(RegistryError):
            self.tags({"error": f"{type(error).__name__}: {error}"})
        with contextlib.suppress(RegistryError):
            self._close("FAILED" if isinstance(error, Exception) else "KILLED")

    def secure(self) -> None:
        """Note that what the run made is registered: from now on nothing that MLflow does not take is an error.

        The file with the run's identifier stays at its end, as the training's last trace, for the training to remove.
        """
        self._secured = True
        if self._kept is not None:
            with contextlib.suppress(OSError):  # a full disk
                self._kept.write_text(f"{self.run_id} FINISHED", encoding="utf-8")

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings. Tables within are flattened (`train.steps`), long values end in an ellipsis.

        Raises:
            RegistryError: MLflow refuses, as when a parameter was recorded before with another value.
        """
        from mlflow.entities import Param

        texts = [Param(key, _shorten(_text(value), MAX_PARAM)) for key, value in _flatten(values)]
        with self._connection.errors("recording parameters"):
            self._connection.client.log_batch(self.run_id, params=texts)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record figures of a step. They are sent in batches; while the server is away they wait.

        Raises:
            RegistryError: MLflow refuses them.
        """
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        self._waiting += [Metric(name, float(value), now, step) for name, value in values.items()]
        if time.monotonic() >= self._due or (len(self._waiting) >= FLUSH_POINTS and not self._away):
            self._send_if_possible()

    def tags(self, values: Mapping[str, str]) -> None:
        """Record texts beside the run.

        Raises:
            RegistryError: MLflow cannot be reached or refuses them.
        """
        from mlflow.entities import RunTag

        texts = [RunTag(key, _shorten(value, MAX_TAG)) for key, value in values.items()]
        with self._connection.errors("recording tags"):
            self._connection.client.log_batch(self.run_id, tags=texts)

    def image(self, name: str, png: bytes) -> None:
        """Keep a picture as `images/NAME.png`; the name may hold slashes.

        Raises:
            RegistryError: It cannot be stored.
        """
        with self._connection.errors(f"storing the image '{name}'"):
            self._connection.client.log_stream(self.run_id, io.BytesIO(png), f"images/{name.removesuffix('.png')}.png")

    def text(self, name: str, text: str) -> None:
        """Keep a text as a file of that name.

        Raises:
            RegistryError: It cannot be stored.
        """
        with self._connection.errors(f"storing the text '{name}'"):
            self._connection.client.log_text(self.run_id, text, name)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a copy of a file, or of a folder with all that is in it.

        Args:
            path: What to keep.
            folder: Where among the run's artifacts; the top by default.

        Raises:
            RegistryError: There is no such file, or it cannot be stored.
        """
        with self._connection.errors(f"storing {path}"):
            client = self._connection.client
            if path.is_dir():
                client.log_artifacts(self.run_id, str(path), "/".join(filter(None, (folder, path.name))))
            else:
                client.log_artifact(self.run_id, str(path), folder)

    def flush(self) -> None:
        """Send the metrics that are waiting.

        Raises:
            RegistryError: That failed; they are still waiting.
        """
        with self._connection.errors("recording metrics"):
            self._send()

    def _send(self) -> None:
        if self._waiting:
            self._connection.client.log_batch(self.run_id, metrics=self._waiting)
            self._waiting = []
        self._away = False
        self._due = time.monotonic() + FLUSH_SECONDS

    def _send_if_possible(self) -> None:
        from mlflow.exceptions import MlflowException

        with self._connection.errors("recording metrics"):
            try:
                self._send()
            except (MlflowException, OSError) as error:
                if getattr(error, "error_code", None) not in UNAVAILABLE:
                    raise
                self._away = True
                self._due = time.monotonic() + RETRY_SECONDS
                del self._waiting[:-MAX_WAITING]
                logger.warning(
                    "%s does not take metrics (%s); training goes on, %d points wait for the next try in %d s",
                    self._connection.address,
                    next(iter(str(error).splitlines()), "")[:200],
                    len(self._waiting),
                    RETRY_SECONDS,
                )

    def _close(self, status: str) -> None:
        try:
            self.flush()
        except RegistryError:
            if not self._secured:
                status = "FAILED"  # figures are missing
            raise
        finally:
            with self._connection.errors("closing the run"):
                self._connection.client.set_terminated(self.run_id, status)
                self.ended = True
                if self._kept is not None and not self._secured:  # else it goes with what the training leaves, last
                    self._kept.unlink(missing_ok=True)

    def _find_experiment(self) -> Experiment:
        from mlflow.exceptions import MlflowException

        client = self._connection.client
        found = client.get_experiment_by_name(self._experiment)
        if found is None:
            # Run identifiers are unique, so that names which become the same folder do no harm.
            root = self._connection.artifact_root
            location = None if root is None else str(root / re.sub(r"[^\w.-]+", "-", self._experiment))
            try:
                return client.get_experiment(client.create_experiment(self._experiment, location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = client.get_experiment_by_name(self._experiment)  # another process was faster
        if found is None or found.lifecycle_stage != "active":
            number = "" if found is None else f" --experiment-id {found.experiment_id}"
            msg = (
                f"the experiment '{self._experiment}' at {self._connection.address} was deleted: bring it back with "
                f"`mlflow experiments restore{number}`, or give the job another name"
            )
            raise RegistryError(msg)
        return found


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Tables within tables, as dotted keys.

    >>> list(_flatten({"name": "tiles", "train": {"steps": 100}}))
    [('name', 'tiles'), ('train.steps', 100)]
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: object) -> str:
    return json.dumps(value, default=str) if isinstance(value, list | tuple | bool) else str(value)


def _shorten(text: str, limit: int) -> str:
    """Cut a text that MLflow would refuse or cut without a word.

    >>> _shorten("reconstruct", 6), _shorten("denoise", 7)
    ('recon…', 'denoise')
    """
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def kept_run(kept: Path) -> tuple[str, str]:
    """Read which run a file names, and what it ends as if nobody goes on with it; an empty text where there is none."""
    try:
        run, _, status = kept.read_text(encoding="utf-8").strip().partition(" ")
    except (OSError, ValueError):
        return "", ""
    return run, status or "KILLED"


def end_killed(kept: Path, status: str | None = None) -> None:
    """End the run whose identifier a file holds, if it is not over: its process was killed, and nobody goes on with it.

    Args:
        kept: The file.
        status: What it ends as; None: as the file says.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    connection = Connection()
    with connection.errors("ending a run that was killed"):
        _end_killed(connection.client, kept, status)


def _end_killed(client: MlflowClient, kept: Path, status: str | None = None) -> None:
    """To MLflow a run whose process was killed goes on for ever."""
    before, known = kept_run(kept)
    if not before:
        return
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):  # of another server, or somebody has removed it
        if client.get_run(before).info.status == "RUNNING":
            client.set_terminated(before, status or known)
