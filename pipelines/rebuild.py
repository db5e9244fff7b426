"""Rebuild reports: of a finished run, of a stopped run so far, or of all runs in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.anomaly.against import COLUMNS_NEEDED, judge_run
from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.rate_claim import RateClaim
from pipelines.anomaly.verdicts import Verdicts
from pipelines.batch.output_folder import OutputFolder
from pipelines.batch.results_files import COUNTED, open_results
from pipelines.batch.rows import forget_regions
from pipelines.errors import FolderError
from pipelines.images import OUTPUT_MARKER
from pipelines.report import write_history, write_report
from pipelines.review.summary import note_answers


def rebuild(out: Path | str) -> list[Path]:
    """Rebuild report.html of an output folder, or the pages over time of a folder of output folders.

    Args:
        out: The folder.

    Returns:
        Paths of the pages.

    Raises:
        FolderError: The folder has no results.
        OutputError: A run is writing into the folder now.
    """
    out = Path(out)
    own = any((out / name).exists() for name in ("run.json", "results.parquet", OUTPUT_MARKER))
    if own or not any(out.glob("*/run.json")):
        return [rebuild_report(out)]
    if pages := write_history(out):
        return pages
    msg = f"no run in the folders of {out} has finished: start one again, or name one folder to see its results so far"
    raise FolderError(msg)


def rebuild_report(out: Path | str) -> Path:
    """Rebuild report.html of an output folder. For a stopped run, the report has the finished shards.

    Args:
        out: The output folder.

    Returns:
        Path of the report.

    Raises:
        FolderError: The folder has no results.
        OutputError: A run is writing into the folder now.
    """
    out = Path(out)
    if (out / OUTPUT_MARKER).is_dir() and (out / "run.json").is_file():
        try:
            run = json.loads((out / "run.json").read_bytes())
            unfinished = run.get("finished") is None and "work_key" in run
        except (ValueError, AttributeError) as error:
            msg = f"{out / 'run.json'} is damaged ({error}): start the run again to write a new one"
            raise FolderError(msg) from None
        if unfinished:
            _gather(out, run)
    note_answers(out)
    return write_report(out)


def _gather(out: Path, run: dict[str, Any]) -> None:
    """Write the results of the finished shards, with the verdicts of an uninterrupted run."""
    model, kept = run["model"], run.get("calibration") or {}
    grouped = kept.get("grouped")
    claim = RateClaim.model_validate(kept)
    calibration = (
        Calibration(
            kind=claim.kind,
            folds=claim.folds,
            measured=claim.measured,
            model_sha256=model["sha256"],
            scores=tuple(kept["scores"]),
            map_quantiles={},
            groups={name: tuple(scores) for name, scores in grouped["scores"].items()} if grouped else {},
        )
        if kept
        else None
    )
    with OutputFolder(out, work_key=run["work_key"]).hold() as output:
        files = output.store.files()
        if not files:
            msg = f"the run in {out} was stopped before it had any results; start it again: {run['command']}"
            raise FolderError(msg)
        options = kept.get("options") or {"false_alarms": kept.get("false_alarms")}  # an older run may have kept none
        rule = Verdicts.of(
            calibration,
            options.get("false_alarms"),
            budget=options.get("budget"),
            false_discoveries=options.get("false_discoveries"),
            groups=bool(grouped),
            group_level=grouped["level"] if grouped else 0,
        )
        judgement = judge_run(rule, lambda: output.store.tables(files, COLUMNS_NEEDED), against="calibration")
        with open_results(output.out) as results:
            for block in output.store.blocks(files):
                rows = block.rows.to_pylist()
                judgement.fill(rows)
                forget_regions(rows)
                results.add([row | {"model": model["name"], "version": model["version"]} for row in rows])
        output.write_gallery(results.worst)
        judged = kept | {"threshold": judgement.run.threshold} if kept else None
        if judged and grouped:
            judged |= {"grouped": grouped | {"unpromised": results.counts["unpromised"]}}
        counts = {name: results.counts[name] for name in COUNTED}
        output.write_json("run.json", run | {"counts": run["counts"] | counts, "calibration": judged})
