"""The page of `kintsugi restore`: before and after with a divider, error bars, every file, the model."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.base.parquet import open_parquet
from pipelines.base.safe_text import printable
from pipelines.report import words
from pipelines.report.facts import describe_metadata, missing
from pipelines.report.folder import GALLERY, RESULTS, Picture, Run, read_gallery
from pipelines.report.page import SHARED_SCRIPTS, SHARED_STYLES, render_page, write_page
from pipelines.report.rows import FAILED, FIGURES, Rows, column, floats, read_rows
from pipelines.restoration.colorizer import WIDE as OF_COLOURS
from pipelines.restoration.restorer import PALETTE
from pipelines.restoration.restorer import WIDE as OF_ERRORS

REPORT = "report.html"
SHOWN_ROWS = 5_000  # a plain table
SHOWN_PICTURES = 24  # a fifth of a megabyte each
LEVELS = 255  # error bars are told in 8-bit levels, whatever the depth of the file


def write_restore_report(out: Path, run: Run) -> Path:
    """Write OUT/report.html from what is in OUT, whether the run has finished or not.

    Args:
        out: The folder.
        run: What its run.json says.

    Returns:
        The page. It is the same to the byte for the same folder.

    Raises:
        FolderError: there is nothing to report on, or a file is damaged, or OUT cannot be written.
    """
    rows = read_rows(out / RESULTS, limit=SHOWN_ROWS)
    gallery = read_gallery(out / GALLERY)
    html = render_page(
        "restore.html",
        _facts(out, rows, run, gallery),
        data={"gallery": _pictures(run, gallery or ())},
        styles=(*SHARED_STYLES, "score.css", "restore.css"),
        scripts=(*SHARED_SCRIPTS, "restore.js"),
    )
    write_page(out / REPORT, html)
    return out / REPORT


def _facts(out: Path, rows: Rows, run: Run, gallery: tuple[Picture, ...] | None) -> dict[str, object]:
    failed = rows.count(FAILED)
    ok = rows.total - failed
    scale = run.model.metadata.get("scale", 1)
    classes = _classes(run.model.metadata)
    coloured = "gain" in run.model.metadata
    verb = "coloured" if coloured else "labelled" if classes else "restored"
    done = f"{words.plural(ok, 'image')} {verb}" + (f", {scale} times as large" if scale != 1 else "")
    return {
        "run": run,
        "headline": done if not failed else f"{done}, {words.plural(failed, 'file')} failed",
        "model_name": run.model.name or rows.model or "unknown model",
        "model_version": run.model.version or rows.version,
        "partial": missing(rows, run, pictured=gallery is not None or not ok),
        "counts": {"ok": ok, "failed": failed, "total": rows.total},
        "verb": verb,
        "classes": classes,
        "coloured": coloured,
        "cautions": list(_cautions(run.model.metadata)),
        "wide": OF_COLOURS if coloured else OF_ERRORS,
        "figures": _figures(out / RESULTS),
        "files": _files(rows, 1 if classes else LEVELS),
        "shown_rows": SHOWN_ROWS if rows.truncated else None,
        "has_gallery": bool(gallery),
        "sampled": any(each.sampled for each in gallery or ()),
        "intervals": _intervals(run.model.metadata),
        "failures": rows.failures,
        "metadata": describe_metadata(run.model.metadata),
        "calibration": None,
        "stages": [(name, run.timings.get(name)) for name in ("decode", "run", "write")],
        "total_time": run.timings.get("total"),
        "throughput": run.timings.get("images_per_second"),
    }


def _figures(path: Path) -> dict[str, float]:
    """Means over all images of what was measured."""
    found: dict[str, float] = {}
    with open_parquet(path) as file:
        for name in FIGURES:
            if name in file.schema_arrow.names:
                values = pc.mean(file.read(columns=[name])[name]).as_py()
                found |= {} if values is None else {name: float(values)}
    return found


def _files(rows: Rows, unit: float) -> list[dict[str, object]]:
    """One entry for each restored file, in the order of their names."""
    paths, outputs, notes = (column(rows.worst, name, pa.string()).to_pylist() for name in ("path", "output", "note"))
    known = {name: _known(floats(rows.worst, name)) for name in ("width", "height", "mean_scale", *FIGURES)}
    table: list[dict[str, object]] = []
    for row, (path, verdict) in enumerate(zip(paths, rows.worst_verdicts, strict=True)):
        if verdict == FAILED:
            continue
        spread = known["mean_scale"][row]
        table.append(
            {
                "path": printable(path),
                "output": printable(outputs[row] or ""),
                "note": printable(notes[row] or ""),
                "size": f"{known['width'][row]:.0f} × {known['height'][row]:.0f}",
                "error": None if spread is None else spread * unit,
                **{name: known[name][row] for name in FIGURES},
            }
        )
    return sorted(table, key=lambda entry: str(entry["path"]))


def _known(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _intervals(metadata: dict[str, Any]) -> Sequence[tuple[str, float]]:
    """Shares of pixels in words, and how many error bars hold so many."""
    found = metadata.get("intervals")
    return [(f"{float(share):.0%}", float(width)) for share, width in found.items()] if isinstance(found, dict) else []


def _cautions(metadata: dict[str, Any]) -> Iterator[str]:
    """What a reader has to know of the model before the pictures, in sentences."""
    if metadata.get("adversarial") is not None:
        yield (
            "This model prefers sharp to faithful: training also asked that results pass for real images. They look "
            "sharper, and are on average further from the truth. Details may be made up, and error bars do not tell "
            "which: they were counted on held-out images, as the share of pixels that they hold."
        )
    if metadata.get("task") == "unpaired":
        yield (
            "This model has never seen a damaged image beside its clean twin: it learned the damage from a folder of "
            "damaged images, and mending it from copies of clean images that it had damaged so. Error bars are those "
            "of such copies."
        )


def _classes(metadata: dict[str, Any]) -> Sequence[tuple[str, str]]:
    """Names of the classes beyond the background, and the colours that they are drawn in."""
    names = metadata.get("classes")
    if not isinstance(names, list):
        return []
    return [(str(name), "rgb({}, {}, {})".format(*PALETTE[value % 256])) for value, name in enumerate(names) if value]


def _pictures(run: Run, gallery: Sequence[Picture]) -> list[dict[str, object]]:
    unit, name = (1, "") if _classes(run.model.metadata) else (LEVELS, " levels")
    return [
        _picture(each) | {"unit": name, "error": _times(each.mean_scale, unit)} for each in gallery[:SHOWN_PICTURES]
    ]


def _times(value: float | None, unit: float) -> float | None:
    return None if value is None or not np.isfinite(value) else value * unit


def _picture(picture: Picture) -> dict[str, object]:
    encoded = {
        name: base64.b64encode(data).decode("ascii") if data else None
        for name, data in (("before", picture.thumbnail), ("after", picture.restored), ("errors", picture.heatmap))
    }
    return {
        **encoded,
        "path": printable(picture.path),
        "output": printable(picture.output or ""),
        "psnr": picture.psnr,
        "dice": picture.dice,
        "samples": [base64.b64encode(data).decode("ascii") for data in picture.sampled or ()],
        "disagreement": picture.disagreement,
    }
