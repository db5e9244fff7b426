"""The page of an output folder, finished or not: what all verbs share; `score_page` and `restore_page` add the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pipelines.report import sentences, words
from pipelines.report.file_table import find_common_notes, pack_rows
from pipelines.report.folder import GALLERY, RESULTS, RUN, Picture, Run, read_gallery, read_record
from pipelines.report.page import SHARED_SCRIPTS, SHARED_STYLES, render_page, write_page
from pipelines.report.restore_page import describe_restoration
from pipelines.report.rows import FAILED, UNJUDGED, Rows, read_rows
from pipelines.report.score_page import describe_scores

REPORT = "report.html"
SHOWN_ROWS = 10_000  # more would take more memory than the model, and nobody reads them here
_MODEL_FACTS = (
    ("task", "Task"),
    ("summary", "Purpose"),
    ("damage", "Undoes"),
    ("level", "Strength"),
    ("target", "Works on"),
    ("backbone", "Backbone"),
    ("likelihood", "Likelihood"),
)


def write_report(out: Path) -> Path:
    """Write OUT/report.html, the page of whatever was done.

    Returns:
        The page. It is the same to the byte for the same folder.

    Raises:
        FolderError: there is nothing to report on, or a file is damaged, or OUT cannot be written.
    """
    run = read_record(out / RUN, Run)
    rows = read_rows(out / RESULTS, limit=SHOWN_ROWS)
    gallery = read_gallery(out / GALLERY)
    describe = describe_restoration if run is not None and run.verb == "restore" else describe_scores
    own = describe(out, run or Run(), rows, gallery or ())
    common = find_common_notes(rows)
    html = render_page(
        own.template,
        {**_describe_run(run, rows, gallery), "common_notes": sorted(common), **own.facts},
        data={"rows": {**pack_rows(rows, common), **own.columns}, **own.data},
        styles=(*SHARED_STYLES, "results.css"),
        scripts=(*SHARED_SCRIPTS, "rows.js", "table.js", *own.scripts),
    )
    write_page(out / REPORT, html)
    return out / REPORT


def _describe_run(run: Run | None, rows: Rows, gallery: tuple[Picture, ...] | None) -> dict[str, object]:
    """Collect what results.html shows, whatever was done."""
    known = run or Run()
    failed = rows.count(FAILED)
    is_pictured = gallery is not None or not len(rows.known_scores)
    unjudged = rows.count(UNJUDGED)
    return {
        "run": known,
        "model_name": known.model.name or rows.model or "unknown model",
        "model_version": known.model.version or rows.version,
        "partial": sentences.explain_partial(rows.total, run, is_pictured=is_pictured),
        "counts": {"failed": failed, "total": rows.total, "ok": rows.total - failed},
        "judged": rows.total - failed - unjudged,
        "unjudged": unjudged,
        "shown_rows": len(rows.worst) if rows.is_truncated else None,
        "failures": rows.failures,
        "has_gallery": bool(gallery),
        "metadata": _describe_metadata(known.model.metadata),
        "stages": [(name, known.timings.get(name)) for name in ("decode", "run", "write")],
        "total_time": known.timings.get("total"),
        "throughput": known.timings.get("images_per_second"),
    }


def _describe_metadata(metadata: Mapping[str, object]) -> tuple[list[tuple[str, str]], str | None]:
    """Return a model's metadata: what a reader wants to know as label and value, and all of it as indented JSON."""
    facts = [(label, value) for key, label in _MODEL_FACTS if isinstance(value := metadata.get(key), str)]
    match metadata:
        case {"size": [height, width]}:
            facts.append(("Working size", f"{width} × {height} pixels"))
    match metadata:
        case {"images": {"train": int(images)}}:
            facts.append(("Trained on", words.plural(images, "image")))
    return facts, json.dumps(metadata, indent=2, ensure_ascii=False) if metadata else None
