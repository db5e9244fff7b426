"""Files of a run in MLflow's artifact store: folder, bucket or server."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

FOLDER = "model"  # of a run's artifacts: the bundle


def source_of(client: MlflowClient, run_id: str) -> str:
    """Address of a run's bundle."""
    from mlflow.utils.uri import append_to_uri_path

    uri: str = append_to_uri_path(client.get_run(run_id).info.artifact_uri, FOLDER)  # type: ignore[no-untyped-call]
    return uri


def upload(client: MlflowClient, run_id: str, folder: Path, files: Iterable[str]) -> None:
    """Send files of a folder, to the bundle of a run."""
    for file in files:
        client.log_artifact(run_id, str(folder / file), posixpath.join(FOLDER, posixpath.dirname(file)).rstrip("/"))


def download(uri: str, source: str, files: Iterable[str], into: Path) -> None:
    """Copy files of a bundle into a folder. A file that the store does not hold is left out.

    Args:
        uri: The registry's address, which a server's own artifact addresses are relative to.
        source: Address of the bundle.
        files: Relative paths.
        into: An existing folder.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    store = get_artifact_repository(source, tracking_uri=uri, registry_uri=uri)
    for file in files:
        try:
            store.download_artifacts(file, str(into))  # type: ignore[no-untyped-call]  # MLflow has few types
        except Exception:  # each kind of store has its own error for a missing file
            if _holds(store, file):
                raise


def _holds(store: ArtifactRepository, file: str) -> bool:
    listed = store.list_artifacts(posixpath.dirname(file) or None)
    return any(info.path == file for info in listed)
