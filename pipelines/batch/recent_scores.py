"""Scores of the images that the latest runs of a schedule accepted: what small deliveries are judged beside."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.base.parquet import open_parquet

log = logging.getLogger(__name__)
COLUMNS = ["status", "score", "is_anomaly"]


def read_recent(out: Path, model_sha256: str, most: int) -> NDArray[np.float64]:
    """Read scores of images that were not flagged, from the runs beside this one, the newest first.

    Args:
        out: Output folder of the run that asks; the others lie beside it.
        model_sha256: Of the model file: another model's scores are another matter.
        most: How many are wanted; 0: none, and nothing is read.

    Returns:
        (N,) scores, at most `most`; fewer where the runs have fewer. A run that is damaged or unfinished has none.
    """
    found, count = [np.empty(0)], 0
    if not most:
        return found[0]
    for _, folder in sorted(_finished_runs(out, model_sha256), reverse=True):
        try:
            with open_parquet(folder / "results.parquet") as file:
                table = file.read(columns=COLUMNS)
        except (OSError, ValueError, pa.ArrowException) as error:
            log.warning("%s cannot be read, and tells nothing of recent images: %s", folder / "results.parquet", error)
            continue
        accepted = table.filter(pc.and_(pc.equal(table["status"], "ok"), pc.equal(table["is_anomaly"], False)))
        found.append(accepted["score"].to_numpy().astype(np.float64)[: most - count])
        count += len(found[-1])
        if count >= most:
            break
    return np.concatenate(found)


def _finished_runs(out: Path, model_sha256: str) -> list[tuple[str, Path]]:
    """When each finished run of the model beside this one ended, and its folder."""
    runs = []
    for path in out.parent.glob("*/run.json"):
        if path.parent == out:
            continue
        try:
            run = json.loads(path.read_bytes())
            if run["finished"] and run["verb"] == "score" and run["model"]["sha256"] == model_sha256:
                runs.append((str(run["finished"]), path.parent))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # no run, or one that was cut off
    return runs
