"""Classes of images, where each sub-folder of the training folder is one: what a label is taken from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.anomaly.group_thresholds import group_of
from pipelines.base.safe_text import printable
from pipelines.errors import DataError
from pipelines.images import ImageFile

MOST_CLASSES = 256
FEWEST_OF_CLASS = 4  # to train on


def classes_of(files: Sequence[ImageFile], folder: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of the classes in alphabetical order, and which of them each file is of.

    Raises:
        DataError: Some images lie in no sub-folder, or there are fewer than two or too many of them.
    """
    names = [group_of(file.relative) for file in files]
    classes = tuple(sorted(set(names) - {""}))
    if loose := names.count(""):
        msg = f"{loose} of {len(names)} images lie in {folder} itself: move each into the sub-folder of its class"
        raise DataError(msg)
    if not 2 <= len(classes) <= MOST_CLASSES:
        msg = f"{folder} has {len(classes)} sub-folders with images, and classes are from 2 to {MOST_CLASSES}"
        raise DataError(msg)
    number = {name: position for position, name in enumerate(classes)}
    return classes, tuple(number[name] for name in names)


def named(classes: Sequence[str], most: int = 5) -> str:
    """Some names for a line of text, the first of them.

    >>> named(["cat", "dog"]), named(["a", "b", "c"], most=2)
    ('cat, dog', 'a, b, ...')
    """
    return ", ".join(printable(name) for name in classes[:most]) + ", ..." * (len(classes) > most)


def check_classes(classes: Sequence[str], labels: Iterable[int]) -> None:
    """Refuse a class that there is next to nothing to learn from.

    Args:
        classes: Names.
        labels: Which of them each image to train on is of.

    Raises:
        DataError: One has fewer than four; the message names it.
    """
    counts = Counter(labels)
    if few := [name for number, name in enumerate(classes) if counts[number] < FEWEST_OF_CLASS]:
        msg = f"fewer than {FEWEST_OF_CLASS} images to train on in {named(few)}: add images, or take that folder out"
        raise DataError(msg)
