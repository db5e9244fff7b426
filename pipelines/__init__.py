"""Folders of images in, models and reports out. Usable without Prefect; the scoring side without torch or MLflow.

    from pipelines import score_folder, train_model, evaluate_model

Each name is imported when it is first used, so that scoring never loads what only training needs.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipelines.base.cores import prepare_threads

if TYPE_CHECKING:
    from pipelines.embed import EmbedSummary, embed_folder
    from pipelines.evaluate import evaluate_model
    from pipelines.rebuild import rebuild_report
    from pipelines.restore import RestoreSummary, restore_folder
    from pipelines.score import ScoreSummary, score_folder
    from pipelines.train import train_model
    from pipelines.training.registration import TrainedModel

# ONNX Runtime reports its use to its makers, and writes into the user's cache folder, from the moment it is imported.
# Python imports this package before any module in it. What the user has set stays as it is.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenMP reads its variables once, when torch or another of its users is loaded.
prepare_threads(os.environ)

_HOME = {
    "EmbedSummary": "pipelines.embed",
    "RestoreSummary": "pipelines.restore",
    "ScoreSummary": "pipelines.score",
    "TrainedModel": "pipelines.training.registration",
    "embed_folder": "pipelines.embed",
    "evaluate_model": "pipelines.evaluate",
    "rebuild_report": "pipelines.rebuild",
    "restore_folder": "pipelines.restore",
    "score_folder": "pipelines.score",
    "train_model": "pipelines.train",
}

__all__ = [
    "EmbedSummary", "RestoreSummary", "ScoreSummary", "TrainedModel", "embed_folder", "evaluate_model",
    "rebuild_report", "restore_folder", "score_folder", "train_model",
]  # fmt: skip


def __getattr__(name: str) -> Any:  # noqa: ANN401 - functions and classes
    if name not in _HOME:
        msg = f"module 'pipelines' has no attribute '{name}'"
        raise AttributeError(msg)
    return getattr(import_module(_HOME[name]), name)
