"""What pages of every verb say: why one is partial, and what the model is."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pipelines.report import words
from pipelines.report.folder import Run
from pipelines.report.rows import Rows

_MODEL_FACTS = (
    ("task", "Task"),
    ("summary", "Purpose"),
    ("damage", "Undoes"),
    ("level", "Strength"),
    ("target", "Works on"),
    ("backbone", "Backbone"),
    ("likelihood", "Likelihood"),
)


def missing(rows: Rows, run: Run | None, *, pictured: bool) -> list[str]:
    """Why the page is partial, in sentences; empty for a finished run."""
    found = []
    if run is None:
        found.append(
            "There is no run.json in this folder: the folder of the images, the calibration scores, the times and the "
            "model card are not known."
        )
    elif run.finished is None:
        files = run.counts.files
        done = f"{rows.total:,} of {files:,} files" if files else words.plural(rows.total, "file")
        found.append(f"The run has not finished: {done} are in this report. Start the same command again to continue.")
    elif run.counts.files is not None and run.counts.files > rows.total:
        found.append(f"The run counted {run.counts.files:,} files, of which {rows.total:,} are in this report.")
    if not pictured:
        found.append("The pictures of the worst images have not been written yet.")
    return found


def cautions_of_scores(metadata: Mapping[str, object]) -> list[str]:
    """What a reader has to know of a model that scores before its figures, in sentences."""
    if metadata.get("adversarial") is None:
        return []
    return [
        "This model prefers sharp to faithful: training also asked that reconstructions and images from the prior pass "
        "for real, so that details in them may be made up. Its ELBO is the plain bound, which training did not "
        "maximise alone: do not compare it with other models'. The promised false-alarm rate was counted on held-out "
        "images, and holds for images like those."
    ]


def describe_metadata(metadata: Mapping[str, object]) -> tuple[list[tuple[str, str]], str | None]:
    """A model's metadata: what a reader wants to know as label and value, and all of it as indented JSON."""
    facts = [(label, value) for key, label in _MODEL_FACTS if isinstance(value := metadata.get(key), str)]
    match metadata:
        case {"size": [height, width]}:
            facts.append(("Working size", f"{width} × {height} pixels"))
    match metadata:
        case {"images": {"train": int(images)}}:
            facts.append(("Trained on", words.plural(images, "image")))
    return facts, json.dumps(metadata, indent=2, ensure_ascii=False) if metadata else None
