"""Where MLflow is, and one quiet client for it.

Importing MLflow takes seconds and reads the environment once, so that happens when a client is asked for, after the
environment has been set.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipelines.base.locks import locked
from pipelines.errors import KintsugiError, RegistryError
from pipelines.settings import settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROBE_SECONDS = 5
"""How long the first request may take before a server counts as down."""

PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""Of the databases that MLflow can use without a server of its own."""

CHECK_SERVER = "Start the MLflow server, or unset MLFLOW_TRACKING_URI to use the registry in KINTSUGI_HOME"

UNAVAILABLE = frozenset({None, "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"})
"""MLflow's error codes for what is not the request's fault; None is an error of another library."""

ENVIRONMENT = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # a model that is a pickle runs its author's code
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # one bar per file, under our own
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # Files come and go through the server: the object store behind it may be out of the client's reach.
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
    # The defaults keep a caller of a dead server for more than four minutes (7 retries, 120 s each).
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}

_opened: set[Path] = set()  # databases that this process has a connection to


class Connection:
    """An MLflow tracking server, or a database used directly. Opened on first use."""

    def __init__(self, uri: str | None = None) -> None:
        """Open nothing yet.

        Args:
            uri: MLflow's address; None takes `MLFLOW_TRACKING_URI`, or SQLite under `KINTSUGI_HOME`.
        """
        where = settings()
        self.uri = uri or where.tracking_uri
        self.home = where.home.resolve()
        # A server decides itself where files go. Beside a database MLflow would use ./mlruns, wherever that is.
        self.artifact_root = None if urlsplit(self.uri).scheme in ("http", "https") else where.artifact_root

    @property
    def address(self) -> str:
        """The URI as it may be shown: without a password."""
        parts = urlsplit(self.uri)
        return self.uri.replace(f":{parts.password}@", ":***@") if parts.password else self.uri

    @property
    def database(self) -> Path | None:
        """The SQLite file; None for anything else."""
        path = self.uri.removeprefix("sqlite:///")
        return Path(path) if self.uri.startswith("sqlite:///") and path not in ("", ":memory:") else None

    @property
    def is_new(self) -> bool:
        """Whether there is no database yet, so that it holds nothing and reading need not create it."""
        return self.database is not None and not self.database.exists()

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client; creates the SQLite database when there is none.

        Raises:
            RegistryError: MLflow is not installed, the server does not answer, or the database cannot be opened.
        """
        local = [str(path) for path in (self.database, self.artifact_root) if path]
        if any(character in path for path in local for character in "%?"):
            msg = f"MLflow takes '%' and '?' in {local[0]} as parts of an address: set KINTSUGI_HOME to another folder"
            raise RegistryError(msg)
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        with quiet():
            try:
                from mlflow import MlflowClient
            except ImportError as error:
                msg = f"the registry needs MLflow, which does not load ({error}): run make setup in a checkout"
                raise RegistryError(msg) from error
            with self.errors("opening the registry"):
                self._probe()
                if self.database is not None:
                    self._create(self.database, MlflowClient)
                return MlflowClient(self.uri, registry_uri=self.uri)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other processes out while several writes belong together (SQLite only: a server has no such lock)."""
        if self.database is None:
            yield
        else:
            self.database.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.database.with_name(f"{self.database.name}.lock")):
                yield

    @contextlib.contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Turn what the stores raise into a RegistryError that says what failed, where, and the next step.

        Args:
            doing: What is being done, such as "registering 'tiles'".
        """
        try:
            yield
        except KintsugiError:
            raise
        except Exception as error:  # MLflow lets through what requests, SQLAlchemy, boto3 and the file system raise
            text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            msg = f"{doing} failed at {self.address}: {text[:400].rstrip('.')}{self._next_step(error)}"
            raise RegistryError(msg) from error

    def _next_step(self, error: Exception) -> str:
        code = getattr(error, "error_code", None)  # MLflow's errors have one
        if "out-of-date database schema" in str(error):
            return f". An older MLflow made this database: back it up, then run `mlflow db upgrade {self.address}`"
        if code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"):
            return ". Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        if code not in UNAVAILABLE:
            return ""  # MLflow says itself what it does not accept
        if self.database is not None:
            return f". Check that {self.database.parent} can be written and has space, or set KINTSUGI_HOME"
        return f". {CHECK_SERVER}"

    def _probe(self) -> None:
        """Fail in seconds when nothing listens: MLflow itself would retry for minutes."""
        parts = urlsplit(self.uri)
        if parts.scheme in ("http", "https"):
            from mlflow.exceptions import MlflowException
            from mlflow.utils.credentials import get_default_host_creds
            from mlflow.utils.rest_utils import http_request

            credentials = get_default_host_creds(self.uri)  # type: ignore[no-untyped-call]  # MLflow has few types
            try:  # any answer will do, 404 and 401 too: it is the first real request that must succeed
                http_request(  # type: ignore[no-untyped-call]
                    credentials, "/health", "GET", max_retries=0, timeout=PROBE_SECONDS, raise_on_status=False
                )
            except MlflowException as error:
                raise RegistryError(self._no_answer()) from error
        elif parts.hostname and (port := PORTS.get(parts.scheme.split("+")[0])):
            try:
                socket.create_connection((parts.hostname, parts.port or port), timeout=PROBE_SECONDS).close()
            except OSError as error:
                raise RegistryError(self._no_answer()) from error

    def _no_answer(self) -> str:
        return f"nothing answers at {self.address} (waited up to {PROBE_SECONDS} s). {CHECK_SERVER}"

    def _create(self, database: Path, client: Callable[..., Any]) -> None:
        """Make the database in one step, so that no process ever sees, or is killed leaving, half a schema."""
        if database in _opened and not database.exists():
            msg = f"{database} was removed while this process was using it: start the command again"
            raise RegistryError(msg)
        if not database.exists():
            with self.exclusive():
                if not database.exists():
                    draft = database.with_name(f"{database.name}.new")
                    draft.unlink(missing_ok=True)  # left by a process that was killed here
                    sqlite3.connect(draft).close()  # MLflow retries a folder that cannot be written for two minutes
                    client(f"sqlite:///{draft}")
                    draft.replace(database)
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA schema_version")
        _opened.add(database)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow's own affairs off the terminal: deprecations, migrations, what it logs and raises as well."""
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # logs every error that it raises, once more
    environment = logging.getLogger("mlflow.utils.environment")
    level = environment.level
    environment.setLevel(logging.ERROR)  # warns that there is no pip, as in an environment made by uv
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        environment.setLevel(level)
