"""Moves of the aliases champion, challenger and previous, each with its entry in the trail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipelines.errors import ModelError
from pipelines.registry.records import CHALLENGER, CHAMPION, PREVIOUS, TrailEntry
from pipelines.registry.trail import actor, write_entry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel


@dataclass(frozen=True, slots=True)
class Aliases:
    """One model's aliases, as they were when it was read.

    The entry is written before anything moves, so that no move goes unrecorded; when an interrupted move is repeated,
    so is its entry. MLflow moves one alias at a time: each order below leaves a champion wherever it stops.
    """

    client: MlflowClient
    model: RegisteredModel

    def promote(self, version: int, reason: str, figures: Mapping[str, object]) -> None:
        """The champion becomes previous, the version champion, and it is no longer challenger."""
        champion = self._version(CHAMPION)
        if champion != version:
            self._record("promote", champion, version, reason, figures)
            if champion is not None:
                self._point(PREVIOUS, champion)
            self._point(CHAMPION, version)
        if self._version(CHALLENGER) == version:
            self.client.delete_registered_model_alias(self.model.name, CHALLENGER)

    def challenge(self, version: int, reason: str, figures: Mapping[str, object]) -> None:
        """The version becomes the challenger.

        Raises:
            ModelError: It is the champion.
        """
        if self._version(CHAMPION) == version:
            msg = f"{self.model.name}/{version} is the champion, so it cannot challenge: name another version"
            raise ModelError(msg)
        challenger = self._version(CHALLENGER)
        if challenger != version:
            self._record("challenge", challenger, version, reason, figures)
            self._point(CHALLENGER, version)

    def previous(self) -> int:
        """The version that a rollback returns to.

        Raises:
            ModelError: There is none.
        """
        champion, previous = self._version(CHAMPION), self._version(PREVIOUS)
        if previous is None or previous == champion:
            name = self.model.name
            held = "no champion yet" if champion is None else f"no champion before {name}/{champion}"
            msg = f"'{name}' had {held}, so there is nothing to roll back to: `kintsugi models promote {name} VERSION`"
            raise ModelError(msg)
        return previous

    def rollback(self, reason: str) -> None:
        """The previous champion is champion again, and the demoted one is previous: twice changes nothing.

        Raises:
            ModelError: There is no previous champion.
        """
        champion, previous = self._version(CHAMPION), self.previous()
        self._record("rollback", champion, previous, reason, {})
        self._point(CHAMPION, previous)
        if champion is not None:
            self._point(PREVIOUS, champion)
        else:
            self.client.delete_registered_model_alias(self.model.name, PREVIOUS)

    def _version(self, alias: str) -> int | None:
        version = self.model.aliases.get(alias)
        return None if version is None else int(version)  # a server answers in strings

    def _point(self, alias: str, version: int) -> None:
        self.client.set_registered_model_alias(self.model.name, alias, str(version))

    def _record(
        self, action: str, from_version: int | None, to_version: int, reason: str, figures: Mapping[str, object]
    ) -> None:
        now = datetime.now(UTC)
        entry = TrailEntry(now, action, from_version, to_version, actor(), reason, dict(figures))
        for key, value in write_entry(entry, self.model.tags).items():
            self.client.set_registered_model_tag(self.model.name, key, value)
