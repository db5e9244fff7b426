"""The table of all files: its rows as columns for `table.js`."""

from __future__ import annotations

from collections import Counter

import numpy as np

from pipelines.base.safe_text import printable
from pipelines.report.page import pack
from pipelines.report.rows import FAILED, FIGURES, MEASURES, VERDICTS, Rows, take_floats, take_texts

_FEW = 5  # files: notes of so few are left beside them


def pack_rows(rows: Rows, common: frozenset[str]) -> dict[str, object]:
    """Return the shown rows as columns: text by folder and name, numbers packed, columns without a figure left out.

    Args:
        rows: The rows.
        common: Notes to leave out.
    """
    folders: dict[str, int] = {}
    names, places = [], []
    for path in take_texts(rows.worst, "path"):
        folder, slash, name = printable(path or "").rpartition("/")
        places.append(folders.setdefault(folder + slash, len(folders)))
        names.append(name)
    texts = ["; ".join(note for note in _split(text) if note not in common) for text in take_texts(rows.worst, "note")]
    notes: dict[str, int] = {"": 0}
    note = [notes.setdefault(text, len(notes)) for text in texts]
    classes: dict[str | None, int] = {None: 0}
    label = [classes.setdefault(name, len(classes)) for name in take_texts(rows.worst, "label")]
    scores = np.where(rows.worst_verdicts == FAILED, np.nan, take_floats(rows.worst, "score"))
    data: dict[str, object] = {
        "total": rows.total,
        "counts": [rows.count(code) for code in VERDICTS],
        "names": names,
        "folders": list(folders),
        "folder": pack(np.array(places), "u4"),
        "notes": [printable(text) for text in notes],
        "note": pack(np.array(note), "u4") if len(notes) > 1 else None,
        "verdict": pack(rows.worst_verdicts, "u1"),
        # Scores keep all their bits, since verdicts are made of them; the rest is only looked at.
        "score": pack(np.where(np.isfinite(scores), scores, np.nan), "f8"),
    }
    if len(classes) > 1:
        data |= {"labels": [printable(name or "") for name in classes], "label": pack(np.array(label), "u4")}
    for name in (*MEASURES, "label_probability", *FIGURES):
        values = take_floats(rows.worst, name)
        if np.isfinite(values).any():
            data[name] = pack(values, "f4")
    for name in ("width", "height"):
        data[name] = pack(np.nan_to_num(take_floats(rows.worst, name)), "u4")
    return data


def find_common_notes(rows: Rows) -> frozenset[str]:
    """Return the notes that most of the shown files have: the page has them once, above the table."""
    counts = Counter(note for text in take_texts(rows.worst, "note") for note in _split(text))
    return frozenset(note for note, count in counts.items() if count > max(_FEW, len(rows.worst) / 2))


def _split(notes: str | None) -> list[str]:
    return notes.split("; ") if notes else []
