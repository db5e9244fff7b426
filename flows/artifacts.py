"""Pages of a run in Prefect: a table of its figures, and a link to the report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from pipelines.jobfile.job import verb_of

if TYPE_CHECKING:
    from pipelines.registry.records import Version
    from pipelines.restore import RestoreSummary
    from pipelines.score import ScoreSummary
    from pipelines.training.registration import TrainedModel


def record_scores(summary: ScoreSummary, folder: Path, model: str) -> None:
    """Record the counts of a finished scoring job, and the path of its report."""
    key = artifact_key("score", folder.name, model)
    create_table_artifact(table(list_counts(summary)), key=f"{key}-counts", description=f"{folder} with {model}")
    create_markdown_artifact(scores_page(summary, folder, model), key=f"{key}-report", description="Anomaly report")


def list_counts(summary: ScoreSummary) -> dict[str, object]:
    """List the figures of a scoring job by name; the promised and the measured rate are two entries."""
    claim, unmeant = summary.claim, "without a promise" if summary.claim.is_proved else "without a known rate"
    rate = None if 0 < summary.unpromised == summary.ok or not claim.holds else summary.false_alarms
    by_folder = {"judged against": "its folder", "flagged by calibration": summary.by_calibration}
    return {
        "files": summary.files,
        "scored": summary.ok,
        "failed": summary.failed,
        "flagged": summary.flagged,
        **(by_folder if summary.against == "folder" else {}),
        **({"rule": summary.rule} if summary.rule else {f"{claim.is_what} false-alarm rate": rate}),
        **({} if claim.measured is None else {"measured false-alarm rate": claim.measured.share}),
        **({unmeant: summary.unpromised} if summary.unpromised else {}),
        "threshold": summary.threshold,
        "images per second": summary.images_per_second,
    }


def record_restored(summary: RestoreSummary, folder: Path, model: str) -> None:
    """Record the counts of a finished restoration, and the path of its report."""
    key = artifact_key("restore", folder.name, model)
    counts = {"files": summary.files, "restored": summary.ok, "failed": summary.failed, "psnr": summary.psnr}
    create_table_artifact(table(counts), key=f"{key}-counts", description=f"{folder} with {model}")
    create_markdown_artifact(restored_page(summary, folder, model), key=f"{key}-report", description="Restored images")


def record_training(trained: TrainedModel) -> None:
    """Record the figures of a finished training job, and whether its version became champion."""
    key = artifact_key("train", trained.version.name)
    create_table_artifact(table(trained.figures), key=f"{key}-figures", description=trained.version.ref)
    create_markdown_artifact(training_page(trained), key=f"{key}-version", description="Registered version")


def record_champion(champion: Version, reason: str) -> None:
    """Record the new champion."""
    create_markdown_artifact(
        f"# {champion.name}: version {champion.version} is champion\n\n{reason}\n\n{_code(champion.sha256)}\n",
        key=artifact_key("champion", champion.name),
        description="Champion",
    )


def scores_page(summary: ScoreSummary, folder: Path, model: str) -> str:
    """Return the page of a scoring job, in Markdown."""
    if not summary.ok:
        verdict = "No image could be scored."
    elif summary.threshold is None:
        verdict = "No verdicts: the model has no calibration."
    else:
        verdict = f"**{summary.flagged}** of {summary.ok} images look abnormal."
    return f"# {folder.name} with {model}\n\n{verdict}{_failed(summary.failed)}\n\n{_report(summary.report)}"


def restored_page(summary: RestoreSummary, folder: Path, model: str) -> str:
    """Return the page of a restoration job, in Markdown."""
    images, done = _code(str((summary.out / "restored").resolve())), summary.done
    return (
        f"# {folder.name} with {model}\n\n**{summary.ok}** of {summary.files} images {done}."
        f"{_failed(summary.failed)}\n\nImages:\n\n{images}\n\n{_report(summary.report)}"
    )


def training_page(trained: TrainedModel) -> str:
    """Return the page of a training job, in Markdown."""
    version = trained.version
    state = "is champion" if trained.promoted else "stays challenger"
    verb = verb_of(version.tags.get("task", ""))
    command = f"kintsugi {verb} FOLDER --model {version.ref} --out DIR"
    return (
        f"# {version.ref} {state}\n\n{trained.reason}\n\n"
        f"{verb.capitalize()} a folder with it:\n\n{_code(command)}\n\n"
        f"sha256 of the model file: `{version.sha256}`\n"
    )


def table(values: Mapping[str, object]) -> list[dict[str, str]]:
    """Return the rows of a table; a value that was not measured is a dash.

    >>> table({"flagged": 3, "threshold": None})
    [{'figure': 'flagged', 'value': '3'}, {'figure': 'threshold', 'value': '-'}]
    """

    def text(value: object) -> str:
        return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

    return [{"figure": name, "value": text(value)} for name, value in values.items()]


def artifact_key(*parts: str) -> str:
    """Return a key in Prefect's form: lower-case letters, digits and dashes.

    >>> artifact_key("score", "Inbox 7", "tiles@champion")
    'score-inbox-7-tiles-champion'
    """
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def _failed(count: int) -> str:
    return f"\n\n**{count}** files could not be read: see the report." if count else ""


def _report(path: Path) -> str:
    """Return a link and the plain path to copy: browsers do not follow a link from a server's page to a file."""
    report = path.resolve()
    return f"Report: [{report.name}]({report.as_uri()})\n\n{_code(str(report))}\n"


def _code(text: str) -> str:
    return f"```\n{text}\n```"
