"""run.json: what a run over a folder was, and what it takes to do it again."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, Any

import onnxruntime

from pipelines.anomaly.abnormal_regions import describe_scale, local_level
from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.drift import FEWEST, Drift
from pipelines.batch.alarms import alarms
from pipelines.models.model_file import CALIBRATION_FILE, GALLERY_FILE, ModelFile, sha256_of
from pipelines.models.providers import score_tolerance, short_name

if TYPE_CHECKING:
    from pipelines.batch.folder_run import FolderRun
    from pipelines.models.session import AnyRestoring, Session
    from pipelines.score import Scoring

DRAWING = "regions 4"  # another one when rows or pictures of an earlier version must be made again


def describe(scoring: Scoring, counts: dict[str, int], *, finished: bool) -> dict[str, Any]:
    """The document of run.json: everything but the rows themselves."""
    calibration = scoring.verdicts.calibration
    warnings = [] if calibration else [_no_verdicts(scoring.model)]
    if caution := scoring.verdicts.caution(counts["ok"]):
        warnings.append(caution)
    if scoring.drift is not None and scoring.drift.drifted:
        warnings.append(str(scoring.drift))
    if finished and scoring.strangers is not None and (warning := scoring.strangers.warning()):
        warnings.append(warning)
    if finished and scoring.drift is None and calibration is not None and calibration.n < FEWEST:
        warnings.append(
            f"Drift was not checked: it needs {FEWEST} calibration images and this model has {calibration.n}. Train on "
            "more good images"
        )
    if finished and (warning := _other_processor(scoring)):
        warnings.append(warning)
    groups = scoring.verdicts.groups
    if groups:
        warnings += groups.without_promise(file.relative for file in scoring.files)
    drift = scoring.drift
    return describe_run("score", scoring, scoring.session, counts, warnings, finished=finished, drift=drift) | {
        "command": _command(scoring),
        "calibration": calibration
        and {
            "n": calibration.n,
            "false_alarms": scoring.verdicts.false_alarms,
            "threshold": scoring.verdicts.threshold,
            "rule": scoring.verdicts.rule,
            "options": scoring.verdicts.options,
            "scores": list(calibration.scores),
            "grouped": _describe_groups(scoring),
        },
        "heat": describe_scale(calibration),
        "drift": scoring.drift and asdict(scoring.drift),
    }


def describe_run(
    verb: str,
    job: FolderRun,
    session: Session | AnyRestoring,
    counts: dict[str, int],
    warnings: list[str],
    *,
    finished: bool,
    drift: Drift | None = None,
) -> dict[str, Any]:
    """What run.json says of any job over a folder."""
    total = time.perf_counter() - job.clock
    name = job.model.name or session.metadata.name
    history = None
    if job.series:
        from pipelines.report import history_address  # its imports take long: the first image need not wait

        history = history_address(name)
    raised = alarms(job.alarm, counts, drift) if finished else []
    if job.unreadable:
        warnings = [*warnings, f"{len(job.unreadable)} sub-folder(s) cannot be read: what is in them is left out"]
    return {
        "verb": verb,
        "folder": str(job.folder.resolve()),
        "model": {
            "ref": job.model.ref,
            "name": name,
            "version": job.model.version,
            "sha256": job.model.sha256,
            "metadata": session.metadata.model_dump(mode="json"),
            "card": job.model.card,
        },
        "warnings": [*(f"Alarm: {each}" for each in raised), *(each for each in warnings if each not in raised)],
        "alarms": raised,
        "history": history,
        "work_key": job.output.work_key,
        "counts": counts | {"files": job.total},
        "left_out": list(job.left_out.rows),
        "timings": {stage: round(seconds, 3) for stage, seconds in job.stages.seconds.items()}
        | {"total": round(total, 3), "images_per_second": round(job.left / total, 2) if job.left else None},
        "versions": {
            "kintsugi": installed_version("kintsugi"),
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
            "provider": ", ".join(sorted(job.ran_on or {session.provider})),
        },
        "started": job.started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds") if finished else None,
    }


def _other_processor(scoring: Scoring) -> str | None:
    """Return a warning where the scores were made by another processor than the threshold."""
    calibration, threshold = scoring.verdicts.calibration, scoring.verdicts.threshold
    if calibration is None or calibration.provider is None or threshold is None:
        return None
    others = sorted(short_name(each) for each in (scoring.ran_on or {scoring.provider}) - {calibration.provider})
    if not others:
        return None
    here = short_name(calibration.provider)
    return (
        f"the model was calibrated on {here} and scored on {' and '.join(others)}: scores of the two may differ by "
        f"{score_tolerance(threshold):.1g}, so an image that close to the threshold of {threshold:.4f} may get the "
        f"other verdict. Set KINTSUGI_DEVICE={here.lower()}, or train again where you score"
    )


def _no_verdicts(model: ModelFile) -> str:
    """What a model file without its calibration cannot do, and what to copy."""
    missing = model.folder / CALIBRATION_FILE
    return (
        f"no image has a verdict or a p-value, since {missing} is missing. Copy {CALIBRATION_FILE} and {GALLERY_FILE} "
        "to there from where the model file came from (`kintsugi models show NAME@champion` prints that folder), or "
        "give --calibration FILE, and run the same command again"
    )


def work_key(model: ModelFile, calibration: Calibration | None) -> str:
    """What rows and maps depend on: the model, its gallery, the good places, and what is drawn and measured."""
    gallery = model.folder / GALLERY_FILE
    made_of = [
        model.sha256,
        sha256_of(gallery) if gallery.is_file() else None,
        calibration and [calibration.map_quantiles, calibration.places and calibration.places.model_dump()],
        local_level(calibration),
        DRAWING,
    ]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def _command(scoring: Scoring) -> str:
    """How to do the same again, whoever called."""
    words = ["kintsugi", "score", str(scoring.folder.resolve()), "--model", scoring.model.pinned_ref]
    words += ["--out", str(scoring.output.out.resolve())]
    if scoring.calibration_file is not None:
        words += ["--calibration", str(scoring.calibration_file.resolve())]
    for name, number in scoring.verdicts.options.items():
        words += [f"--{name.replace('_', '-')}", repr(number)]
    words += ["--groups"] * (scoring.verdicts.groups is not None) + ["--all-maps"] * scoring.all_maps
    return shlex.join(words)


def _describe_groups(scoring: Scoring) -> dict[str, Any] | None:
    """What the report says about groups, and what it takes to judge by them again."""
    groups, calibration = scoring.verdicts.groups, scoring.verdicts.calibration
    if groups is None or calibration is None:
        return None
    return {
        "level": groups.level,
        "needed": groups.needed,
        "others": {"n": groups.rest.calibration.n, "promised": groups.rest.promised},
        "unpromised": scoring.unpromised,
        "groups": groups.describe(file.relative for file in scoring.files),
        "scores": {name: list(scores) for name, scores in calibration.groups.items()},
    }
