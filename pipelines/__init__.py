"""Folders of images in, models and reports out. Usable without Prefect; the scoring side without torch or MLflow.

    from pipelines import score_folder, train_model, evaluate_model

Each name is imported when it is first used, so that scoring never loads what only training needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.evaluate import evaluate_model
    from pipelines.report import write_report
    from pipelines.score import ScoreSummary, score_folder
    from pipelines.train import TrainedModel, train_model

_HOME = {
    "ScoreSummary": "pipelines.score",
    "TrainedModel": "pipelines.train",
    "evaluate_model": "pipelines.evaluate",
    "score_folder": "pipelines.score",
    "train_model": "pipelines.train",
    "write_report": "pipelines.report",
}

__all__ = ["ScoreSummary", "TrainedModel", "evaluate_model", "score_folder", "train_model", "write_report"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - functions and classes
    if name not in _HOME:
        msg = f"module 'pipelines' has no attribute '{name}'"
        raise AttributeError(msg)
    return getattr(import_module(_HOME[name]), name)
