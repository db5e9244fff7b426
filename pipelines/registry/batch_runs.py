"""What a scheduled run over a folder leaves in MLflow: its figures, report and account, beside the model's trainings.

A training that is due asks here whether scoring has seen drift; so it does not matter which machine scored.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.anomaly.drift import LEVEL
from pipelines.anomaly.image_facts import FACT_NAMES
from pipelines.jobfile.recurrence import schedule_of
from pipelines.registry.connection import Connection
from pipelines.registry.records import Version, utc
from pipelines.registry.tracking import TrackedRun

if TYPE_CHECKING:
    from mlflow.entities import Run

KEY, VERSION, DRIFT, VERB, ALARMS, SERIES = "key", "version", "drift", "verb", "alarms", "series"
"""Tags of such a run; the drift check's verdict is "yes" or "no", and missing where there were too few images."""
CHANGED, AGAINST = "changed", "against"  # more tags: facts of the images that have changed, what judged them

LOOKED_AT = 100  # runs, for one that could tell whether there is drift
MOST_AT_ONCE = 1000  # old runs that are removed
SERIES_FILE = ".kintsugi-series"  # in the folder that a schedule's runs are in

KEPT = ("report.html", "run.json")  # as artifacts; rows and pictures stay where they are


def publish_run(out: Path) -> str | None:
    """Record a finished run of a registered model.

    Args:
        out: Its output folder.

    Returns:
        MLflow's identifier of the run; None where the model is in no registry, so that there is no place for it.

    Raises:
        RegistryError: MLflow cannot be reached, or refuses.
    """
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    model, drift = run["model"], run.get("drift")
    if model["version"] is None:
        return None
    key = hashlib.sha256(f"{out.resolve()} {run['started']}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
    tags = {
        KEY: key,
        VERB: run["verb"],
        VERSION: model["version"],
        "sha256": model["sha256"],
        "folder": run["folder"],
        "out": str(out.resolve()),
        **({SERIES: series} if (series := _series_of(out)) else {}),
        **({} if drift is None else {DRIFT: "yes" if drift["drifted"] else "no"}),
        **({CHANGED: changed} if (changed := _changed_in(drift)) else {}),
        **({AGAINST: run["against"]["used"]} if run.get("against") else {}),
        **({ALARMS: "\n".join(run["alarms"])} if run["alarms"] else {}),
    }
    before = _find(model["name"], f"tags.{KEY} = '{key}'")  # of a try that was cut off
    known = before[0].info.run_id if before else None
    with TrackedRun(experiment_of(model["name"]), run_name=out.name, tags=tags, run_id=known) as tracked:
        tracked.metrics(figures_of(run))
        for name in KEPT:
            tracked.artifact(out / name)
        return tracked.run_id


def forget_published(out: Path, age: timedelta, now: datetime) -> int:
    """Remove from MLflow what runs of the same schedule left there, once it has grown old: the files, then the run.

    MLflow shows no more of such a run; its row in the database goes with `mlflow gc`.

    Args:
        out: Output folder of one of the schedule's runs.
        age: Runs that were recorded longer ago are removed.
        now: With its time zone.

    Returns:
        How many were removed; further ones are by the next run.

    Raises:
        RegistryError: MLflow cannot be reached, or refuses.
    """
    model, series = json.loads((out / "run.json").read_text(encoding="utf-8"))["model"], _series_of(out)
    if series is None or model["version"] is None:
        return 0
    # Its start, since one that was cut off has no end: what lasts long was over before it is recorded here.
    before = f"attributes.start_time < {int((now - age).timestamp() * 1000)}"
    old = _find(model["name"], f"tags.{SERIES} = '{series}' and {before}", MOST_AT_ONCE)
    connection = Connection()
    with connection.errors(f"removing old runs of '{model['name']}'"):
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        for run in old:
            files = get_artifact_repository(run.info.artifact_uri, tracking_uri=connection.uri)
            files.delete_artifacts()  # type: ignore[no-untyped-call]  # MLflow has few types
            connection.client.delete_run(run.info.run_id)
    return len(old)


def figures_of(run: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a finished run, from its run.json; shares are of the images that were scored."""
    counts, drift = run["counts"], run.get("drift")
    figures = {name: float(count) for name, count in counts.items()}
    if counts.get("flagged") is not None and counts["ok"]:
        figures["anomaly_rate"] = counts["flagged"] / counts["ok"]
    if drift is not None:
        figures |= {"drift_p_value": drift["p_value"], "drift_effect": drift["effect"]}
    if (speed := run["timings"]["images_per_second"]) is not None:
        figures["images_per_second"] = speed
    return figures


@dataclass(frozen=True, slots=True)
class DriftSeen:
    """Drift that scoring has reported, and has not seen end.

    Attributes:
        last: When it was reported last.
        first: Where images are judged against their folder: since when, without a run in between that was not.
        changed: Facts of the images that have changed; empty: none that is known.
        by_folder: Whether images are judged against their folder meanwhile.
    """

    last: datetime
    first: datetime
    changed: str = ""
    by_folder: bool = False

    def __str__(self) -> str:
        """In words."""
        what = f" in {self.changed}" if self.changed else ""
        text = f"scoring reported drift{what} on {self.last:%Y-%m-%d %H:%M} UTC"
        if self.by_folder:
            text += f" and judges images against their folder since {self.first:%Y-%m-%d %H:%M} UTC"
        return text


def drift_since(version: Version, moment: datetime) -> DriftSeen | None:
    """Drift that scoring with a version reported, if the last run since a moment that could tell did so.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    after = int(moment.timestamp() * 1000)
    found = _find(version.name, f"tags.{VERSION} = '{version.version}' and attributes.start_time > {after}")
    told = [run for run in found if DRIFT in run.data.tags]
    last_alike = next((at for at, run in enumerate(told) if run.data.tags[DRIFT] != "yes"), len(told))
    if not (drifted := told[:last_alike]):
        return None
    tags = drifted[0].data.tags
    other = next((at for at, run in enumerate(drifted) if run.data.tags.get(AGAINST) != "folder"), len(drifted))
    last, first = (utc(run.info.start_time) for run in (drifted[0], drifted[max(other, 1) - 1]))
    return DriftSeen(last, first, tags.get(CHANGED, ""), other > 0)


def _changed_in(drift: Mapping[str, Any] | None) -> str:
    """The facts of the images that have changed, by name; empty where there is no drift."""
    if drift is None or not drift["drifted"]:
        return ""
    changed = [each["name"] for each in drift.get("statistics", ()) if each["p_value"] <= LEVEL]
    return ", ".join(name for name in changed if name in FACT_NAMES)


def _series_of(out: Path) -> str | None:
    """What the runs of a schedule into one folder share; None where no schedule named it.

    The folder has a mark of its own: on another machine, or in another container, one of the same path is another.
    """
    schedule = schedule_of(out.resolve())
    if schedule is None:
        return None
    folder, what = schedule
    mark = folder / SERIES_FILE
    with suppress(FileExistsError), mark.open("x", encoding="utf-8") as file:
        file.write(secrets.token_hex(16))
    series = f"{mark.read_text(encoding='utf-8')} {what}"
    return hashlib.sha256(series.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _find(name: str, condition: str, most: int = LOOKED_AT) -> list[Run]:
    """The newest runs of a model over folders that fulfil a condition."""
    connection = Connection()
    with connection.errors(f"looking for runs of '{name}'"):
        client = connection.client
        experiment = client.get_experiment_by_name(experiment_of(name))
        if experiment is None:
            return []
        newest = ["attributes.start_time DESC"]
        return list(client.search_runs([experiment.experiment_id], condition, max_results=most, order_by=newest))


def experiment_of(name: str) -> str:
    """Of the runs over folders; no model's trainings have that name, which no model may have.

    >>> experiment_of("tiles")
    'tiles (runs)'
    """
    return f"{name} (runs)"
