"""The software's own rows: the whole training job, then `evaluate` through the file that it exported."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import pyarrow.parquet as pq

from pipelines.base.files import write_json
from pipelines.bench.measure import read_material
from pipelines.bench.peak import peak_memory
from pipelines.bench.question import Question
from pipelines.evaluate import evaluate_model
from pipelines.models.session import Session
from pipelines.registry.resolve import find_model
from pipelines.settings import settings
from pipelines.train import train_model
from pipelines.training.network import training_device

log = logging.getLogger(__name__)


def measure_job(question: Question) -> dict[str, Any]:
    """Train and register a model, unless it was for the other half of the test images, and evaluate it."""
    kept = question.work / "trained.json"
    if kept.is_file():
        trained = json.loads(kept.read_text(encoding="utf-8"))
        log.info("trained before: %s", trained["ref"])
    else:
        trained = _train(question)
        write_json(kept, trained)
    report = question.work / f"report-{question.half}"
    figures = evaluate_model(question.test, trained["ref"], out=report)
    run = json.loads((report / "run.json").read_text(encoding="utf-8"))
    seconds = run["timings"]["decode"] + run["timings"]["run"]
    file = find_model(trained["ref"])
    metadata, calibration = Session(file, device=settings().device).metadata, file.calibration()
    rows = pq.read_table(report / "results.parquet", columns=["path", "score"]).to_pylist()
    return {
        "figures": figures,
        "scores": {row["path"]: row["score"] for row in rows if row["score"] is not None},
        "calibration": None if calibration is None else list(calibration.scores),
        # Decoding and the graph, which gives scores and maps; rows, thumbnails and report are no part of the method.
        "images_per_second": (figures["n_good"] + figures["n_bad"]) / seconds,
        "images_per_second_with_report": figures["images_per_second"],
        "train_seconds": trained["train_seconds"],
        "peak_mib": max(peak_memory(), trained["peak_mib"]),
        "size": metadata.size,
        "n_train": metadata.images["train"],
        "device": trained["device"],
        "file": str(file.path),
        "note": f"{metadata.score}; latents {' x '.join(map(str, metadata.latent_shape))}",
    }


def _train(question: Question) -> dict[str, Any]:
    read_material(question.job)
    start = time.perf_counter()
    version = train_model(question.job).version
    seconds = time.perf_counter() - start
    return {"ref": version.ref, "train_seconds": seconds, "peak_mib": peak_memory(), "device": training_device()}
