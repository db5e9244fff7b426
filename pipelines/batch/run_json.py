"""run.json: what a run over a folder was, and what it takes to do it again."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import onnxruntime

from pipelines.anomaly.drift import Drift
from pipelines.base.software import software_version
from pipelines.batch.alarms import find_alarms

if TYPE_CHECKING:
    from pipelines.batch.folder_run import FolderRun


def describe_run(
    job: FolderRun,
    counts: Mapping[str, int],
    *,
    options: Sequence[str],
    warnings: Sequence[str],
    finished: bool,
    drift: Drift | None = None,
) -> dict[str, Any]:
    """Describe any job over a folder.

    Args:
        job: The job.
        counts: Rows by what became of them: `ok`, `failed` and, of scored images, `flagged`.
        options: Of the command line, beside the folder, model and output folder.
        warnings: A sentence each.
        finished: All rows are there.
        drift: What the drift check found.
    """
    total = time.perf_counter() - job.clock
    history = None
    if job.options.series:
        from pipelines.report import history_address  # its imports take long: the first image need not wait

        history = history_address(job.model_name)
    raised = find_alarms(job.options.alarm, counts, drift) if finished else []
    if job.unreadable:
        warnings = [*warnings, f"{len(job.unreadable)} sub-folder(s) cannot be read: what is in them is left out"]
    command = ["kintsugi", job.verb, str(job.folder.resolve()), "--model", job.model.pinned_ref]
    command += ["--out", str(job.output.out.resolve()), *options]
    return {
        "verb": job.verb,
        "command": shlex.join(command),
        "folder": str(job.folder.resolve()),
        "model": {
            "ref": job.model.ref,
            "name": job.model_name,
            "version": job.model.version,
            "sha256": job.model.sha256,
            "metadata": job.session.metadata.model_dump(mode="json"),
            "card": job.model.card,
        },
        "warnings": [*(f"Alarm: {each}" for each in raised), *(each for each in warnings if each not in raised)],
        "alarms": raised,
        "history": history,
        "work_key": job.output.work_key,
        "counts": {**counts, "files": job.total},
        "left_out": list(job.left_out.rows),
        "timings": {stage: round(seconds, 3) for stage, seconds in job.stages.seconds.items()}
        | {"total": round(total, 3), "images_per_second": round(job.left / total, 2) if job.left else None},
        "versions": {
            "kintsugi": software_version(),
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
            "provider": ", ".join(sorted(job.ran_on or {job.session.provider})),
        },
        "started": job.started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds") if finished else None,
    }
