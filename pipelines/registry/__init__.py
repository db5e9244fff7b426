"""The model registry: MLflow registered models with the aliases champion, challenger and previous; never stages."""

from pipelines.registry.records import ModelSummary, TrailEntry, Version
from pipelines.registry.store import Registry

__all__ = ["ModelSummary", "Registry", "TrailEntry", "Version"]
