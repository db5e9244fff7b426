"""Rows that are not run: scores of the same test images, made elsewhere, such as by an earlier version.

`{"rail": {"good/1.png": 0.31, "crack/7.png": 2.4}}`: data set -> path below its test folder -> score, or the scores of
several seeds. Every bench writes such a file for each of its rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.anomaly.figures_of_merit import PixelFigures
from pipelines.anomaly.verdicts import Verdicts
from pipelines.base.files import TextError, read_text, write_json
from pipelines.batch.schema import Row
from pipelines.bench.cells import Result
from pipelines.bench.methods import METHODS, Method
from pipelines.errors import DataError, JobError
from pipelines.evaluation.anomalies import measure_scores
from pipelines.images import find_images

Seeds = list[dict[str, float]]  # of each seed: score by path


@dataclass(frozen=True, slots=True)
class GivenScores:
    """One row."""

    method: Method
    file: Path
    sets: Mapping[str, Any]  # as in the file

    def check_images(self, dataset: str, view: Path) -> None:
        """Refuse scores of other images than those that are tested.

        Raises:
            DataError: A path is missing or is of no test image; the message names the first.
        """
        if dataset not in self.sets:
            known = ", ".join(self.sets) or "none"
            raise DataError(f"{self.file} has no scores of {dataset}: its data sets are {known}")
        wanted = {file.relative for file in find_images(view / "test")}
        given = set(self.sets[dataset])
        for paths, what in ((wanted - given, "lacks {} of"), (given - wanted, "has {} images that are not among")):
            if paths:
                msg = (
                    f"{self.file} {what.format(len(paths))} the {len(wanted)} test images of {dataset} (the first: "
                    f"{min(paths)}): give a score of each of these and of no other, from the same --half"
                )
                raise DataError(msg)

    def results(self, dataset: str) -> list[Result]:
        """Return a result for each seed, in the form that cells have; what only a run can tell is None."""
        return [self._result(seed, scores) for seed, scores in enumerate(_by_seed(self.sets[dataset]))]

    def _result(self, seed: int, scores: dict[str, float]) -> Result:
        rows: list[Row] = [{"path": path, "score": score} for path, score in scores.items()]
        unknown = ("train_seconds", "images_per_second", "peak_mib", "size", "n_train", "device", "calibration")
        return {
            "method": self.method.name,
            "seed": seed,
            "status": "ok",
            "figures": measure_scores(rows, PixelFigures(), Verdicts(None, None, None)),
            **dict.fromkeys(unknown),
            "note": f"scores of {self.file.name}, not run here",
            "scores": scores,
        }


def read_given_scores(options: Sequence[str]) -> list[GivenScores]:
    """Read the files that `NAME=FILE` names.

    Raises:
        JobError: An option is not of this form, or its name is of another row.
        DataError: A file cannot be read, or is not of the form above.
    """
    taken = {name for method in METHODS for name in (method.name, method.asked_as)}
    rows = []
    for option in options:
        name, _, file = (part.strip() for part in option.partition("="))
        if not name or not file:
            raise JobError(f"--scores {option}: give a name and a file, as in before=scores-ours.json")
        if name in taken:
            raise JobError(f"--scores {option}: another row is named '{name}': give another name")
        taken.add(name)
        rows.append(GivenScores(Method(name=name, title=name, kind="given"), Path(file), _read(Path(file))))
    return rows


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_text(file))
    except (OSError, TextError, ValueError) as error:
        raise DataError(f"{file} cannot be read as scores: {error}") from None
    sets = document.values() if isinstance(document, dict) else [None]
    if not all(isinstance(each, dict) and _is_numbers(each) for each in sets):
        msg = f"{file} is not of the form data set -> path -> finite score (or a list of them, one a seed)"
        raise DataError(msg)
    return dict(document)


def _is_numbers(scores: dict[str, Any]) -> bool:
    """Return whether every image has a finite score, or as many of them as the others."""
    lists = [value if isinstance(value, list) else [value] for value in scores.values()]
    numbers = all(type(value) in (int, float) and math.isfinite(value) for values in lists for value in values)
    return numbers and len({len(values) for values in lists}) == 1 and bool(lists[0])


def _by_seed(scores: Mapping[str, Any]) -> Seeds:
    lists = {path: value if isinstance(value, list) else [value] for path, value in scores.items()}
    count = len(next(iter(lists.values())))
    return [{path: float(values[seed]) for path, values in lists.items()} for seed in range(count)]


def write_scores(out: Path, sets: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]) -> None:
    """Write the scores of each row in the form that `--scores` takes, as `scores-ROW.json`.

    Args:
        out: Folder.
        sets: Data set -> row -> scores of each seed, by path.
    """
    for name in dict.fromkeys(name for rows in sets.values() for name in rows):
        document = {
            dataset: {
                path: [scores[path] for scores in rows[name]]
                for path in sorted(set(rows[name][0]).intersection(*rows[name][1:]))
            }
            for dataset, rows in sets.items()
            if rows.get(name)
        }
        if document:
            write_json(out / f"scores-{name}.json", document)
