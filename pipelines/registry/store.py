"""The registry itself: register, look up, fetch, promote, roll back, verify."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import DigestError, ModelError, RegistryError
from pipelines.jobfile.job import NAME_PATTERN
from pipelines.models.model_file import MODEL_FILE
from pipelines.registry import artifacts
from pipelines.registry.bundle import bundle_files, digests_of, first_mismatch, write_mlflow_files
from pipelines.registry.cache import local_copy
from pipelines.registry.connection import UNAVAILABLE, Connection
from pipelines.registry.lookup import all_versions, find_model, find_models, find_version, find_versions
from pipelines.registry.promotion import Aliases
from pipelines.registry.records import CHAMPION, PREVIOUS, ModelSummary, TrailEntry, Version, read_version, version_tags
from pipelines.registry.search import Condition, matching
from pipelines.registry.trail import read_entries

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)
PAUSES = (1.0, 4.0, 15.0)  # seconds before each question whether a version was made whose answer was lost


class Registry:
    """MLflow's model registry, with digests that are checked and aliases that leave a trail."""

    def __init__(self, uri: str | None = None) -> None:
        """Open nothing yet: the first call does.

        Args:
            uri: MLflow's address; None takes `MLFLOW_TRACKING_URI`, or SQLite under `KINTSUGI_HOME`.
        """
        self._connection = Connection(uri)

    @property
    def address(self) -> str:
        """Where it is, as it may be shown."""
        return self._connection.address

    def register(
        self,
        name: str,
        bundle: Path,
        *,
        run_id: str,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Version:
        """Add a version. No alias moves. The files are read back and compared before the version exists.

        Registering the same bundle from the same run again returns the version that is there.

        Args:
            name: The model; it is created by its first version.
            bundle: Folder with model.onnx and what belongs to it.
            run_id: The run that trained it; its artifacts will hold the bundle.
            metrics: Figures shown beside the version.
            tags: Texts shown beside the version.

        Raises:
            RegistryError: The name is not one, the run does not exist or holds another version, or MLflow refuses.
            ModelError: The folder holds no model.onnx, or it is not ONNX.
            DigestError: A file came back changed.
        """
        if not NAME_PATTERN.fullmatch(name):
            msg = f"'{name}' cannot be a model name: use letters, digits, '.', '_' and '-', at most 100 of them"
            raise RegistryError(msg)
        files = bundle_files(bundle)
        digests = digests_of(bundle, files)
        with self._connection.errors(f"registering '{name}'"):
            client = self._connection.client
            source = artifacts.source_of(client, run_id)
            earlier = client.search_model_versions(f"run_id = '{run_id}'")
            if earlier:
                return self._registered_before(read_version(earlier[0], ()), name, digests, run_id)
            with tempfile.TemporaryDirectory() as temporary:
                beside = Path(temporary, "beside")
                metadata = write_mlflow_files(bundle / MODEL_FILE, beside, run_id=run_id)
                added = sorted(path.name for path in beside.iterdir())
                digests.update(digests_of(beside, added))
                artifacts.upload(client, run_id, bundle, files)
                artifacts.upload(client, run_id, beside, added)
                returned = Path(temporary, "returned")
                returned.mkdir()
                self._download(f"the upload of '{name}'", source, digests, returned)
            given = dict(tags or {})
            task = metadata.task if metadata else given.get("task", "unknown")
            summary = given.pop("summary", None) or (metadata.summary if metadata else task)
            self._ensure_model(name)
            try:
                stored = client.create_model_version(
                    name,
                    source,
                    run_id,
                    tags=version_tags(digests, task, metrics or {}, given),
                    description=summary[:5000],  # the width of the column
                )
            except Exception as error:  # noqa: BLE001 - raised again, unless the version is there
                stored = self._made_all_the_same(run_id, error)
            self._forget_doubles(stored)
        return read_version(stored, ())

    def get(self, name: str, selector: str) -> Version:
        """One version of a model.

        Args:
            name: The model.
            selector: A version number, an alias, or `latest`.

        Raises:
            ModelError: There is no such model or version; the message lists what there is.
        """
        return find_version(self._connection, name, selector)

    def models(self) -> list[ModelSummary]:
        """All models with their aliases and newest version, by name."""
        return find_models(self._connection)

    def versions(self, name: str) -> list[Version]:
        """All versions of a model, newest first.

        Raises:
            ModelError: There is no such model; the message lists those there are.
        """
        return find_versions(self._connection, find_model(self._connection, name))

    def search(self, *conditions: str) -> list[Version]:
        """Versions of all models that fulfil every condition, by name and newest first.

        Args:
            conditions: KEY=VALUE with `*` for any text, KEY!=VALUE, or KEY>=NUMBER and the like. Keys are name,
                version, alias, created, figures such as psnr, keys of the job such as model.target, and tags.

        Raises:
            RegistryError: Something is no condition, or no version has anything of that name.
        """
        parsed = [Condition.parse(text) for text in conditions]
        return list(matching(all_versions(self._connection), parsed))

    def trail(self, name: str) -> list[TrailEntry]:
        """Every move of the model's aliases, oldest first.

        Raises:
            ModelError: There is no such model.
        """
        return read_entries(find_model(self._connection, name).tags)

    def fetch(self, version: Version) -> Path:
        """A local folder with the version's files, every one of them read and compared with its digest.

        The copy is kept; a damaged one is downloaded again.

        Raises:
            DigestError: The registry's own file is not the one that was registered.
            ModelError: The version was not registered by Kintsugi.
        """
        digests = self._digests(version)
        return local_copy(self._connection.home / "models", digests, lambda into: self._read(version, digests, into))

    def verify(self, version: Version) -> None:
        """Read the registry's own files from end to end.

        Raises:
            DigestError: One of them is not the one that was registered; the message names it and both digests.
            ModelError: The version was not registered by Kintsugi.
        """
        with tempfile.TemporaryDirectory() as temporary:
            self._read(version, self._digests(version), Path(temporary))

    def promote(self, name: str, version: int, *, reason: str, figures: Mapping[str, object] | None = None) -> Version:
        """Make a version the champion; the champion becomes previous. Its files are verified first.

        Args:
            name: The model.
            version: The new champion.
            reason: Why, for the trail.
            figures: What the decision was made of, for the trail.

        Returns:
            The champion.

        Raises:
            ModelError: There is no such version.
            DigestError: Its files are damaged; nothing has moved.
        """
        self.verify(self.get(name, str(version)))
        with self._moving(name) as aliases:
            aliases.promote(version, reason, figures or {})
        return self.get(name, str(version))

    def challenge(
        self, name: str, version: int, *, reason: str = "", figures: Mapping[str, object] | None = None
    ) -> Version:
        """Make a version the challenger.

        Args:
            name: The model.
            version: The new challenger.
            reason: Why it is not champion, for the trail.
            figures: What the decision was made of, for the trail.

        Raises:
            ModelError: There is no such version, or it is the champion.
        """
        self.get(name, str(version))
        with self._moving(name) as aliases:
            aliases.challenge(version, reason, figures or {})
        return self.get(name, str(version))

    def rollback(self, name: str, *, reason: str) -> Version:
        """Return to the champion before this one, which becomes previous. Its files are verified first.

        Returns:
            The champion.

        Raises:
            ModelError: There is none to return to; the message says how to promote another version.
            DigestError: Its files are damaged; nothing has moved.
        """
        while True:
            previous = Aliases(self._connection.client, find_model(self._connection, name)).previous()
            version = self.get(name, str(previous))
            self.verify(version)
            with self._moving(name) as aliases:
                if aliases.previous() == previous:  # else somebody has moved it, to a version that nobody has verified
                    aliases.rollback(reason)
                    # Not asked for once more: whoever tries again after an outage then would go back and forth.
                    return replace(version, aliases=tuple(sorted({*version.aliases, CHAMPION} - {PREVIOUS})))

    @contextlib.contextmanager
    def _moving(self, name: str) -> Iterator[Aliases]:
        """The model's aliases as they are now, other processes kept out."""
        client = self._connection.client
        with self._connection.exclusive(), self._connection.errors(f"moving the aliases of '{name}'"):
            yield Aliases(client, find_model(self._connection, name))

    def _ensure_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._connection.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _made_all_the_same(self, run_id: str, error: Exception) -> ModelVersion:
        """Find the version that a server has made whose answer was lost; raise the error where there is none."""
        if getattr(error, "error_code", None) not in UNAVAILABLE:
            raise error
        for pause in PAUSES:
            time.sleep(pause)
            with contextlib.suppress(Exception):  # it is still away
                found = self._connection.client.search_model_versions(f"run_id = '{run_id}'")
                if found:
                    return min(found, key=lambda version: int(version.version))
                break
        raise error

    def _forget_doubles(self, stored: ModelVersion) -> None:
        """Remove a second version of one run: MLflow's client asks again where an answer was lost.

        Nothing that goes wrong here undoes that the version is registered.
        """
        try:
            client = self._connection.client
            for version in client.search_model_versions(f"run_id = '{stored.run_id}'"):
                if version.name == stored.name and int(version.version) > int(stored.version):
                    client.delete_model_version(version.name, version.version)
        except Exception as error:  # noqa: BLE001 - of any of MLflow's stores
            log.warning("%s may have been registered twice: %s", stored.name, error)

    def _registered_before(self, version: Version, name: str, digests: Mapping[str, str], run_id: str) -> Version:
        if version.name == name and digests.items() <= version.digests.items():
            return self.get(name, str(version.version))
        msg = f"run {run_id} already holds {version.ref}, whose files would be overwritten: register from a new run"
        raise RegistryError(msg)

    def _digests(self, version: Version) -> dict[str, str]:
        digests = version.digests or self.get(version.name, str(version.version)).digests
        if MODEL_FILE not in digests:
            msg = f"{version.ref} was not registered by Kintsugi, so its files have no digests: `kintsugi train` it"
            raise ModelError(msg)
        return digests

    def _read(self, version: Version, digests: Mapping[str, str], into: Path) -> None:
        with self._connection.errors(f"reading {version.ref}"):
            source = self._connection.client.get_model_version_download_uri(version.name, str(version.version))
            self._download(version.ref, source, digests, into)

    def _download(self, what: str, source: str, digests: Mapping[str, str], into: Path) -> None:
        artifacts.download(self._connection.uri, source, digests, into)
        if mismatch := first_mismatch(into, digests):
            msg = (
                f"{what} is damaged or was changed in the registry: {mismatch}. The files are in {source}. "
                "Do not use them: choose another version (`kintsugi models list`), or train again"
            )
            raise DigestError(msg)
