"""What the registry tells, and how it is kept in MLflow's tags."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipelines.models.model_file import MODEL_FILE

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"

SHA256, TASK, DIGESTS, METRIC = "sha256", "task", "digests", "metric."
"""Tags of a model version; the last one is a prefix."""

JOB, DATA, COMMIT, PARENT, WHY = "job", "data_digest", "git_commit", "parent", "why"
"""Tags that say where it comes from: job, training images, repository of the job file, the champion of that time, and
what gave rise to the training."""

RECALIBRATED = "recalibrated"
"""What gave rise to a version with the network of another and new thresholds."""

WORK, DECISION = "work", "decision"
"""Tags by which a training that was stopped after it was registered is finished: its key, and what becomes of it."""

OWN_FIGURE, CHAMPIONS_FIGURE = "challenger_", "champion_"
"""Prefixes of figures: of this version, and of the champion that it was measured against."""


@dataclass(frozen=True, slots=True)
class Version:
    """One registered version of a model."""

    name: str
    version: int
    aliases: tuple[str, ...]
    sha256: str  # of model.onnx; empty when it was not registered by Kintsugi
    run_id: str | None
    created: datetime
    metrics: dict[str, float]
    tags: dict[str, str]
    summary: str
    digests: dict[str, str] = field(default_factory=dict, repr=False)  # sha256 of every file, by relative path

    @property
    def ref(self) -> str:
        """What a user types for this very version."""
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A model with its aliases and its newest version (None while it has none)."""

    name: str
    aliases: dict[str, int]
    latest: Version | None
    updated: datetime

    @property
    def champion(self) -> int | None:
        """The version that `name@champion` means."""
        return self.aliases.get(CHAMPION)


@dataclass(frozen=True, slots=True)
class TrailEntry:
    """One move of an alias."""

    when: datetime
    action: str  # promote | rollback | challenge
    from_version: int | None
    to_version: int
    who: str
    reason: str
    figures: dict[str, Any]


def version_tags(
    digests: Mapping[str, str], task: str, metrics: Mapping[str, float], tags: Mapping[str, str]
) -> dict[str, str]:
    """The tags that a version is registered with; given ones never replace the registry's own."""
    figures = {f"{METRIC}{name}": repr(float(value)) for name, value in metrics.items()}
    recorded = json.dumps(dict(digests), sort_keys=True)
    return {**tags, **figures, SHA256: digests[MODEL_FILE], TASK: task, DIGESTS: recorded}


def read_version(stored: ModelVersion, aliases: Iterable[str]) -> Version:
    """Read one of MLflow's versions, which may have been registered by something else."""
    tags = dict(stored.tags)
    digests: dict[str, str] = {}
    with contextlib.suppress(ValueError):  # somebody else's tag of that name stays among the tags
        digests = dict(json.loads(tags[DIGESTS])) if DIGESTS in tags else {}
        tags.pop(DIGESTS, None)
    metrics = {}
    for key in [key for key in tags if key.startswith(METRIC)]:
        with contextlib.suppress(ValueError):
            metrics[key.removeprefix(METRIC)] = float(tags[key])
            del tags[key]
    return Version(
        name=stored.name,
        version=int(stored.version),
        aliases=tuple(sorted(aliases)),
        sha256=tags.get(SHA256, ""),
        run_id=stored.run_id or None,
        created=utc(stored.creation_timestamp),
        metrics=metrics,
        tags=tags,
        summary=stored.description or "",
        digests=digests,
    )


def utc(milliseconds: int | None) -> datetime:
    """MLflow's time stamp as a time in UTC."""
    return datetime.fromtimestamp((milliseconds or 0) / 1000, tz=UTC)
