"""Tasks: one file each. A new file with a `TASK` is a new task; nothing else has to know."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from vaecore.tasks.base import Colorization, Damage, Restoration, Segmentation, Target, Task, Unpaired


@cache
def all_tasks() -> dict[str, Task | Restoration | Unpaired | Segmentation | Colorization]:
    """Every task by name, the name being the file's."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
    return {name: importlib.import_module(f"{__name__}.{name}").TASK for name in names}


def scoring_tasks() -> dict[str, Task]:
    """Those that give anomaly scores."""
    return {name: task for name, task in all_tasks().items() if isinstance(task, Task)}


def restorations() -> dict[str, Restoration]:
    """Those that mend images."""
    return {name: task for name, task in all_tasks().items() if isinstance(task, Restoration)}


def unpaired_tasks() -> dict[str, Unpaired]:
    """Those that learn the damage, too."""
    return {name: task for name, task in all_tasks().items() if isinstance(task, Unpaired)}


def segmentations() -> dict[str, Segmentation]:
    """Those that label pixels."""
    return {name: task for name, task in all_tasks().items() if isinstance(task, Segmentation)}


def colorizations() -> dict[str, Colorization]:
    """Those that colour grey images."""
    return {name: task for name, task in all_tasks().items() if isinstance(task, Colorization)}


__all__ = [
    "Colorization", "Damage", "Restoration", "Segmentation", "Target", "Task", "Unpaired", "all_tasks", "colorizations",
    "restorations", "scoring_tasks", "segmentations", "unpaired_tasks",
]  # fmt: skip
