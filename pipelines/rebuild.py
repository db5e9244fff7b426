"""Write the report again: of a finished folder, or of what a stopped run has done so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.calibration import Calibration
from pipelines.errors import FolderError
from pipelines.images import OUTPUT_MARKER
from pipelines.output import OutputFolder
from pipelines.report import write_report
from pipelines.rows import forget_regions
from pipelines.verdicts import Verdicts, count


def rebuild_report(out: Path | str) -> Path:
    """Rebuild report.html from an output folder; of a run that was stopped, from the shards that it finished.

    Args:
        out: The output folder.

    Returns:
        The report's path.

    Raises:
        FolderError: There is nothing to report on.
        OutputError: A run is writing there now.
    """
    out = Path(out)
    if (out / OUTPUT_MARKER).is_dir() and (out / "run.json").is_file():
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
        if run.get("finished") is None and "work_key" in run:
            _gather(out, run)
    return write_report(out)


def _gather(out: Path, run: dict[str, Any]) -> None:
    """Make results of the finished shards, with the verdicts that the run would have given."""
    model, kept = run["model"], run.get("calibration") or {}
    grouped = kept.get("grouped")
    calibration = (
        Calibration(
            model_sha256=model["sha256"],
            scores=tuple(kept["scores"]),
            map_quantiles={},
            groups={name: tuple(scores) for name, scores in grouped["scores"].items()} if grouped else {},
        )
        if kept
        else None
    )
    with OutputFolder(out, work_key=run["work_key"]).held() as output:
        rows = output.all_rows()
        if not rows:
            msg = f"the run in {out} was stopped before it had any results; start it again: {run['command']}"
            raise FolderError(msg)
        options = kept.get("options") or {"false_alarms": kept.get("false_alarms")}  # an older run may have kept none
        verdicts = Verdicts.of(
            calibration,
            options.get("false_alarms"),
            budget=options.get("budget"),
            false_discoveries=options.get("false_discoveries"),
            groups=bool(grouped),
            group_level=grouped["level"] if grouped else 0,
        ).settle(rows)
        verdicts.fill(rows)
        forget_regions(rows)
        for row in rows:
            row.update(model=model["name"], version=model["version"])
        output.write_results(rows)
        output.write_gallery(rows)
        settled = kept | {"threshold": verdicts.threshold} if kept else None
        output.write_json("run.json", run | {"counts": run["counts"] | count(rows), "calibration": settled})
