"""The model registry: MLflow registered models with the aliases champion, challenger and previous; never stages."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.registry.records import ModelSummary, TrailEntry, Version
    from pipelines.registry.store import Registry

# Imported when they are first used: a path of a model file is resolved here too, and needs no registry.
_HOME = {"ModelSummary": "records", "Registry": "store", "TrailEntry": "records", "Version": "records"}

__all__ = [
    "ModelSummary", "Registry", "TrailEntry", "Version", "batch_runs", "history", "records", "resolve", "search",
    "tracking",
]  # fmt: skip


def __getattr__(name: str) -> Any:  # noqa: ANN401 - classes
    if name not in _HOME:
        msg = f"module 'pipelines.registry' has no attribute '{name}'"
        raise AttributeError(msg)
    return getattr(import_module(f"pipelines.registry.{_HOME[name]}"), name)
